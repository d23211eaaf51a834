#!/usr/bin/env bash
# The whole pipeline on real OpenMX runs of graphene: dataset, training on two ranks, prediction of a larger cell that
# the network never saw, and its bands on top of those that OpenMX computed. About three minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS=1
results=demo/results

run() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

rm -rf "$results"
run deeph-tracegrad preprocess 'demo/runs/a_*' 'demo/runs/b_*' --out $results/dataset
run mpirun -n 2 deeph-tracegrad train demo/config.toml
run deeph-tracegrad evaluate $results/training/best.pt $results/dataset --out $results/errors
run deeph-tracegrad predict $results/training/best.pt demo/runs/c_00 demo/runs/d_00 --out $results/predicted
for cell in c_00 d_00; do
    run deeph-tracegrad bands $results/predicted/$cell --compare demo/runs/$cell/openmx.Band --window -8 6 --out $results/bands_$cell
done
printf '\nPictures: %s\n' "$results/bands_c_00.png, $results/bands_d_00.png, $results/errors.png"
