#!/usr/bin/env bash
# Trains one supernet, or goes on with it if its run folder has a checkpoint: give the same command again after any stop.
# CONFIG, the configuration (default configs/supernet_fc2_180x240.yaml), decides what is trained. Added to it are only the paths
# and resources below, the name of the run's folder (EXPERIMENT, default: the configuration's file name), and a seed if SEED is
# set or a job array gives one. Further arguments go to the trainer: --dry_run, --fast_mode, --set train.lr=2e-4, --unsigned ...
# First it looks whether the run can start (edgeflownas doctor); with `--check` as its first argument it does nothing else.
# A run of more than five epochs needs a sign-off of gate 3 for this source: python -m pytest gates, once; else --unsigned.
# scripts/local and scripts/hpc differ only in the block of paths and resources; a test compares them.

# >>> paths and resources: the environment overrides each variable
PROJECT="${PROJECT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}" # the repository
PYTHON="${PYTHON:-python}"                                                # of the activated environment
FC2_ROOT="${FC2_ROOT:-$PROJECT/data/FlyingChairs2}"                       # the FC2 set
GPU_DEVICE="${GPU_DEVICE:-0}"                                             # within CUDA_VISIBLE_DEVICES, if that is set
NUM_WORKERS="${NUM_WORKERS:-4}"                                           # threads that decode data
# <<< paths and resources

set -euo pipefail
cd "$PROJECT"

config="${CONFIG:-configs/supernet_fc2_180x240.yaml}"
name="${EXPERIMENT:-$(basename "$config" .yaml)}"
words=(--config "$config" --base_path "$FC2_ROOT" --gpu_device "$GPU_DEVICE" --num_workers "$NUM_WORKERS")
# One run folder per seed, so that the tasks of a job array never share one.
if [ -n "${SEED:-}${SLURM_ARRAY_TASK_ID:-}" ]; then
    seed=$((${SEED:-42} + ${SLURM_ARRAY_TASK_ID:-0}))
    name="${name}_seed$seed"
    words+=(--seed "$seed")
fi
words+=(--experiment_name "$name")
# The tasks of a SLURM job are the ranks of one run.
ranks="${SLURM_NTASKS:-1}"
if [ "$ranks" -gt 1 ]; then words+=(--distributed); fi
check_only=
if [ "${1:-}" = --check ]; then
    check_only=yes
    shift
fi

# Signals go on to the program at work. (Ctrl-C reaches it by itself.) One that comes before it runs is kept for it.
program=
early=
pass_on() {
    signalled=yes
    if [ -n "$program" ]; then kill -s "$1" "$program" 2>/dev/null || true; else early=$1; fi
}
listen() {
    trap 'pass_on USR1' USR1
    trap 'pass_on TERM' TERM
    trap 'signalled=yes' INT
}
listen

# Runs a command and leaves its exit code in `status`.
run() {
    # In the background, because bash handles a signal only between commands or in `wait`.
    "$@" &
    program=$!
    if [ -n "$early" ]; then pass_on "$early"; fi
    # A signal ends `wait` at once, but the trainer needs time to finish its step and commit: wait again until it has exited.
    signalled=yes
    while [ -n "$signalled" ]; do
        signalled=
        status=0
        wait "$program" || status=$?
    done
    program=
}

# 138 = stopped by USR1, 143 = by TERM: committed and ready to resume.
stopped() { [ "$1" = 138 ] || [ "$1" = 143 ]; }

# What srun starts: a rank. Its exit code goes to a file in folder $1, because srun makes one code of those of all ranks, of the
# ones that it kills, too. A rank that has stopped as it should exits with 0, so that srun does not kill those that still commit.
# shellcheck disable=SC2329 # srun's shell calls it
as_rank() {
    listen
    run "${@:2}"
    echo "$status" >"$1/$SLURM_PROCID"
    if stopped "$status"; then status=0; fi
    exit "$status"
}

# Shows a command as it can be typed and runs it, on every rank if there are several. Those have been stopped if each of them says
# so; anything else is an error, whatever signal srun reports of ranks that it has killed.
launch() {
    printf '$'
    printf ' %q' "$@"
    printf '\n'
    if [ "$ranks" -le 1 ]; then
        run "$@"
        return
    fi
    mkdir -p outputs
    local codes count
    codes="$(mktemp -d "$PWD/outputs/.ranks.XXXXXX")" # on a disk that all nodes see
    run srun --kill-on-bad-exit=1 --ntasks="$ranks" ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} \
        bash -c "program=; early=; $(declare -f pass_on listen run stopped as_rank); as_rank \"\$@\"" rank "$codes" "$@"
    count="$(cat "$codes"/* 2>/dev/null | grep -cxE '138|143' || true)"
    if [ "$count" = "$ranks" ]; then
        status="$(cat "$codes/0")"
    elif stopped "$status"; then
        status=1
    fi
    rm -rf "$codes"
}

status=0
case " $* " in
*" --dry_run "* | *" --help "*) ranks=1 ;; # an answer that needs neither ranks nor the doctor
*) launch "$PYTHON" -m edgeflownas.doctor "${words[@]}" --resume_if_begun "$@" ;;
esac
if [ "$status" = 0 ] && [ -z "$check_only" ]; then
    launch "$PYTHON" wrappers/run_supernet_train.py "${words[@]}" --resume_if_begun "$@"
fi

# Anything else is an end or an error: no requeue.
if stopped "$status"; then
    if [ -n "${SLURM_JOB_ID:-}" ] && command -v scontrol >/dev/null; then
        echo "interrupted (exit code $status): requeueing job $SLURM_JOB_ID, which will resume $name"
        scontrol requeue "$SLURM_JOB_ID" || echo "the requeue failed: submit the same command again to resume $name"
    else
        echo "interrupted (exit code $status): run the same command again to resume $name"
    fi
fi
exit "$status"
