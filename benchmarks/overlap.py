"""Overlaps of twisted bilayer graphene from the basis file: seconds and memory from 28 to 11,164 atoms, beside HPRO.

    OMP_NUM_THREADS=2 python benchmarks/overlap.py [--atoms N]

C6.0-s2p2d1. Each row: finding the pairs, calculating S(R), both together a pair of atoms (each counted once), peak
memory of the process, and writing the DeepH folder. HPRO, the peer from PyPI, runs on the same structures up to
2,524 atoms where it is installed; its S and ours are compared there. The last lines compare both with the S that OpenMX
wrote for graphene. The table of integrals is made before the first row and timed apart.
"""

import argparse
import contextlib
import io
import json
import lzma
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from _fixtures import FIXTURES, read_fixture
from pymatgen.core import Structure

from deeph_tracegrad.blocks import find_pairs, union_pairs
from deeph_tracegrad.deeph_format import write_deeph
from deeph_tracegrad.edges import onsite_pairs, pairs_within, radii_reach
from deeph_tracegrad.integrals import operators
from deeph_tracegrad.integrals.basis_files import read_orbitals
from deeph_tracegrad.integrals.matrices import Orbitals, overlap_matrix
from deeph_tracegrad.integrals.overlap import overlap_material
from deeph_tracegrad.integrals.tables import pair_table
from deeph_tracegrad.orbitals import Basis
from deeph_tracegrad.structures.moire import Twist, graphene, twisted_bilayer

LABEL = "C6.0-s2p2d1"
TWISTS = [(1, 2), (2, 3), (6, 7), (10, 11), (14, 15), (30, 31)]
LARGEST_PEER = 2524


def main() -> None:
    arguments = parsed_arguments()
    with tempfile.TemporaryDirectory() as folder:
        basis_dir = Path(folder)
        (basis_dir / "C6.0.pao").write_bytes(lzma.decompress((FIXTURES / "pao" / "C6.0.pao.xz").read_bytes()))
        (basis_dir / "basis_info.json").write_text(json.dumps({"C": LABEL}))  # as HPRO wants it
        start = time.perf_counter()
        orbitals = read_orbitals(basis_dir, {"C": LABEL}, ["C"])
        read = time.perf_counter() - start
        pair_table(orbitals["C"], orbitals["C"], operators.overlap)
        print(
            f"basis file read in {read:.2f} s, table in {time.perf_counter() - start - read:.2f} s (kept on disk after)"
        )
        print(" atoms    pairs  find s     S s  us/pair    MiB  write s   HPRO s  ratio")
        for m, n in TWISTS:
            structure = twisted_bilayer(graphene(), Twist.of(m, n))
            if len(structure) <= arguments.atoms:
                print(row(structure, orbitals, basis_dir), flush=True)
        compare_with_openmx(orbitals, basis_dir)


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=11164, help="the largest bilayer")
    return parser.parse_args()


def row(structure: Structure, orbitals: Orbitals, basis_dir: Path) -> str:
    start = time.perf_counter()
    reach = radii_reach(Basis.of({"C": orbitals["C"].basis}))
    pairs = union_pairs(onsite_pairs(len(structure)), pairs_within(structure, reach))
    found = time.perf_counter()
    matrix = overlap_matrix(structure, orbitals, pairs)
    done = time.perf_counter()
    unique, taken = (len(pairs) + len(structure)) // 2, done - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    line = (
        f"{len(structure):6} {unique:8} {found - start:7.3f} {done - found:7.3f} {1e6 * taken / unique:8.2f} {memory:6}"
    )
    del matrix
    material = overlap_material(structure, orbitals)
    start = time.perf_counter()
    write_deeph(material, basis_dir / "written")
    line += f" {time.perf_counter() - start:8.2f}"
    peer = hpro_overlap(structure, basis_dir) if len(structure) <= LARGEST_PEER else None
    return line if peer is None else f"{line} {peer[0]:8.2f} {peer[0] / taken:5.1f}x"


def compare_with_openmx(orbitals: Orbitals, basis_dir: Path) -> None:
    """Print how far S is from what OpenMX wrote for the two atoms of graphene."""
    material = read_fixture("graphene")
    theirs = material.overlap
    if theirs is None:
        return
    own = overlap_matrix(material.structure, orbitals, theirs.pairs)
    print(f"graphene, largest |S - S of OpenMX|: {np.abs(own.entries - theirs.entries).max():.1e}", end="")
    peer = hpro_overlap(material.structure, basis_dir)
    if peer is not None:
        pairs, entries = peer[1]
        order = find_pairs(pairs, theirs.pairs)
        blocks = theirs.entries.reshape(len(theirs), -1)
        print(f"; HPRO {np.abs(entries[order] - blocks).max():.1e}", end="")
    print()


def hpro_overlap(structure: Structure, basis_dir: Path) -> tuple[float, tuple[np.ndarray, np.ndarray]] | None:
    """Seconds, and HPRO's pairs (E, 5) and flat blocks (E, 169); None where it is not installed."""
    try:
        from HPRO.io.aodata import AOData
        from HPRO.utils.structure import Structure as PeerStructure
        from HPRO.v2h.twocenter import calc_overlap
    except ImportError:
        return None
    bohr = 0.5291772105638411  # HPRO's
    peer = PeerStructure(structure.lattice.matrix / bohr, structure.atomic_numbers, structure.frac_coords)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        found = calc_overlap(AOData(peer, basis_path_root=str(basis_dir), aocode="openmx"), Ecut=100)
    taken = time.perf_counter() - start
    pairs = np.column_stack([found.translations, found.atom_pairs])
    return taken, (pairs, np.array([block.real.reshape(-1) for block in found.mats]))


if __name__ == "__main__":
    main()
