#!/bin/bash
# Training on GPUs under Slurm: one rank a GPU, started by srun without MPI, through the variables of torchrun.
#   sbatch slurm_gpu.sh config.toml
#SBATCH --job-name=tracegrad
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# SIGTERM to the ranks ten minutes before the time limit: after the step under way they write last.pt and end.
#SBATCH --signal=TERM@600
# A preempted job is queued again.
#SBATCH --requeue
#SBATCH --open-mode=append

export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
# The ranks meet on the first node; two jobs that share it take two ports.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 40000))
export WORLD_SIZE=$SLURM_NTASKS
export LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
# Where a node's name stands for an address that other nodes do not reach, name the interface (see `ip address`):
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0

# --kill-on-bad-exit: no rank waits for one that is lost.
# shellcheck disable=SC2016  # each task fills in its own number
srun --mpi=none --kill-on-bad-exit=1 \
    bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec deeph-tracegrad "$@"' bash \
    train "$1" --resume auto --set training.device=cuda
code=$?

# 75: stopped by SIGTERM, and to be gone on with.
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
