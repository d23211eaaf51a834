#!/bin/bash
# Training under PBS: one rank for each group of cores, or for each GPU, started by mpirun.
#   qsub -v CONFIG=config.toml pbs.sh
#PBS -N tracegrad
#PBS -l select=2:ncpus=32:mpiprocs=8:ompthreads=4
#PBS -l walltime=24:00:00
#PBS -j oe
# A job that the queue ended may be run again.
#PBS -r y

cd "$PBS_O_WORKDIR" || exit 2
# Where a node's name stands for an address that other nodes do not reach, name the interface (see `ip address`):
# export GLOO_SOCKET_IFNAME=ib0 NCCL_SOCKET_IFNAME=ib0

# PBS gives no notice of the end, so `timeout` sends SIGTERM ten minutes before it; mpirun hands it to the ranks.
# That is for MPICH and Intel MPI: Open MPI's mpirun gives the ranks one second to end, and then returns 1.
# For GPUs: --set training.device=cuda, and as many mpiprocs as GPUs of a node.
timeout --preserve-status --signal=TERM 1430m \
    mpirun -n "$(wc -l < "$PBS_NODEFILE")" \
    deeph-tracegrad train "$CONFIG" --resume auto --set training.device=cpu
code=$?

# 75: stopped by SIGTERM, and to be gone on with.
if [ "$code" -eq 75 ]; then
    qsub -v CONFIG="$CONFIG" "$PBS_O_WORKDIR/pbs.sh"
fi
exit "$code"
