"""H(k) of twisted bilayer graphene: seconds, and the share of the memory's speed, beside SciPy matrices added R by R.

    OMP_NUM_THREADS=1 python benchmarks/assemble_bloch.py [--atoms N]

C6.0-s2p2d1. The share counts what has to move: the blocks of atoms i <= j read once, every value of H(k) written once,
in relation to a copy of large arrays, measured in the same run. Each sum is written over the one before, as in a loop
over k. `real` is at Γ. The baseline holds one CSR matrix for
each R and adds them with their phases.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from _bilayer import TWISTS, twisted_graphene
from _machine import copy_rate, median_seconds
from scipy import sparse

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.inference.bloch import SparseOperator, bloch_operators
from deeph_tracegrad.inference.bloch_sum import Kind

CPU = torch.device("cpu")
ROUNDS = 5
GENERAL, GAMMA = np.array([0.13, 0.27, 0.0]), np.zeros(3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=2524, help="the largest bilayer")
    parser.add_argument("--peer-atoms", type=int, default=2524, help="the largest for SciPy")
    arguments = parser.parse_args()
    rate = copy_rate(CPU)
    print(f"copy {rate / 1e9:.1f} GB/s, {torch.get_num_threads()} threads")
    print(f"{'atoms':>6} {'million':>8} {'pattern s':>9}", end="")
    print(
        "".join(f"{name:>11} s share" for name in ("complex128", "complex64", "real")), f"{'R by R s':>9} {'ratio':>6}"
    )
    for m, n in TWISTS:
        if 4 * (m * m + m * n + n * n) <= arguments.atoms:
            print(row(m, n, rate, peer=4 * (m * m + m * n + n * n) <= arguments.peer_atoms), flush=True)


def row(m: int, n: int, rate: float, *, peer: bool) -> str:
    material = twisted_graphene(m, n)
    start = time.perf_counter()
    (operator,) = bloch_operators(material).hamiltonian
    built = time.perf_counter() - start
    works = {
        "complex128": repeatedly(operator, GENERAL),
        "complex64": repeatedly(operator, GENERAL, single=True),
        "real": repeatedly(operator, GAMMA),
    }
    taken = median_seconds(works, ROUNDS, CPU)
    line = f"{len(material.structure):6} {len(operator.pattern.indices) / 1e6:8.1f} {built:9.2f}"
    for name, work in works.items():
        line += f" {taken[name]:12.4f} {bytes_moved(operator, work()) / taken[name] / rate:5.0%}"
    if not peer:
        return line
    matrices = of_cells(material.hamiltonian[0])
    added = median_seconds({"peer": lambda: sum_of_cells(matrices, GENERAL)}, 1, CPU)["peer"]
    difference = abs(sum_of_cells(matrices, GENERAL) - operator.at_k(GENERAL)).max()
    return f"{line} {added:9.3f} {added / taken['complex128']:5.1f}x" + ("" if difference < 1e-10 else " DIFFERENT")


def repeatedly(operator: SparseOperator, k: np.ndarray, *, single: bool = False) -> Callable[[], sparse.csr_array]:
    kept = operator.at_k(k, single=single)
    return lambda: operator.at_k(k, single=single, out=kept)


def bytes_moved(operator: SparseOperator, result: sparse.csr_array) -> int:
    blocks = [
        (part.end - part.begin) * part.rows * part.columns * (part.kind != Kind.MIRRORED) for part in operator.parts
    ]
    read = sum(int(part.sum()) for part in blocks)
    return read * operator.entries.itemsize + result.data.nbytes


def of_cells(matrix: BlockMatrix) -> list[tuple[np.ndarray, sparse.csr_array]]:
    """Each R with its A(R) as a CSR matrix."""
    first = np.cumsum(matrix.sizes) - matrix.sizes
    size = int(matrix.sizes.sum())
    cells, cell = np.unique(matrix.pairs[:, :3], axis=0, return_inverse=True)
    found = []
    for number, shift in enumerate(cells):
        places: list[tuple[np.ndarray, ...]] = []
        for (rows, columns), members, entries in matrix.stacks():
            of_cell = cell.ravel()[members] == number
            i, j = matrix.pairs[members[of_cell], 3:].T
            row = np.broadcast_to(first[i, None, None] + np.arange(rows)[:, None], (len(i), rows, columns))
            column = np.broadcast_to(first[j, None, None] + np.arange(columns), (len(i), rows, columns))
            places.append((row.ravel(), column.ravel(), matrix.entries[entries[of_cell]].ravel()))
        row, column, values = (np.concatenate(part) for part in zip(*places, strict=True))
        found.append((shift, sparse.coo_array((values, (row, column)), shape=(size, size)).tocsr()))
    return found


def sum_of_cells(matrices: list[tuple[np.ndarray, sparse.csr_array]], k: np.ndarray) -> sparse.csr_array:
    total = sparse.csr_array(matrices[0][1].shape, dtype=complex)
    for shift, matrix in matrices:
        total = total + np.exp(2j * np.pi * (k @ shift)) * matrix
    return total


if __name__ == "__main__":
    main()
