"""H(R) of a crystal predicted part by part, on one rank or several.

Shape letters: E edges of the crystal, R edges of a part, B flat block entries.
"""

import numpy as np
import torch
from torch import Tensor

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.material import Material
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.nn.parts import coefficients_of_parts
from deeph_tracegrad.parallel import World
from deeph_tracegrad.partition import Partition
from deeph_tracegrad.samples import block_dtype

PART_EDGES = 20_000
"""Edges of a part: what the network needs beside the features that stay takes some hundred MB."""


def hamiltonian_in_parts(
    network: HamiltonianNetwork, material: Material, pairs: np.ndarray, ranks: World
) -> tuple[BlockMatrix, ...]:
    """H's channels on these pairs, (E, 5), eV; on the main rank, and none on the others.

    Raises:
        MismatchError: an atom has no on-site pair, or a pair no partner.
    """
    layout, device = network.layout, next(network.parameters()).device
    basis, spin = layout.basis, layout.spin
    partition = Partition(material, pairs, basis, min(PART_EDGES, -(-len(pairs) // ranks.size)))
    parts = [partition[place].to(device) for place in ranks.share(range(len(partition)))]

    def total(values: Tensor) -> Tensor:
        return values if ranks.size == 1 else torch.from_numpy(ranks.summed(values.numpy(force=True))).to(values)

    predicted = coefficients_of_parts(network, partition.species.to(device), parts, len(pairs), total)

    def blocks(_: int) -> tuple[np.ndarray, tuple[BlockMatrix, ...]]:
        part, coefficients = next(predicted)
        return part.rows, layout.blocks(coefficients, part.graph)

    sizes = basis.num_orbitals(material.elements) * spin.components
    length = int((sizes[pairs[:, 3]] * sizes[pairs[:, 4]]).sum())
    channels = range(spin.channels if ranks.is_main else 0)
    whole = [BlockMatrix.of(pairs, np.empty(length, block_dtype(spin)), sizes) for _ in channels]
    for rows, matrices in ranks.streamed(blocks, range(len(partition))):
        for target, source in zip(whole, matrices, strict=True):
            lengths = np.diff(source.offsets)
            places = np.repeat(target.offsets[rows] - source.offsets[:-1], lengths) + np.arange(len(source.entries))
            target.entries[places] = source.entries
    return tuple(whole)
