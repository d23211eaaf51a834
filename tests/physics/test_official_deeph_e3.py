"""The network with the weights of the official DeepH-E3 program predicts what that program predicted.

The fixture has the weights of a small model (graphene, trunk of natural parity, trained and then perturbed by the
official program, commit f011d5f under e3nn 0.3.5) and its prediction for a distorted cell. e3nn 0.3.5 gives some
Wigner-3j the opposite sign and keeps its tables in single precision, which bounds the agreement.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from e3nn import o3

from deeph_tracegrad.config import ModelSettings
from deeph_tracegrad.frames import edge_frames
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.material import pair_vectors
from deeph_tracegrad.nn.layout import Irrep, Layout
from deeph_tracegrad.nn.linear import SCALAR, IrrepLinear
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.nn.tensor_product import _degrees
from deeph_tracegrad.orbitals import Basis, ElementBasis, OrbitalConvention, SpinMode
from deeph_tracegrad.samples import Sample

EMBEDDING, TRUNK, OUTPUT = "8x0e", "8x0e+4x1o+4x2e+2x3o+2x4e", "9x0e+12x1o+5x1e+4x2o+9x2e+4x3o+1x3e+1x4e"
DEGREE = 4
SHELLS = (0, 0, 1, 1, 2)
FLIPPED = {(1, 2, 2), (1, 3, 3), (1, 4, 4), (3, 4, 6), (4, 4, 5)}  # of the triples that occur here


@pytest.fixture(scope="module")
def official():
    path = Path(__file__).parents[1] / "data" / "deeph_e3" / "graphene_e3nn035.npz"
    with np.load(path) as content:
        return {name: torch.from_numpy(content[name]) for name in content}


def groups(irreps: str) -> list[tuple[Irrep, int]]:
    return [(Irrep.of(irrep.l, irrep.p), count) for count, irrep in o3.Irreps(irreps)]


def sign(*degrees: int) -> float:
    return -1.0 if tuple(sorted(degrees)) in FLIPPED else 1.0


def channel_order(irreps: list[tuple[Irrep, int]]) -> torch.Tensor:
    """Where each of our channels, which are sorted by degree, stands among theirs."""
    starts, start = {}, 0
    for irrep, count in irreps:
        starts[irrep] = start
        start += count
    ours = Layout(irreps).groups
    return torch.cat([torch.arange(count) + starts[irrep] for irrep, count in ours.items()])


def take_linear(module: IrrepLinear, official, name: str, source: str, target: str) -> None:
    weight, start, parts = official[f"{name}.weight"], 0, {}
    for irrep, rows in groups(source):
        for other, columns in groups(target):
            if irrep == other:
                parts[irrep] = weight[start : start + rows * columns]
                start += rows * columns
    module.weight.data[0] = torch.cat([parts[irrep] for irrep in module._shapes])
    if module.bias is not None:
        module.bias.data[:] = official[f"{name}.bias"]


def take_convolution(module, official, name: str, sources: list[str], target: str) -> None:
    gated = [(irrep, count) for irrep, count in groups(target) if irrep.degree > 0]
    scalars = dict(groups(target))[SCALAR]
    outputs = [(SCALAR, scalars + sum(count for _, count in gated)), *gated]
    gates = torch.cat([torch.arange(scalars), channel_order(gated) + scalars])
    paths, number = {}, 0
    for slot, source in enumerate(sources):
        for first, _ in groups(source):
            for l2 in range(DEGREE + 1):
                for last, _ in outputs:
                    if l2 not in _degrees(first, last, DEGREE):
                        continue
                    weight = official[f"{name}.tp.weights1.{number}"] * sign(first.degree, l2, last.degree)
                    scale = official[f"{name}.tp.weights2.{number}"]
                    columns = gates if last.degree == 0 else slice(None)
                    paths[slot, first, last, l2] = weight[:, columns], scale[:, columns]
                    number += 1
    for slots, product_groups in zip(((0, 1), (2,)), module.product.groups, strict=True):
        for group in product_groups:
            taken = [
                paths[slot, group.source, group.target, l2]
                for l2 in _degrees(group.source, group.target, DEGREE)
                for slot in slots
            ]
            module.product.weight.data[group.weights] = torch.cat([weight.flatten() for weight, _ in taken])
            module.product.scale.data[group.scales] = torch.cat([scale.flatten() for _, scale in taken])
    for layer in (0, 2, 4):
        rows = channel_order(groups(target)) if layer == 4 else slice(None)
        module.weights.layers[layer].weight.data[:] = official[f"{name}.fc.{layer}.weight"][rows]
        module.weights.layers[layer].bias.data[:] = official[f"{name}.fc.{layer}.bias"][rows]


def take_update(module, official, name: str, own: str, sources: list[str], target: str) -> None:
    take_linear(module.before, official, f"{name}.lin_pre", own, own)
    take_convolution(module.convolution, official, f"{name}.conv", sources, target)
    take_linear(module.after, official, f"{name}.lin_post", target, target)
    take_linear(module.self_connection, official, f"{name}.sc", own, target)
    if isinstance(module.skip, IrrepLinear):
        take_linear(module.skip, official, f"{name}.skip_connect.sc", own, target)
    module.norm.weight.data[:] = official[f"{name}.norm.weight"][channel_order(groups(target))]
    module.norm.bias.data[:] = official[f"{name}.norm.bias"]


def take_head(network: HamiltonianNetwork, official) -> None:
    """Their outputs are listed shell pair by shell pair; ours are sorted by the degrees of the shells."""
    counts = [SHELLS[:place].count(degree) for place, degree in enumerate(SHELLS)]
    theirs = [
        (l1, counts[i], l2, counts[j], degree)
        for i, l1 in enumerate(SHELLS)
        for j, l2 in enumerate(SHELLS)
        for degree in range(abs(l1 - l2), l1 + l2 + 1)
    ]
    irreps = {output: Irrep.of(output[4], (-1) ** (output[0] + output[2])) for output in theirs}
    ours = [(*target[:4], irrep.degree) for _, target, irrep, _, _ in network.layout._walk()]
    columns, start = {}, 0
    for irrep, rows in groups(OUTPUT):
        for output in theirs:
            if irreps[output] == irrep:
                weight = official["lin_edge.weight"][start : start + rows]
                columns[output] = weight * sign(output[0], output[2], output[4])
                start += rows
    network.head.weight.data[0] = torch.cat(
        [
            torch.stack([columns[output] for output in ours if irreps[output] == irrep], dim=1).flatten()
            for irrep in network.head._shapes
        ]
    )
    biases = dict(
        zip([output for output in theirs if irreps[output] == SCALAR], official["lin_edge.bias"], strict=True)
    )
    network.head.bias.data[:] = torch.stack([biases[output] for output in ours if output in biases])


def test_prediction_is_the_official_programs(official):
    basis = Basis.of({"C": ElementBasis(SHELLS)})
    settings = ModelSettings(
        trunk=TRUNK, node_channels=8, edge_channels=8, hermitian=False, tracegrad={"enabled": False}
    )
    network = HamiltonianNetwork(settings, basis, SpinMode.NONE).double()
    network.species.data[:] = official["embedding.weight"]
    node = edge = EMBEDDING
    for block, (node_update, edge_update) in enumerate(zip(network.node_updates, network.edge_updates, strict=True)):
        take_update(node_update, official, f"node_update_blocks.{block}", node, [node, node, edge], TRUNK)
        node, target = TRUNK, OUTPUT if block == 2 else TRUNK
        take_update(edge_update, official, f"edge_update_blocks.{block}", edge, [node, node, edge], target)
        edge = target
    take_head(network, official)

    pairs = official["prediction/pairs"].numpy()
    on_site = (pairs[:, 3] == pairs[:, 4]) & (pairs[:, :3] == 0).all(axis=1)
    order = np.lexsort((pairs[:, 3], ~on_site))
    cell, positions = official["structure/cell"].numpy(), official["structure/positions"].numpy()
    vectors = pair_vectors(positions, cell, pairs[order])
    sample = Sample("graphene", np.full(2, 6), positions, cell, pairs[order], vectors, edge_frames(vectors))
    graph = HamiltonianGraph.from_sample(sample, basis)
    with torch.no_grad():
        (matrix,) = network.layout.blocks(network(graph).coefficients, graph)
    openmx = basis["C"].order(OrbitalConvention.DEEPH, OrbitalConvention.OPENMX)
    ours = matrix.reordered([openmx], np.zeros(2, dtype=int)).entries.reshape(-1, 13, 13)
    theirs = official["prediction/blocks"].numpy()[order]
    assert np.abs(ours - theirs).max() < 5e-8 * np.abs(theirs).max()
