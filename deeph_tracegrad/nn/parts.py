"""A crystal in parts of its bonds, for prediction in bounded memory and on several ranks.

Between two layers a part keeps the features of its edges; those of all atoms are whole everywhere. Each layer sums
the messages of all parts to the atoms, and a graph-wide norm the means of all edges; that is all that parts exchange.

Shape letters: N atoms of the crystal, E edges of the crystal, R edges of a part, F features of a row.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from deeph_tracegrad.nn.arrangement import Arrangement, members
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.nn.norm import GraphNorm, Rows, Total
from deeph_tracegrad.nn.updates import EdgeUpdate, Geometry, NodeUpdate
from deeph_tracegrad.partition import Part


def coefficients_of_parts(
    network: HamiltonianNetwork, species: Tensor, parts: Sequence[Part], edges: int, total: Total
) -> Iterator[tuple[Part, Tensor]]:
    """This rank's parts, each with the irrep coefficients of H on its edges, (R, D) eV.

    species: (N,), of the whole crystal. edges: E. total: what sums over the ranks, which all call this together; it is
    done with before the first part is asked for.
    """
    everyone = Rows.of(torch.zeros_like(species), 1)
    node = network.species.index_select(0, species)
    kinds = members(species, len(network.species))
    features = [network.edge_embedding(_lengths(part, network.dtype)) for part in parts]
    for block in range(network.settings.blocks):
        node_update = cast("NodeUpdate", network.node_updates[block])
        edge_update = cast("EdgeUpdate", network.edge_updates[block])
        before = node_update.before(node)
        messages = before.new_zeros(len(node), node_update.layout.dim)
        for part, edge in zip(parts, features, strict=True):
            of_part = node_update.convolution(before[part.atoms], edge, _geometry(network, part), summed=True)
            messages.index_add_(0, part.atoms, of_part)
        updated = node_update.updated(node, total(messages), kinds)
        node = node_update.norm(updated, node_update.skip(node), everyone)
        features = _edges_updated(network, edge_update, node, features, parts, edges, total)
        if network.settings.tracegrad.gradient and block < len(network.trace_modules):
            features = [network.trace_modules[block](edge)[1] for edge in features]
    return ((part, _coefficients(network, part, edge)) for part, edge in zip(parts, features, strict=True))


def _geometry(network: HamiltonianNetwork, part: Part) -> Geometry:
    """What the network's layers need of a part's edges; found anew for each layer."""
    envelope = network.hamiltonian.envelope(part.graph)
    envelope = None if envelope is None else envelope.to(network.dtype)
    return network.geometry(part.graph, Arrangement.of(part.graph, len(network.species)), envelope)[0]


def _coefficients(network: HamiltonianNetwork, part: Part, edge: Tensor) -> Tensor:
    """From the features of a part's edges after the last layer to H, (R, D) eV."""
    raw = network.order(network.head(edge))
    envelope = network.hamiltonian.envelope(part.graph)
    return network.hamiltonian(raw, part.graph, None if envelope is None else envelope.to(raw))


def _edges_updated(
    network: HamiltonianNetwork,
    update: EdgeUpdate,
    node: Tensor,
    features: list[Tensor],
    parts: Sequence[Part],
    edges: int,
    total: Total,
) -> list[Tensor]:
    """The features of each part's edges after an update; a graph-wide norm goes over all parts three times."""
    norm = update.norm
    if not isinstance(norm, GraphNorm):
        return [
            norm(update.updated(node[part.atoms], edge, _geometry(network, part)), update.skip(edge))
            for part, edge in zip(parts, features, strict=True)
        ]
    updates = []
    sums = node.new_zeros(norm.averages.shape[1], dtype=torch.float64)
    for part, edge in zip(parts, features, strict=True):
        geometry = _geometry(network, part)
        updates.append(update.updated(node[part.atoms], edge, geometry))
        sums += norm.means(updates[-1], geometry.rotations).sum(dim=0, dtype=torch.float64)
    means = (total(sums) / edges).to(node)
    squares = node.new_zeros(norm.num_scalars, dtype=torch.float64)
    for place, part in enumerate(parts):
        rows = means.expand(len(updates[place]), -1)
        updates[place] = norm.centred(updates[place], rows, _geometry(network, part).rotations)
        squares += norm.squares(updates[place]).sum(dim=0, dtype=torch.float64)
    square = (total(squares) / edges).to(node)
    for place, edge in enumerate(features):
        scaled = norm.scaled(updates[place], square.expand(len(edge), -1))
        updates[place] = norm.finished(scaled, update.skip(edge))
        features[place] = edge[:0]  # no longer needed: gives the memory back part by part
    return updates


def _lengths(part: Part, dtype: torch.dtype) -> Tensor:
    return torch.linalg.vector_norm(part.graph.edge_vec, dim=1).to(dtype)
