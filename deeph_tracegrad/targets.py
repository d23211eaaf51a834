"""What the network learns: H blocks as coefficients of irreducible representations (Wigner-Eckart), and their traces.

A target is a pair of shells (l1, k1), (l2, k2), k counting the shells of equal degree; all element pairs that have it
share its outputs, as in DeepH-E3 (Nat. Commun. 14, 2848 (2023)). Its block decomposes into L = |l1-l2|..l1+l2:

    H[m1, m2] = Σ_LM w3j(l1, l2, L)[m1, m2, M] o_L[M],     |H|² = Σ_L |o_L|² / (2L+1).

With spinors each L couples to the scalar and the vector part of H = h0 + h·σ: o_L, and o_L' with L' = |L-1|..L+1, each
complex. Coefficients are in the local frame of their edge. A target's coefficients run over L (with spinors: over L its
scalar part, then its L'), each in the order M = -L..L; with spinors all real parts come first, then all imaginary ones.

Shape letters: E edges, S species, T targets, D coefficients, P padded H block elements (D real or D/2 complex ones),
t targets of one group, C spin channels.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from e3nn import o3
from torch import Tensor

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.frames import REVERSAL, rotation_matrices
from deeph_tracegrad.orbitals import Basis, SpinMode
from deeph_tracegrad.samples import block_dtype

if TYPE_CHECKING:
    from deeph_tracegrad.graph import HamiltonianGraph


class Target(NamedTuple):
    """A pair of shells. channel: up (0) or down (1) in collinear datasets."""

    l1: int
    k1: int
    l2: int
    k2: int
    channel: int = 0

    @property
    def parity(self) -> int:
        """Sign under inversion."""
        return (-1) ** (self.l1 + self.l2)

    @property
    def adjoint(self) -> "Target":
        """The target of H†."""
        return Target(self.l2, self.k2, self.l1, self.k1, self.channel)


class Irrep(NamedTuple):
    """One irrep of a target's block.

    degree: its l. orbital_degree: the L that l1 and l2 couple to. vector: whether a spin vector is coupled on.
    """

    degree: int
    orbital_degree: int
    vector: bool

    @property
    def weight(self) -> float:
        """What a squared coefficient adds to |H|²."""
        return 1.0 / (2 * self.orbital_degree + 1) / (2 * self.degree + 1 if self.vector else 1)


class _Group(NamedTuple):
    """Targets of equal (l1, l2), which stand side by side."""

    targets: slice
    coefficients: slice
    elements: slice
    coupling: Tensor  # (c, p): element = coefficient @ coupling
    weights: Tensor  # (c,)


class TargetLayout(torch.nn.Module):
    """Maps between H blocks, padded elements, irrep coefficients and traces for one basis and spin mode.

    dim: D. num_targets: T. irreps: (l, parity, first coefficient) of every irrep, in order.
    target_sizes: (T,) matrix elements of a target; a complex one counts once.
    target_mask: (S, S, T) bool, the targets that an ordered pair of species has.
    element_target: (P,) int64, the target that an element belongs to.
    trace_weights: (D, T), what a squared coefficient adds to tr(H H†) of its target's block.
    """

    target_sizes: Tensor
    target_mask: Tensor
    element_target: Tensor
    trace_weights: Tensor
    _coefficient_target: Tensor
    _square_weights: Tensor
    _adjoint_index: Tensor
    _adjoint_sign: Tensor

    def __init__(self, basis: Basis, spin: SpinMode) -> None:
        super().__init__()
        self.basis, self.spin = basis, spin
        self._spinor = spin is SpinMode.NONCOLLINEAR
        self._parts = 2 if self._spinor else 1  # real and imaginary
        self.targets = _targets(basis, spin)
        self.num_targets = len(self.targets)
        sizes = np.array([(2 * t.l1 + 1) * (2 * t.l2 + 1) * spin.components**2 for t in self.targets])
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self.dim = int(self._starts[-1]) * self._parts
        self.irreps = [(irrep.degree, target.parity, start) for _, target, irrep, start, _ in self._walk()]
        self._places = self._element_places()
        self.register_buffer("target_sizes", torch.from_numpy(sizes).double(), persistent=False)
        self.register_buffer("target_mask", self._mask(), persistent=False)
        element_target = np.repeat(np.arange(self.num_targets), sizes)
        self.register_buffer("element_target", torch.from_numpy(element_target), persistent=False)
        weights = self._trace_weights()
        self.register_buffer("trace_weights", weights, persistent=False)
        self.register_buffer("_coefficient_target", weights.argmax(dim=1), persistent=False)
        self.register_buffer("_square_weights", weights.sum(dim=1), persistent=False)
        index, sign, turn = self._adjoint()
        self.register_buffer("_adjoint_index", torch.from_numpy(index), persistent=False)
        self.register_buffer("_adjoint_sign", torch.from_numpy(np.stack([sign * turn, sign])), persistent=False)
        self._groups = self._grouped()
        self._tables: dict[tuple[torch.device, torch.dtype], list[_Group]] = {}

    def traces(self, coefficients: Tensor) -> Tensor:
        """tr(H H†) of every target's block, (E, T), eV²; of a difference of H, its squared error."""
        return coefficients.square() @ self.trace_weights.to(coefficients)

    def singular_sums(self, coefficients: Tensor, power: int) -> Tensor:
        """Σ σ^power over the singular values of every target's block, (E, T), eV^power; no frame changes it.

        With spinors, of the block of both spins together.
        """
        if power == 2:
            return self.traces(coefficients)
        elements, spins, sums = self.elements(coefficients), self.spin.components, []
        for group in self._groups:
            target = self.targets[group.targets.start]
            rows, columns = 2 * target.l1 + 1, 2 * target.l2 + 1
            block = elements[:, group.elements].unflatten(1, (-1, spins, spins, rows, columns)).transpose(3, 4)
            values = torch.linalg.svdvals(block.reshape(*block.shape[:2], spins * rows, spins * columns))
            sums.append(values.pow(power).sum(dim=2))
        return torch.cat(sums, dim=1)

    def elements(self, coefficients: Tensor) -> Tensor:
        """(E, D) coefficients -> (E, P) padded elements in the same frames, complex with spinors."""
        parts = []
        for group in self._groups_for(coefficients):
            x = coefficients[:, group.coefficients].unflatten(1, (-1, self._parts, group.coupling.shape[0]))
            x = torch.complex(x[:, :, 0], x[:, :, 1]) if self._spinor else x[:, :, 0]
            parts.append((x @ group.coupling).flatten(1))
        return torch.cat(parts, dim=1)

    def coefficients(self, elements: Tensor) -> Tensor:
        """(E, P) padded elements -> (E, D) coefficients; the inverse of `elements`."""
        parts = []
        for group in self._groups_for(elements.real):
            x = elements[:, group.elements].unflatten(1, (-1, group.coupling.shape[1]))
            x = x @ group.coupling.mH / group.weights[: group.coupling.shape[0]]
            parts.append((torch.stack([x.real, x.imag], dim=2) if self._spinor else x).flatten(1))
        return torch.cat(parts, dim=1)

    def to_global(self, coefficients: Tensor, frames: Tensor) -> Tensor:
        """(E, D) coefficients in the local frames, (E, 3, 3) -> in global coordinates."""
        turned = torch.empty_like(coefficients)
        for degree in {degree for degree, _, _ in self.irreps}:
            starts = torch.tensor([start for d, _, start in self.irreps if d == degree], device=coefficients.device)
            places = starts[:, None] + torch.arange(2 * degree + 1, device=coefficients.device)
            turned[:, places] = coefficients[:, places] @ rotation_matrices(degree, frames).to(coefficients)
        return turned

    def hermitian(self, coefficients: Tensor, reverse_edge: Tensor, on_site: Tensor) -> Tensor:
        """The mean of each block and the adjoint of its partner, in local frames.

        reverse_edge: (E,) the partner of each edge; on_site: (E,) bool.
        """
        sign = self._adjoint_sign.to(coefficients)[on_site.long()]
        return (coefficients + coefficients[reverse_edge][:, self._adjoint_index] * sign) / 2

    def element_errors(self, difference: Tensor, graph: "HamiltonianGraph") -> Tensor:
        """From a difference of coefficients, the elements' absolute errors in global coordinates, (E, P) eV."""
        return self.elements(self.to_global(difference, graph.edge_frame)).abs()

    def edge_mask(self, graph: "HamiltonianGraph") -> Tensor:
        """The targets that each edge has, (E, T) bool."""
        source, destination = graph.species[graph.edge_index]
        return self.target_mask[source, destination]

    def square_weights(self, graph: "HamiltonianGraph") -> Tensor:
        """What each squared coefficient of an edge adds to |H|², in H's precision, zero for targets that it lacks.

        (E, D), or (1, D) where all edges are alike.
        """
        mask = self.target_mask[0] if len(self.basis) == 1 else self.edge_mask(graph)
        return mask.index_select(1, self._coefficient_target) * self._square_weights.to(graph.target.dtype)

    def element_mask(self, graph: "HamiltonianGraph") -> Tensor:
        """The elements that each edge has, (E, P) bool."""
        return self.edge_mask(graph)[:, self.element_target]

    def pack(self, matrices: Sequence[BlockMatrix], species: np.ndarray) -> np.ndarray:
        """H's channels on one list of pairs -> padded elements (E, P), zero where a pair lacks a target."""
        elements = np.zeros((len(matrices[0]), self._starts[-1]), dtype=block_dtype(self.spin))
        for channel, matrix in enumerate(matrices):
            for kinds, members, places in matrix.stacks(species):
                elements[members[:, None], self._places[kinds][channel]] = matrix.entries[places]
        return elements

    def unpack(self, elements: np.ndarray, pairs: np.ndarray, species: np.ndarray) -> tuple[BlockMatrix, ...]:
        """Padded elements (E, P) on these pairs, (E, 5) -> H's channels."""
        sizes = np.array([basis.num_orbitals for basis in self.basis.bases])[species] * self.spin.components
        matrices = []
        for channel in range(self.spin.channels):
            length = int((sizes[pairs[:, 3]] * sizes[pairs[:, 4]]).sum())
            matrix = BlockMatrix.of(pairs, np.empty(length, block_dtype(self.spin)), sizes)
            for kinds, members, places in matrix.stacks(species):
                matrix.entries[places] = elements[members[:, None], self._places[kinds][channel]]
            matrices.append(matrix)
        return tuple(matrices)

    def blocks(self, coefficients: Tensor, graph: "HamiltonianGraph") -> tuple[BlockMatrix, ...]:
        """(E, D) coefficients in local frames -> H's channels in global coordinates, eV, on the graph's edges."""
        elements = self.elements(self.to_global(coefficients.double(), graph.edge_frame)).cpu().numpy()
        return self.unpack(elements, graph.pairs, graph.species.cpu().numpy())

    def _walk(self) -> "list[tuple[int, Target, Irrep, int, bool]]":
        """Every irrep in order: (target number, target, irrep, first coefficient, whether imaginary)."""
        walked, start = [], 0
        for number, target in enumerate(self.targets):
            for part in range(self._parts):
                for irrep in _block_irreps(target.l1, target.l2, spinor=self._spinor):
                    walked.append((number, target, irrep, start, part == 1))
                    start += 2 * irrep.degree + 1
        return walked

    def _groups_for(self, like: Tensor) -> list[_Group]:
        """The groups with tables of this tensor's precision and device."""
        key = (like.device, like.dtype)
        if key not in self._tables:
            number = like.dtype.to_complex() if self._spinor else like.dtype
            with torch.inference_mode(mode=False):  # a network that first predicts may be trained later
                self._tables[key] = [
                    group._replace(
                        coupling=group.coupling.to(like.device, number),
                        weights=group.weights.to(like.device, like.dtype),
                    )
                    for group in self._groups
                ]
        return self._tables[key]

    def _grouped(self) -> list[_Group]:
        groups = []
        shapes = [(target.l1, target.l2) for target in self.targets]
        for shape in dict.fromkeys(shapes):
            first, count = shapes.index(shape), shapes.count(shape)
            elements = slice(int(self._starts[first]), int(self._starts[first + count]))
            coupling, weights = _coupling(*shape, spinor=self._spinor)
            groups.append(
                _Group(
                    slice(first, first + count),
                    slice(elements.start * self._parts, elements.stop * self._parts),
                    elements,
                    torch.from_numpy(coupling),
                    torch.from_numpy(np.tile(weights, self._parts)),
                )
            )
        return groups

    def _adjoint(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where each coefficient's partner in H† stands, its sign, and the sign of the reversed bond's frame."""
        walked = self._walk()
        starts = {(target, irrep, imaginary): start for _, target, irrep, start, imaginary in walked}
        index, sign, turn = np.empty(self.dim, dtype=np.int64), np.empty(self.dim), np.empty(self.dim)
        for _, target, irrep, start, imaginary in walked:
            here = slice(start, start + 2 * irrep.degree + 1)
            partner = starts[target.adjoint, irrep, imaginary]
            index[here] = np.arange(partner, partner + 2 * irrep.degree + 1)
            sign[here] = (-1) ** (target.l1 + target.l2 + irrep.orbital_degree + imaginary)
            turn[here] = np.diagonal(rotation_matrices(irrep.degree, np.diag(REVERSAL)[None])[0]).round()
        return index, sign, turn

    def _trace_weights(self) -> Tensor:
        weights = torch.zeros(self.dim, self.num_targets, dtype=torch.float64)
        for number, _, irrep, start, _ in self._walk():
            weights[start : start + 2 * irrep.degree + 1, number] = irrep.weight
        return weights

    def _mask(self) -> Tensor:
        mask = torch.zeros(len(self.basis), len(self.basis), self.num_targets, dtype=torch.bool)
        numbers = {target: number for number, target in enumerate(self.targets)}
        for row, left in enumerate(self.basis.bases):
            for column, right in enumerate(self.basis.bases):
                for target in _pair_targets(left.shells, right.shells, self.spin):
                    mask[row, column, numbers[target]] = True
        return mask

    def _element_places(self) -> dict[tuple[int, int], list[np.ndarray]]:
        """For each ordered species pair and channel: the padded element of every entry of a flat block."""
        numbers = {target: number for number, target in enumerate(self.targets)}
        spins = self.spin.components
        places = {}
        for row, left in enumerate(self.basis.bases):
            for column, right in enumerate(self.basis.bases):
                block = np.empty((self.spin.channels, spins, left.num_orbitals, spins, right.num_orbitals), np.int64)
                targets = iter(_pair_targets(left.shells, right.shells, self.spin))
                for channel in range(self.spin.channels):
                    for l1, i in zip(left.shells, left.shell_starts, strict=True):
                        for l2, j in zip(right.shells, right.shell_starts, strict=True):
                            start = self._starts[numbers[next(targets)]]
                            shape = (spins, spins, 2 * l1 + 1, 2 * l2 + 1)
                            inside = start + np.arange(np.prod(shape)).reshape(shape).transpose(0, 2, 1, 3)
                            block[channel, :, i : i + 2 * l1 + 1, :, j : j + 2 * l2 + 1] = inside
                places[row, column] = list(block.reshape(self.spin.channels, -1))
        return places


def _targets(basis: Basis, spin: SpinMode) -> list[Target]:
    """Every target of the basis, those of equal (l1, l2) side by side."""
    found = {
        target
        for left in basis.bases
        for right in basis.bases
        for target in _pair_targets(left.shells, right.shells, spin)
    }
    return sorted(found, key=lambda target: (target.l1, target.l2, target.channel, target.k1, target.k2))


def _pair_targets(left: Sequence[int], right: Sequence[int], spin: SpinMode) -> list[Target]:
    """The targets of one ordered element pair: channel by channel, shell by shell."""
    return [
        Target(l1, place - left.index(l1), l2, other - right.index(l2), channel)
        for channel in range(spin.channels)
        for place, l1 in enumerate(left)
        for other, l2 in enumerate(right)
    ]


def _block_irreps(l1: int, l2: int, *, spinor: bool) -> list[Irrep]:
    """The irreps of a block, in the order of its coefficients."""
    irreps = []
    for orbital in range(abs(l1 - l2), l1 + l2 + 1):
        irreps.append(Irrep(orbital, orbital, vector=False))
        if spinor:
            irreps += [Irrep(total, orbital, vector=True) for total in range(abs(orbital - 1), orbital + 2)]
    return irreps


@cache
def _coupling(l1: int, l2: int, *, spinor: bool) -> tuple[np.ndarray, np.ndarray]:
    """The matrix from a block's coefficients (rows) to its elements (columns), and |H|² weights of the coefficients."""
    rows, weights = [], []
    for irrep in _block_irreps(l1, l2, spinor=spinor):
        orbital = _w3j(l1, l2, irrep.orbital_degree)  # (m1, m2, M)
        if not spinor:
            block = orbital
        elif not irrep.vector:
            block = np.einsum("abM,s->sabM", orbital, _PAULI[:, 0])
        else:
            block = np.einsum("abM,MnN,sn->sabN", orbital, _w3j(irrep.orbital_degree, 1, irrep.degree), _PAULI[:, 1:])
        rows.append(np.moveaxis(block, -1, 0).reshape(2 * irrep.degree + 1, -1))
        weights += [irrep.weight] * (2 * irrep.degree + 1)
    return np.concatenate(rows), np.array(weights)


def _w3j(l1: int, l2: int, l3: int) -> np.ndarray:
    """Real Wigner-3j of unit norm; e3nn's axes (y, z, x) make its order m = -l..l the project's."""
    return o3.wigner_3j(l1, l2, l3, dtype=torch.float64).numpy()


# 1, σ_y, σ_z, σ_x over √2 as columns; rows uu, ud, du, dd
_PAULI = np.array([[1, 0, 1, 0], [0, -1j, 0, 1], [0, 1j, 0, 1], [1, 0, -1, 0]]) / np.sqrt(2.0)
