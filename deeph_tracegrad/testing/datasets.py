"""Whether samples hold what they should: frames along the bonds, Hermitian blocks, and the H that was read.

Shape letters: B flat block entries, C spin channels.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.frames import REVERSAL
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.local_blocks import to_global
from deeph_tracegrad.material import Material
from deeph_tracegrad.samples import Sample
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.testing.report import ROUNDING, Report, Result, hermiticity, largest_difference


def check_dataset(dataset: GraphDataset, read_source: Callable[[Path], Material] | None = None) -> Report:
    """Every check of every sample; the largest value of each.

    read_source: reads a run, such as `preprocess.runs.read_material`; with it H is compared with that of the runs.

    Raises:
        ReadError: a shard is damaged, or a run cannot be read.
    """
    layout = TargetLayout(dataset.basis, dataset.spin)
    largest = Report()
    for place, entry in enumerate(dataset.entries):
        source = None if read_source is None else read_source(Path(entry.source))
        for name, result in check_sample(dataset.sample(place), layout, source).items():
            before = largest.get(name, result)
            largest[name] = result._replace(value=float(np.maximum(before.value, result.value)))  # keeps nan
    return largest


def check_sample(sample: Sample, layout: TargetLayout, source: Material | None = None) -> Report:
    """Every check of one sample; those of H only if it is labelled.

    layout: of the dataset's basis and spin mode. source: what the sample was made of.
    """
    report = Report(_frames(sample))
    if sample.blocks is None:
        return report
    stored = _hamiltonian(sample, sample.blocks, layout)
    report["H Hermitian"] = Result(hermiticity(stored), "eV", ROUNDING)
    graph = HamiltonianGraph.from_sample(sample, layout.basis, layout)
    report["H from its irreps"] = Result(largest_difference(layout.blocks(graph.target, graph), stored), "eV", ROUNDING)
    if source is not None:
        report["H of the source"] = Result(largest_difference(stored, source.hamiltonian), "eV", ROUNDING)
    return report


def _frames(sample: Sample) -> dict[str, Result]:
    """Checks of the edges and their frames."""
    frames, vectors, reverse = sample.frames, sample.vectors, sample.reverse
    length = np.linalg.norm(vectors, axis=1)
    bond = length > 0
    along = np.einsum("exy,ey->ex", frames[bond], vectors[bond] / length[bond, None])
    paired = bond & (reverse >= 0)
    turned = REVERSAL[:, None] * frames[paired]
    departures = {
        "frames orthogonal": frames @ frames.transpose(0, 2, 1) - np.eye(3),
        "frames right-handed": np.linalg.det(frames) - 1.0,
        "third axis along the bond": along - [0.0, 0.0, 1.0],
        "frames on site are global": frames[~bond] - np.eye(3),
        "frames of reverse edges": frames[reverse[paired]] - turned,
    }
    results = {name: Result(float(np.abs(off).max(initial=0.0)), "", ROUNDING) for name, off in departures.items()}
    return {"edges without reverse": Result(float((reverse < 0).sum()), "", "0"), **results}


def _hamiltonian(sample: Sample, blocks: np.ndarray, layout: TargetLayout) -> list[BlockMatrix]:
    """H's channels in global coordinates; blocks: (C, B) eV, in local ones."""
    species = layout.basis.species(sample.elements)
    sizes = layout.basis.num_orbitals(sample.elements) * layout.spin.components
    return [
        to_global(BlockMatrix.of(sample.pairs, entries, sizes), sample.frames, layout.basis, species, layout.spin)
        for entries in blocks
    ]
