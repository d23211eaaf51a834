"""From the e3nn network's coefficients to H in global coordinates, target by target as the official program does.

Shape letters: E edges, D coefficients, P elements of H.
"""

from collections.abc import Sequence

import torch
from e3nn import o3
from torch import Tensor, nn

# 1, σ_y, σ_z, σ_x over √2 as columns; rows uu, ud, du, dd
PAULI = torch.tensor([[1, 0, 1, 0], [0, -1j, 0, 1], [0, 1j, 0, 1], [1, 0, -1, 0]], dtype=torch.complex128) / 2**0.5


class WignerEckart(nn.Module):
    """From coefficients to the elements of H, in global coordinates.

    shapes: (l1, l2) of every target. irreps: those of the coefficients, target by target; with spinors first all real
    parts, then all imaginary ones.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], *, spinor: bool) -> None:
        super().__init__()
        self.spinor = spinor
        irreps: list[tuple[int, tuple[int, int]]] = []
        self._sizes = []
        for number, (l1, l2) in enumerate(shapes):
            orbital = list(range(abs(l1 - l2), l1 + l2 + 1))
            degrees = orbital + [low for degree in orbital for low in range(abs(degree - 1), degree + 2) if spinor]
            irreps += [(1, (degree, (-1) ** (l1 + l2))) for degree in degrees]
            self._sizes.append(sum(2 * degree + 1 for degree in degrees))
            # complex numbers as pairs: a module's change of precision would make complex buffers real
            table = torch.view_as_real(_spinor_table(l1, l2)) if spinor else _table(l1, l2)
            self.register_buffer(f"table{number}", table)
        self.irreps = o3.Irreps(irreps * (2 if spinor else 1))

    def forward(self, coefficients: Tensor) -> Tensor:
        """(E, D) -> (E, P): target by target, with spinors uu, ud, du, dd, each row-major (2 l1 + 1, 2 l2 + 1)."""
        if self.spinor:
            coefficients = torch.complex(*coefficients.chunk(2, dim=1))
        blocks = []
        for number, part in enumerate(coefficients.split(self._sizes, dim=1)):
            table = self.get_buffer(f"table{number}")
            table = torch.view_as_complex(table) if self.spinor else table
            blocks.append(torch.einsum("...abk,ek->e...ab", table, part).flatten(1))
        return torch.cat(blocks, dim=1)


def _table(l1: int, l2: int) -> Tensor:
    """(2 l1 + 1, 2 l2 + 1, coefficients)."""
    degrees = range(abs(l1 - l2), l1 + l2 + 1)
    return torch.cat([o3.wigner_3j(l1, l2, degree, dtype=torch.float64) for degree in degrees], dim=2)


def _spinor_table(l1: int, l2: int) -> Tensor:
    """(4, 2 l1 + 1, 2 l2 + 1, coefficients): the scalar parts of all L, then the vector parts of all L."""
    scalars, vectors = [], []
    for degree in range(abs(l1 - l2), l1 + l2 + 1):
        orbital = o3.wigner_3j(l1, l2, degree, dtype=torch.complex128)
        scalars.append(torch.einsum("abM,s->sabM", orbital, PAULI[:, 0]))
        for total in range(abs(degree - 1), degree + 2):
            spin = o3.wigner_3j(degree, 1, total, dtype=torch.complex128)
            vectors.append(torch.einsum("abM,MnN,sn->sabN", orbital, spin, PAULI[:, 1:]))
    return torch.cat(scalars + vectors, dim=3)
