"""How fast a Hamiltonian becomes a graph with local frames and H in local coordinates, on one core.

    OMP_NUM_THREADS=1 python benchmarks/build_graphs.py [RUN ...]

Without arguments: the largest run of the demo, and graphene and MoS2 with larger bases from the test fixtures, as
supercells. Reading is not counted. The baseline does the same edge by edge, as DeepH-E3's program builds its graphs:
every block found by its textual key, frame and rotation computed one at a time.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _fixtures import read_fixture

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.frames import edge_frames
from deeph_tracegrad.local_blocks import to_local
from deeph_tracegrad.material import Material
from deeph_tracegrad.preprocess.runs import read_material
from deeph_tracegrad.samples import build_sample
from deeph_tracegrad.testing import repeated

ROOT = Path(__file__).parents[1]
SUPERCELLS = {"graphene": (6, 6, 1), "mos2": (4, 4, 1)}
SECONDS = 3.0


def main() -> None:
    materials = {path: read_material(Path(path)) for path in sys.argv[1:]} or default_materials()
    print(f"{'run':<12} {'edges':>6} {'orbitals':>9} {'edges/s':>9} {'one by one':>11} {'ratio':>7}")
    for name, material in materials.items():
        edges = len(material.hamiltonian[0])
        blocks = keyed(material.hamiltonian[0])
        ours = edges / best_time(lambda m=material: build_sample(m, "sample"))
        baseline = edges / best_time(lambda m=material, b=blocks: one_by_one(m, b))
        orbitals = max(basis.num_orbitals for basis in material.basis.bases) * material.spin.components
        print(f"{Path(name).name:<12} {edges:6} {orbitals:9} {ours:9.0f} {baseline:11.0f} {ours / baseline:6.1f}x")


def default_materials() -> dict[str, Material]:
    materials = {"d_00": read_material(ROOT / "demo" / "runs" / "d_00")}
    for case, times in SUPERCELLS.items():
        materials[case] = repeated(read_fixture(case), times)
    return materials


def keyed(matrix: BlockMatrix) -> dict[str, np.ndarray]:
    return {json.dumps(pair.tolist()): matrix.block(number) for number, pair in enumerate(matrix.pairs)}


def one_by_one(material: Material, blocks: dict[str, np.ndarray]) -> list[np.ndarray]:
    species = material.basis.species(material.elements)
    sizes = material.hamiltonian[0].sizes
    positions, cell = material.structure.cart_coords, material.structure.lattice.matrix
    local = []
    for key, block in blocks.items():
        pair = np.array([json.loads(key)])
        *shift, i, j = pair[0]
        frames = edge_frames((positions[j] - positions[i] + shift @ cell)[None])
        single = BlockMatrix.of(pair, block.ravel(), sizes)
        local.append(to_local(single, pair, frames, material.basis, species, material.spin).entries)
    return local


def best_time(work: Callable[[], object]) -> float:
    """Seconds of processor time, the best of as many runs as fit; at least one."""
    times = []
    while not times or sum(times) < SECONDS:
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    main()
