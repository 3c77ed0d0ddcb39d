#!/usr/bin/env bash
# Trains one supernet, and resumes it if its run folder has a checkpoint: run the same command again after any stop.
# scripts/local and scripts/hpc differ only in the block of paths and resources; a test compares them.
# Further arguments go to the trainer, for example: --dry_run, --batch_size 16, --supernet_mode uniform

# >>> paths and resources: the environment overrides each variable
PROJECT="${PROJECT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}" # the repository
PYTHON="${PYTHON:-python}"                                                # of the activated tf_work_hpc environment
FC2_ROOT="${FC2_ROOT:-$PROJECT/data/FlyingChairs2}"                       # the FC2 set
GPU_DEVICE="${GPU_DEVICE:-0}"
NUM_WORKERS="${NUM_WORKERS:-4}" # threads that decode data
# <<< paths and resources

set -euo pipefail
cd "$PROJECT"

# One run folder per seed, so that the tasks of a job array never share one.
seed=$((${SEED:-42} + ${SLURM_ARRAY_TASK_ID:-0}))
name="${EXPERIMENT:-supernet_fc2_180x240}_seed${seed}"
if compgen -G "outputs/supernet/$name/checkpoints/supernet_last.ckpt*" >/dev/null; then
    set -- --resume "$@"
fi

command=("$PYTHON" wrappers/run_supernet_train.py
    --config "${CONFIG:-configs/supernet_fc2_180x240.yaml}" --experiment_name "$name" --seed "$seed"
    --base_path "$FC2_ROOT" --gpu_device "$GPU_DEVICE" --num_workers "$NUM_WORKERS"
    --num_epochs 200 --batch_size 32 --lr 1e-4 --fast_mode "$@")
printf '$'
printf ' %q' "${command[@]}"
printf '\n'

# Signals go on to the trainer. (Ctrl-C reaches it by itself.) One that comes before it runs is kept for it.
trainer=
early=
# shellcheck disable=SC2329 # the traps call it
pass_on() {
    signalled=yes
    if [ -n "$trainer" ]; then kill -s "$1" "$trainer" 2>/dev/null || true; else early=$1; fi
}
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM
trap 'signalled=yes' INT

# In the background, because bash handles a signal only between commands or in `wait`.
"${command[@]}" &
trainer=$!
if [ -n "$early" ]; then pass_on "$early"; fi

# A signal ends `wait` at once, but the trainer needs time to finish its step and commit: wait again until it has exited.
signalled=yes
while [ -n "$signalled" ]; do
    signalled=
    status=0
    wait "$trainer" || status=$?
done

# 138 = stopped by USR1, 143 = by TERM: committed and ready to resume. Anything else is an end or an error: no requeue.
if [ "$status" = 138 ] || [ "$status" = 143 ]; then
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        echo "interrupted (exit code $status): requeueing job $SLURM_JOB_ID, which will resume $name"
        scontrol requeue "$SLURM_JOB_ID"
    else
        echo "interrupted (exit code $status): run the same command again to resume $name"
    fi
fi
exit "$status"
