"""Whether a model keeps to the symmetries of H, and whether it is continuous where atom pairs leave the graph.

Shape letters: E pairs.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.blocks import BlockMatrix, find_pairs, on_site
from deeph_tracegrad.edges import Reach, edge_pairs, longest_edges, pairs_within
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.graph import build_graph
from deeph_tracegrad.material import Material
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.testing.changes import (
    in_lattice_vectors,
    random_rotation,
    repeated,
    transformed,
    with_atoms_in_order,
    with_atoms_in_other_cells,
)
from deeph_tracegrad.testing.report import ROUNDING, Report, Result, hermiticity, largest_difference

Model = Callable[[Material], Material]
"""From a structure with its overlap, without Hamiltonian, to the same with a Hamiltonian."""

Change = Callable[[Material], Material]
"""A material turned or told in other words, as in `changes.py`."""

# Relative distances of the three crystals on either side of a cutoff: above the tolerance with which edges are found,
# and so short that what the extrapolation misses of functions as sharp as the radial Gaussians is rounding.
_STEPS = 2e-6 * np.array([1.0, 2.0, 3.0])


def network_model(network: HamiltonianNetwork, reach: Reach | None = None) -> Model:
    """A network as a model.

    reach: atom pairs within it are edges too; by default only those of the overlap are.
    """

    def predicted(material: Material) -> Material:
        if material.overlap is None:
            raise MismatchError("the material holds no overlap, whose atom pairs the network needs")
        unlabelled = material.with_hamiltonian(())
        graph = build_graph(unlabelled, edge_pairs(unlabelled, reach), network.layout.basis)
        graph = graph.to(next(network.parameters()).device)
        with torch.inference_mode():
            hamiltonian = network.layout.blocks(network(graph).coefficients, graph)
        return replace(material, spin=network.layout.spin, hamiltonian=hamiltonian)

    return predicted


def check_model(model: Model, material: Material, cutoff: Reach | float | None = None) -> Report:
    """Every check of a model on one material; any Hamiltonian that it has is left out.

    Atoms at generic places make the sharpest check: where symmetry makes features vanish, mistakes vanish too.

    cutoff: see `cutoff_jump`, which is left out without it.

    Raises:
        MismatchError: the model gives no Hamiltonian; and as `cutoff_jump` does.
    """
    unlabelled = material.with_hamiltonian(())
    model = cache(model)  # the material itself is predicted once
    predicted = _predicted(model, unlabelled)
    largest = float(np.max([np.abs(matrix.entries).max(initial=0.0) for matrix in predicted.hamiltonian]))
    report = Report({"largest |H|": Result(largest, "eV", "the scale of the rounding below")})
    for name, change in _changes(len(material.structure)).items():
        report[name] = Result(equivariance(model, unlabelled, change), "eV", ROUNDING)
    report["hermiticity"] = Result(hermiticity(predicted.hamiltonian), "eV", ROUNDING)
    if cutoff is not None:
        jump = cutoff_jump(model, unlabelled, cutoff)
        report["jump at the cutoff"] = Result(jump, "eV", f"{ROUNDING} with a smooth cutoff")
    return report


def equivariance(model: Model, material: Material, change: Change) -> float:
    """How far predicting and changing do not commute: the largest |H(changed material) - changed H(material)|, eV.

    change: such as `partial(transformed, operation=rotation)` or `partial(repeated, times=(2, 1, 1))`.
    """
    expected = change(_predicted(model, material))
    return largest_difference(_predicted(model, change(material)).hamiltonian, expected.hamiltonian)


def cutoff_jump(model: Model, material: Material, cutoff: Reach | float) -> float:
    """The largest jump of H, eV, in the pairs that remain where the longest ones leave the graph.

    The crystal is scaled until the pairs that are longest in relation to their cutoff stand at it. Just inside they are
    pairs of the overlap, with S = 0; just outside they are not. H is extrapolated to the cutoff from three crystals on
    each side, and the two limits are compared. A network has none but rounding if a pair's messages go to zero towards
    the cutoff and no mean is taken over all edges of a graph; how smoothly they do is not asked.

    cutoff: the length at which pairs leave, Å; one for all, or one for each two elements that have pairs.

    Raises:
        MismatchError: the material holds no overlap, `cutoff` lacks two elements, or the model keeps its pairs there.
    """
    crystal, inside, outside = _at_cutoff(material, cutoff)
    after = _limit(model, replace(crystal, overlap=outside), 1)
    leaving = find_pairs(outside.pairs, inside.pairs) < 0
    if (find_pairs(after[0].pairs, inside.pairs[leaving]) >= 0).any():
        raise MismatchError("the model has blocks of H for pairs beyond the cutoff; name the one at which pairs leave")
    before = _limit(model, replace(crystal, overlap=inside), -1)
    return largest_difference([b.on_pairs(a.pairs) for b, a in zip(before, after, strict=True)], after)


def _at_cutoff(material: Material, cutoff: Reach | float) -> tuple[Material, BlockMatrix, BlockMatrix]:
    """The crystal with its longest pairs at the cutoff, and S with those pairs, zero there, and without them."""
    if material.overlap is None:
        raise MismatchError("the material holds no overlap, whose atom pairs would leave the graph")
    elements, pairs = material.elements, material.overlap.pairs
    longest = longest_edges(elements, pairs, material.pair_vectors(pairs))
    limits = cutoff if isinstance(cutoff, Mapping) else dict.fromkeys(longest, cutoff)
    if missing := sorted(set(longest) - set(limits)):
        raise MismatchError(f"no cutoff is given for {', '.join(missing)}")
    crystal = _scaled(material, min((limits[name] / length for name, length in longest.items() if length), default=1.0))
    within = pairs_within(_scaled(crystal, 1 + _STEPS[0]).structure, limits)
    outside = material.overlap.on_pairs(pairs[on_site(pairs) | (find_pairs(within, pairs) >= 0)])
    return crystal, outside.on_pairs(pairs), outside


def _limit(model: Model, crystal: Material, side: int) -> list[BlockMatrix]:
    """H extrapolated to the crystal from three that are larger (side 1) or smaller (side -1)."""
    near, middle, far = (_predicted(model, _scaled(crystal, 1 + side * step)).hamiltonian for step in _STEPS)
    return [
        one.with_entries(3 * one.entries - 3 * two.on_pairs(one.pairs).entries + three.on_pairs(one.pairs).entries)
        for one, two, three in zip(near, middle, far, strict=True)
    ]


def _changes(atoms: int) -> dict[str, Change]:
    """What must not make a difference, by name."""
    rotation = random_rotation(0)
    cells = np.random.default_rng(0).integers(-2, 3, size=(atoms, 3))
    return {
        "rotation": partial(transformed, operation=rotation),
        "inversion": partial(transformed, operation=-np.eye(3)),
        "rotation and inversion": partial(transformed, operation=-rotation),
        "order of the atoms": partial(with_atoms_in_order, order=np.arange(atoms)[::-1]),
        "atoms in other cells": partial(with_atoms_in_other_cells, cells=cells),
        "other lattice vectors": partial(in_lattice_vectors, transform=np.array([[1, 1, 0], [0, 1, 0], [-2, 0, 1]])),
        "supercell": partial(repeated, times=(2, 1, 1)),
    }


def _predicted(model: Model, material: Material) -> Material:
    predicted = model(material.with_hamiltonian(()) if material.hamiltonian else material)
    if not predicted.hamiltonian:
        raise MismatchError("the model gave a material without a Hamiltonian")
    return predicted


def _scaled(material: Material, factor: float) -> Material:
    """All lengths times a factor; the matrices stay."""
    structure = material.structure
    larger = Structure(Lattice(structure.lattice.matrix * factor), material.elements, structure.frac_coords)
    return replace(material, structure=larger)
