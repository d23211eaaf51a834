"""Densities of states, in all and by groups of orbitals.

Every method counts the states below given energies; the density at an energy is the mean over its interval of the
grid. So no narrow band falls between two energies, and the sum over the grid is a number of electrons.

Shape letters: s spin channels, P groups of orbitals, G intervals of energy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.bloch import BlochOperators, bloch_operators
from deeph_tracegrad.inference.checks import check_fermi_level, check_positive, check_window
from deeph_tracegrad.inference.fermi import MESH_DENSITY, FermiLevel, find_fermi_level
from deeph_tracegrad.inference.kpoints import mesh_divisions, periodic_axes
from deeph_tracegrad.inference.solvers import DENSE_LIMIT
from deeph_tracegrad.inference.spectra.counts import KernelPolynomials, MeshStates, Sampled, StateCount
from deeph_tracegrad.inference.spectra.projections import Grouping, OrbitalGroups
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode

INTERVALS = 1000  # of energy, across the window
DEFAULT_BROADENING = 0.1  # eV
LAYER_DENSITY = 160.0  # k-points for each 1/Å; chains as layers
LARGE_CELL_DENSITY = 20.0  # of kernel polynomials, whose broadening hides more


class Method(StrEnum):
    """How states are counted."""

    TETRAHEDRON = "tetrahedron"
    GAUSSIAN = "gaussian"
    KERNEL_POLYNOMIALS = "kpm"


@dataclass(frozen=True)
class DosOptions:
    """What density of states is wanted.

    method: None to choose by size. grouping: of the orbitals. window: energies around the Fermi level, eV.
    density: k-points for each 1/Å (without 2π); None to choose by the number of directions with bands.
    broadening: standard deviation of Gaussians and of kernel polynomials, eV. vectors: random ones of the kernel
    polynomials. fermi_level: eV; None to find it.
    """

    method: Method | None = None
    grouping: Grouping = Grouping.SHELL
    window: tuple[float, float] = (-10.0, 10.0)
    density: float | None = None
    broadening: float = DEFAULT_BROADENING
    vectors: int = 16
    fermi_level: float | None = None

    def __post_init__(self) -> None:
        check_window(self.window)
        check_positive("--broadening", self.broadening)
        if self.fermi_level is not None:
            check_fermi_level(self.fermi_level)


@dataclass(frozen=True, eq=False)
class DensityOfStates:
    """A density of states by groups of orbitals, whose sum is the total.

    edges: (G+1,) of the intervals of energy, eV, absolute. labels: (P,) of the groups.
    below: (s, P, G+1) electrons that the states below each edge hold, in the cell.
    occupied: (s, P) electrons below the Fermi level.
    errors: (s, 1+P, G) standard errors of the densities, total and groups, 1/eV; None where nothing is random.
    method: in words.
    """

    edges: np.ndarray
    labels: tuple[str, ...]
    below: np.ndarray
    occupied: np.ndarray
    errors: np.ndarray | None
    fermi: FermiLevel
    spin: SpinMode
    method: str
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def energies(self) -> np.ndarray:
        """Middles of the intervals, (G,) eV."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    @property
    def of_groups(self) -> np.ndarray:
        """Density of each group, (s, P, G) electrons for each eV in the cell."""
        return np.diff(self.below) / np.diff(self.edges)

    @property
    def total(self) -> np.ndarray:
        """(s, G) electrons for each eV in the cell."""
        return self.of_groups.sum(axis=1)


def compute_dos(material: Material, options: DosOptions) -> DensityOfStates:
    """The density of states of a material; the MPI ranks share the k-points.

    Raises:
        SolverError: the eigenproblem or the Fermi level has no solution.
    """
    try:
        return _computed(material, options)
    except SolverError as error:
        raise SolverError(f"{material.provenance.get('source', 'the input')}: {error}") from error


def _computed(material: Material, options: DosOptions) -> DensityOfStates:
    operators = bloch_operators(material)
    groups = OrbitalGroups.of(material, options.grouping)
    divisions, method = _mesh_and_method(material, operators, options)
    if options.fermi_level is None:
        fermi = find_fermi_level(material, operators)
    else:
        fermi = FermiLevel(options.fermi_level, "given by the user")
    edges = fermi.level + np.linspace(*options.window, INTERVALS + 1)
    sampled = Sampled(operators, groups, divisions)
    count: StateCount
    if method is Method.KERNEL_POLYNOMIALS:
        window = (float(edges[0]), float(edges[-1]))
        count = KernelPolynomials.of(sampled, options.broadening, window, options.vectors)
    else:
        reciprocal = material.structure.lattice.reciprocal_lattice.matrix if method is Method.TETRAHEDRON else None
        count = MeshStates.of(sampled, reciprocal, options.broadening)
    per_state = 2 if material.spin is SpinMode.NONE else 1
    errors = count.density_errors(edges)
    return DensityOfStates(
        edges,
        groups.labels,
        per_state * count.below(edges),
        per_state * count.occupied(fermi.level),
        None if errors is None else per_state * errors,
        fermi,
        material.spin,
        _describe(method, divisions, options),
        material.provenance,
    )


def _mesh_and_method(
    material: Material, operators: BlochOperators, options: DosOptions
) -> tuple[tuple[int, int, int], Method]:
    """What is asked for, or what suits the cell's size."""
    method = options.method
    if method is None and operators.num_orbitals > DENSE_LIMIT:
        method = Method.KERNEL_POLYNOMIALS
    if method is Method.KERNEL_POLYNOMIALS:
        density = LARGE_CELL_DENSITY
    else:
        density = MESH_DENSITY if periodic_axes(material.structure).all() else LAYER_DENSITY
    divisions = mesh_divisions(material.structure, options.density or density)
    if method is None:
        method = Method.TETRAHEDRON if max(divisions) > 1 else Method.GAUSSIAN
    return divisions, method


def _describe(method: Method, divisions: tuple[int, int, int], options: DosOptions) -> str:
    mesh = f"k-mesh {'x'.join(map(str, divisions))}"
    if method is Method.TETRAHEDRON:
        return f"linear tetrahedra, {mesh}"
    if method is Method.GAUSSIAN:
        return f"Gaussians of {options.broadening:g} eV, {mesh}"
    return f"kernel polynomials of {options.broadening:g} eV, {options.vectors} random vectors a k-point, {mesh}"
