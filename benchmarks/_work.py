"""What DeepH-E3's forward pass needs at least: floating-point operations and bytes, counted from the irreps.

Operations are those of the matrix products of the edge-frame form, as `docs/theory.md` has it, two for each
multiplication; activations, norms and the loss are left out. Of a bond's tensor product, a pair of irreps (l1, l3)
costs channels x channels for each of its 2 min(l1, l3) + 1 components m, without m = 0 where natural meets pseudo; an
on-site edge has the paths with l2 = 0 alone. Features of atoms turn by one dense (2l+1) x (2l+1) matrix an irrep.

Bytes are the memory traffic if each update were one fused operation: read the edge's features, those of its atoms, the
turns and the radial functions; write the result.

A training step takes three times as much: each product has two in the backward pass.
"""

from dataclasses import dataclass
from itertools import product

from _e3nn_layers import HIDDEN, RADIAL_FUNCTIONS
from _e3nn_network import E3nnNetwork, NodeUpdate, Update
from e3nn import o3

STEP = 3  # forward passes' worth of work


@dataclass(frozen=True)
class Work:
    """Floating-point operations, and numbers moved."""

    operations: int = 0
    numbers: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.operations + other.operations, self.numbers + other.numbers)


def forward_work(network: E3nnNetwork, atoms: int, edges: int) -> Work:
    """The work of one forward pass over a graph; `edges` include the on-site ones."""
    updates = [*network.node_update_blocks, *network.edge_update_blocks]
    head = 2 * edges * linear(network.lin_edge.irreps_in, network.lin_edge.irreps_out)
    return sum((update_work(update, atoms, edges) for update in updates), start=Work(head, 0))


def update_work(update: Update, atoms: int, edges: int) -> Work:
    """The work of one update."""
    of_atoms = isinstance(update, NodeUpdate)
    tensor_product, own, out = update.conv.tp.tp, update.lin_pre.irreps_in, update.irreps_out
    source, target = tensor_product.irreps_in1, tensor_product.irreps_out
    ends = source[: len(own) * 2] if of_atoms else source[: -len(own)]
    products = (edges - atoms) * bond_product(source, target, tensor_product.irreps_in2.lmax) + atoms * linear(
        source, target
    )
    turns = edges * (turn(ends) + of_atoms * turn(out))
    perceptron = edges * (RADIAL_FUNCTIONS * HIDDEN + HIDDEN * HIDDEN + HIDDEN * out.num_irreps)
    maps = linear(own, own) + linear(out, out) + linear(own, out) * (1 if own == out else 2)
    rows = atoms if of_atoms else edges
    matrices = sum(irrep.dim**2 for irrep in {irrep for _, irrep in ends})
    numbers = edges * (source.dim + matrices + RADIAL_FUNCTIONS) + rows * out.dim
    return Work(2 * (products + turns + perceptron + rows * maps), numbers)


def bond_product(source: o3.Irreps, target: o3.Irreps, degree: int) -> int:
    """Multiplications of the tensor product of one bond with Y up to this degree."""
    total = 0
    for (rows, first), (columns, last) in product(source, target):
        same = natural(first) == natural(last)
        if abs(first.l - last.l) + (not same) <= degree:
            total += rows * columns * (2 * min(first.l, last.l) + same)
    return total


def linear(source: o3.Irreps, target: o3.Irreps) -> int:
    """Multiplications of a map between the channels of equal irreps, for one row."""
    pairs = product(source, target)
    return sum(rows * columns * first.dim for (rows, first), (columns, last) in pairs if first == last)


def turn(irreps: o3.Irreps) -> int:
    """Multiplications of a rotation of one row."""
    return sum(count * irrep.dim**2 for count, irrep in irreps)


def natural(irrep: o3.Irrep) -> bool:
    return irrep.p == (-1) ** irrep.l
