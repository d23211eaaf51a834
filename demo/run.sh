#!/usr/bin/env bash
# The whole pipeline on real OpenMX runs of graphene: dataset, training on two ranks, prediction of a larger cell that
# the network never saw, and its bands on top of those that OpenMX computed. About seven minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS=1
work=demo/work

run() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

rm -rf "$work"
run deeph-tracegrad preprocess 'demo/runs/a_*' 'demo/runs/b_*' --out $work/dataset
run mpirun -n 2 deeph-tracegrad train demo/config.toml
run deeph-tracegrad evaluate $work/training/best.pt $work/dataset --out $work/errors
run deeph-tracegrad predict $work/training/best.pt demo/runs/c_00 demo/runs/d_00 --out $work/predicted
for cell in c_00 d_00; do
    run deeph-tracegrad bands $work/predicted/$cell --compare demo/runs/$cell/openmx.Band --window -8 6 --out $work/bands_$cell
done
printf '\nPictures: %s\n' "$work/bands_c_00.png, $work/bands_d_00.png, $work/errors.png"
