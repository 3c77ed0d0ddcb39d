#!/usr/bin/env bash
# Trains one supernet, and resumes it if its run folder has a checkpoint: run the same command again after any stop.
# scripts/local and scripts/hpc differ only in the block of paths and resources; a test compares them.
# Further arguments go to the trainer, for example: --dry_run, --batch_size 16, --supernet_mode uniform

# >>> paths and resources: the environment overrides each variable
# Submit from the repository: sbatch scripts/hpc/run_supernet_train.sh (five seeds: sbatch --array=0-4 ...).
# 300 s before the time limit SLURM sends USR1 to this shell (B:); it is passed on to the trainer, which finishes its step,
# commits and exits; then the job is requeued, starts again under its number, and resumes. To stop it for good, `scancel` it,
# and once more if it comes back as pending.
#SBATCH --job-name=edgeflownas
#SBATCH --partition=gpu
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
PROJECT="${PROJECT:-${SLURM_SUBMIT_DIR:-$PWD}}"         # the repository; SLURM runs a copy of this file that lies elsewhere
PYTHON="${PYTHON:-python}"                              # of tf_work_hpc, activated before sbatch, or named in full
FC2_ROOT="${FC2_ROOT:-$HOME/datasets/FlyingChairs2}"    # the FC2 set, on a disk that the node sees
GPU_DEVICE="${GPU_DEVICE:-0}"                           # the first of those that SLURM gave
NUM_WORKERS="${NUM_WORKERS:-${SLURM_CPUS_PER_TASK:-8}}" # threads that decode data
# module load cuda/10.0 cudnn/7.6                       # where the cluster has them as modules
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
