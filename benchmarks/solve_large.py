"""20 states near the Fermi level at one k of twisted bilayer graphene: our solvers beside SciPy's eigsh on SuperLU.

    OMP_NUM_THREADS=2 python benchmarks/solve_large.py [--atoms N] [--peer-atoms N] [--gamma] [--plot FILE]

C6.0-s2p2d1, from 508 atoms up. Each solver runs in a process of its own; its peak memory counts H(k), S(k) and all else
that the process holds. The second figure is processor time, which other jobs on the machine change less; the ratio is
of wall times. `assemble` is both Bloch sums. The peer is `eigsh(H, 20, S, sigma=E)` with SciPy's defaults,
which factorises by SuperLU with COLAMD. Γ has real matrices. States and their numbers are compared. --plot draws
time and memory over the size.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from _bilayer import TWISTS, twisted_graphene
from matplotlib.ticker import LogLocator, NullFormatter
from scipy import sparse
from scipy.sparse.linalg import eigsh

from deeph_tracegrad.inference.bloch import bloch_operators
from deeph_tracegrad.inference.solvers import Selection, ShiftInvertSolver
from deeph_tracegrad.inference.solvers.pardiso import library

GENERAL, GAMMA = (0.13, 0.27, 0.0), (0.0, 0.0, 0.0)
STATES = 20
LEVEL = -3.9  # eV, near the Dirac points
SAME = 1e-6  # eV
TITLES = {
    "pardiso": ("shift-invert, PARDISO", "o-"),
    "superlu": ("shift-invert, SuperLU", "s-"),
    "eigsh": ("SciPy eigsh (SuperLU)", "^--"),
}

Solve = Callable[[sparse.csr_array, sparse.csr_array], tuple[np.ndarray, int | None]]


def main() -> None:
    arguments = parsed_arguments()
    if arguments.side is not None:
        print(json.dumps(solved(arguments.side, *arguments.twist, GAMMA if arguments.gamma else GENERAL)))
        return
    print(f"{'atoms':>6} {'orbitals':>9} {'assemble':>9}", end="")
    print("".join(f"{name:>9} s {'CPU':>7} {'GB':>5}" for name in ("PARDISO", "SuperLU", "eigsh")), f"{'ratio':>6}")
    rows = []
    for m, n in TWISTS:
        atoms = 4 * (m * m + m * n + n * n)
        if 508 <= atoms <= arguments.atoms:
            rows.append(solutions(m, n, peer=atoms <= arguments.peer_atoms, gamma=arguments.gamma))
            print(line(rows[-1]), flush=True)
    if arguments.plot is not None:
        plot(rows, arguments.plot)


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=1324, help="the largest bilayer")
    parser.add_argument("--peer-atoms", type=int, default=1324, help="the largest for the solvers on SuperLU")
    parser.add_argument("--gamma", action="store_true", help="at Γ")
    parser.add_argument("--plot", type=Path, help="picture of time and memory over the size")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--twist", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def solutions(m: int, n: int, *, peer: bool, gamma: bool) -> dict[str, dict]:
    """What each solver took, by its name; ours is the first."""
    sides = [*(["pardiso"] if library() is not None else []), *(["superlu", "eigsh"] if peer else [])]
    return {side: run(side, m, n, gamma=gamma) for side in sides}


def line(found: dict[str, dict]) -> str:
    best = next(iter(found.values()))
    text = f"{best['atoms']:6} {best['orbitals']:9} {best['assemble']:9.2f}"
    for side in SIDES:
        figures = [found[side][name] for name in ("solve", "processor", "memory")] if side in found else [np.nan] * 3
        text += " {:10.1f} {:7.1f} {:5.2f}".format(*figures)
    if "eigsh" in found:
        text += f" {found['eigsh']['solve'] / best['solve']:5.1f}x"
    apart = max(np.abs(np.subtract(other["energies"], best["energies"])).max() for other in found.values())
    numbers = {other["first"] for other in found.values()} - {None}
    text += "" if apart < SAME else f"  states differ by {apart:.1e} eV"
    return text + ("" if len(numbers) < 2 else f"  numbers of the lowest state differ: {sorted(numbers)}")


def plot(rows: list[dict[str, dict]], path: Path) -> None:
    """Time and memory of each solver over the number of orbitals, both axes logarithmic."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for panel, name, label in zip(panels, ("solve", "memory"), ("seconds", "GB at the peak"), strict=True):
        for side, (title, marker) in TITLES.items():
            known = [row[side] for row in rows if side in row]
            panel.loglog([one["orbitals"] for one in known], [one[name] for one in known], marker, label=title)
        sizes = [next(iter(row.values()))["orbitals"] for row in rows]
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_minor_formatter(NullFormatter())
        panel.yaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("orbitals")
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def run(side: str, m: int, n: int, *, gamma: bool) -> dict:
    command = [sys.executable, __file__, "--side", side, "--twist", str(m), str(n), *(["--gamma"] if gamma else [])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def solved(side: str, m: int, n: int, k: tuple[float, ...]) -> dict:
    """What one solver took. memory: GB at its peak; first: number of the lowest state; the others in seconds and eV."""
    material = twisted_graphene(m, n)
    operators = bloch_operators(material)
    start = time.perf_counter()
    hamiltonian, overlap = operators.hamiltonian[0].at_k(np.array(k)), operators.overlap.at_k(np.array(k))
    assembled, processor = time.perf_counter(), time.process_time()
    energies, first = SIDES[side](hamiltonian, overlap)
    done = time.perf_counter()
    return {
        "atoms": len(material.structure),
        "orbitals": operators.num_orbitals,
        "assemble": assembled - start,
        "solve": done - assembled,
        "processor": time.process_time() - processor,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "energies": np.sort(energies).tolist(),
        "first": first,
    }


def ours(direct: str) -> Solve:
    solver = ShiftInvertSolver(Selection(num_bands=STATES, centre=LEVEL), direct)

    def solve(hamiltonian: sparse.csr_array, overlap: sparse.csr_array) -> tuple[np.ndarray, int | None]:
        spectrum = solver(hamiltonian, overlap)
        return spectrum.energies, spectrum.first

    return solve


def peer(hamiltonian: sparse.csr_array, overlap: sparse.csr_array) -> tuple[np.ndarray, int | None]:
    return eigsh(hamiltonian.tocsc(), STATES, overlap.tocsc(), sigma=LEVEL, return_eigenvectors=False), None


SIDES = {"pardiso": ours("pardiso"), "superlu": ours("superlu"), "eigsh": peer}


if __name__ == "__main__":
    main()
