#!/bin/bash
# Training on CPUs under Slurm: one rank for each group of cores, started by srun through MPI.
#   sbatch slurm_cpu.sh config.toml
#SBATCH --job-name=tracegrad
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=4
#SBATCH --time=24:00:00
# SIGTERM to the ranks ten minutes before the time limit: after the step under way they write last.pt and end.
#SBATCH --signal=TERM@600
# A preempted job is queued again.
#SBATCH --requeue
#SBATCH --open-mode=append

export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
# Where a node's name stands for an address that other nodes do not reach, name the interface (see `ip address`):
# export GLOO_SOCKET_IFNAME=ib0

# --mpi: pmi2 for MPICH (the wheel `mpich`) and Intel MPI, pmix for Open MPI.
# --kill-on-bad-exit: no rank waits for one that is lost.
srun --mpi=pmi2 --kill-on-bad-exit=1 \
    deeph-tracegrad train "$1" --resume auto --set training.device=cpu --set "training.threads=$SLURM_CPUS_PER_TASK"
code=$?

# 75: stopped by SIGTERM, and to be gone on with.
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
