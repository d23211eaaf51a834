"""H(R) of twisted bilayer graphene from a structure alone: seconds and memory from 28 to 11,164 atoms.

    OMP_NUM_THREADS=2 python benchmarks/predict_large.py [--atoms N]
    OMP_NUM_THREADS=1 mpirun -n 2 python benchmarks/predict_large.py [--atoms N]

C6.0-s2p2d1 and the default network with random weights. Each row: the overlap, the prediction, writing the DeepH
folder, edges a second of the prediction, and the peak memory of the process (of the main rank under mpirun).
"""

import argparse
import lzma
import resource
import tempfile
import time
from pathlib import Path

import torch
from _fixtures import FIXTURES

from deeph_tracegrad.config import Config
from deeph_tracegrad.console import say
from deeph_tracegrad.deeph_format import PREDICTION, write_deeph
from deeph_tracegrad.edges import radii_reach
from deeph_tracegrad.inference.predict import predict_material
from deeph_tracegrad.integrals.basis_files import read_orbitals
from deeph_tracegrad.integrals.matrices import Orbitals
from deeph_tracegrad.integrals.overlap import overlap_material
from deeph_tracegrad.orbitals import Basis, SpinMode
from deeph_tracegrad.parallel import world
from deeph_tracegrad.structures.moire import Twist, graphene, twisted_bilayer
from deeph_tracegrad.training.checkpoint import Checkpoint
from deeph_tracegrad.training.state import TrainingState

LABEL = "C6.0-s2p2d1"
TWISTS = [(1, 2), (2, 3), (6, 7), (10, 11), (14, 15), (30, 31)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=11164, help="the largest bilayer")
    largest = parser.parse_args().atoms
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "C6.0.pao"
        file.write_bytes(lzma.decompress((FIXTURES / "pao" / "C6.0.pao.xz").read_bytes()))
        orbitals = read_orbitals(Path(folder), {"C": LABEL}, ["C"])
        trained = untrained(orbitals)
        say("   atoms     edges     S s  predict s  write s   edges/s    MiB")
        for m, n in TWISTS:
            row(trained, orbitals, Twist.of(m, n), largest, Path(folder) / "written")


def untrained(orbitals: Orbitals) -> Checkpoint:
    """A checkpoint of the default network before its first step."""
    basis = Basis.of({"C": orbitals["C"].basis})
    torch.manual_seed(0)
    state = TrainingState(Config(), basis, SpinMode.NONE, torch.device("cpu"))
    return Checkpoint(
        config=Config(),
        basis=basis,
        spin=SpinMode.NONE,
        reach=radii_reach(basis),
        fingerprint="none",
        split={},
        versions={},
        metrics={},
        training=state.content(),
    )


def row(trained: Checkpoint, orbitals: Orbitals, twist: Twist, largest: int, folder: Path) -> None:
    structure = twisted_bilayer(graphene(), twist)
    if len(structure) > largest:
        return
    network = trained.network(torch.device("cpu"))
    start = time.perf_counter()
    material = overlap_material(structure, orbitals, world())
    made = time.perf_counter()
    predicted = predict_material(material, trained, network, world())
    done = time.perf_counter()
    if world().is_main:
        write_deeph(predicted, folder, hamiltonian_name=PREDICTION)
        edges = len(predicted.hamiltonian[0])
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        say(
            f"{len(structure):8} {edges:9} {made - start:7.2f} {done - made:10.2f} {time.perf_counter() - done:8.2f} "
            f"{edges / (done - made):9.0f} {memory:6}"
        )
    world().barrier()


if __name__ == "__main__":
    main()
