"""Densities of states and projections of real runs: electrons, OpenMX' own Mulliken populations, kernel polynomials."""

import re
from dataclasses import replace

import numpy as np
import pytest

from deeph_tracegrad.inference import fermi
from deeph_tracegrad.inference.bands import BandOptions, compute_bands
from deeph_tracegrad.inference.bloch import bloch_operators
from deeph_tracegrad.inference.kpath import choose_path
from deeph_tracegrad.inference.spectra import dos
from deeph_tracegrad.inference.spectra.counts import KernelPolynomials, MeshStates, Sampled
from deeph_tracegrad.inference.spectra.dos import DosOptions, Method, compute_dos
from deeph_tracegrad.inference.spectra.kernel_polynomials import (
    Bounds,
    FactorisedOverlap,
    chebyshev_moments,
    moments_needed,
    states_below,
)
from deeph_tracegrad.inference.spectra.projections import Grouping, OrbitalGroups, project_bands
from deeph_tracegrad.inference.spectra.states import states_at_k
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.runs import read_material
from deeph_tracegrad.testing import repeated

CASES = ("graphene", "mos2", "fe_bcc_spin", "bi_soc")
OPENMX_NAMES = {"d3z^2-r^2": "dz²", "dx^2-y^2": "dx²−y²"}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", [Method.TETRAHEDRON, Method.GAUSSIAN])
def test_electrons_below_the_fermi_level(unpacked, case, method):
    material = read_material(unpacked(f"openmx/{case}"))
    found = compute_dos(material, DosOptions(method, density=20.0, broadening=0.05))
    insulator = case == "mos2"
    tolerance = 1e-9 if insulator else 5e-3 * material.electrons  # the Fermi level is of a finer mesh, at 300 K
    assert found.occupied.sum() == pytest.approx(material.electrons, abs=tolerance)
    integral = np.interp(found.fermi.level, found.edges, found.below.sum(axis=(0, 1)))
    assert integral == pytest.approx(material.electrons, abs=tolerance)
    assert found.total.min() > -1e-9
    widths = np.diff(found.edges)
    expected = found.below.sum(axis=1)
    np.testing.assert_allclose((found.total * widths).sum(axis=1), expected[:, -1] - expected[:, 0])
    if insulator:
        gap = abs(found.energies - found.fermi.level) < 0.4
        assert abs(found.total[:, gap]).max() < 1e-9


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("grouping", list(Grouping))
def test_shares_add_up_to_one_in_every_state(unpacked, case, grouping):
    material = read_material(unpacked(f"openmx/{case}"))
    operators = bloch_operators(material)
    groups = OrbitalGroups.of(material, grouping)
    assert (groups.members.sum(axis=0) == 1).all()
    for states in states_at_k(operators, np.array([0.13, -0.21, 0.05])):
        np.testing.assert_allclose((groups.members @ states.populations).sum(axis=0), 1, atol=1e-10)


def printed_populations(file):
    """Electrons (up + down) that OpenMX printed for each atom and orbital, its radial functions added."""
    text = file.read_text().split("Decomposed Mulliken populations")[1]
    found, atom = {}, None
    for line in text.splitlines():
        if heading := re.match(r"\s+(\d+)\s+([A-Z][a-z]?)\s+Up spin", line):
            atom = heading.groups()
        elif row := re.match(r"\s+([spdf]\S*)\s+\d+\s+(\S+)\s+(\S+)", line):
            name = OPENMX_NAMES.get(row[1], row[1])
            found[atom[1], name] = found.get((atom[1], name), 0.0) + float(row[2]) + float(row[3])
        elif line.startswith("****"):
            break
    return found


@pytest.mark.parametrize(
    ("case", "divisions"), [("graphene", (9, 9, 1)), ("mos2", (7, 7, 1)), ("fe_bcc_spin", (7, 7, 7))]
)
def test_populations_are_those_that_openmx_printed(unpacked, case, divisions):
    """On its mesh, at its Fermi level, with its smearing (300 K, nearly that of a Gaussian of 0.04 eV)."""
    folder = unpacked(f"openmx/{case}")
    material = read_material(folder)
    groups = OrbitalGroups.of(material, Grouping.ORBITAL)
    count = MeshStates.of(Sampled(bloch_operators(material), groups, divisions), None, 0.04)
    per_state = 2 if material.spin is SpinMode.NONE else 1
    ours = per_state * count.occupied(material.fermi_level).sum(axis=0)
    printed = printed_populations(folder / "openmx.out")
    assert {" ".join(key) for key in printed} == set(groups.labels)
    theirs = [printed[tuple(label.split())] for label in groups.labels]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-2 if case == "fe_bcc_spin" else 2e-5)


def test_bands_of_graphene_around_the_fermi_level_are_of_pz(unpacked):
    material = read_material(unpacked("openmx/graphene"))
    path = choose_path("G 0 0 0, K 1/3 1/3 0", material.structure, 40.0)
    bands = compute_bands(material, path, BandOptions(num_bands=2))
    projections = project_bands(material, bands, Grouping.ORBITAL)
    assert projections.weights.shape == (1, len(path.k), 2, 9)
    np.testing.assert_allclose(projections.weights.sum(axis=3), 1, atol=1e-10)
    at_corner = projections.weights[0, -1].sum(axis=0) / 2
    assert at_corner[projections.labels.index("C pz")] > 0.9


@pytest.mark.parametrize(("case", "times"), [("graphene", (3, 3, 1)), ("bi_soc", (2, 1, 1))])
def test_random_vectors_give_the_exact_density_within_their_error(unpacked, case, times):
    """The error is that of the exact spectrum seen through the same kernel, at all energies and for all groups."""
    material = repeated(read_material(unpacked(f"openmx/{case}")), times)
    options = DosOptions(
        Method.KERNEL_POLYNOMIALS, Grouping.SHELL, (-8.0, 6.0), 1.0, 0.5, 60, fermi_level=material.fermi_level
    )
    sampled = compute_dos(material, options)
    operators, groups = bloch_operators(material), OrbitalGroups.of(material, Grouping.SHELL)
    hamiltonian, overlap = operators.hamiltonian[0].at_k(np.zeros(3)), operators.overlap.at_k(np.zeros(3))
    bounds = Bounds.of(hamiltonian, FactorisedOverlap.of(overlap))
    number = moments_needed(bounds, 0.5, (sampled.edges[0], sampled.edges[-1]))
    states = states_at_k(operators, np.zeros(3))[0]
    angles = np.arccos((states.energies - bounds.centre) / bounds.radius)
    moments = np.cos(np.arange(number)[:, None] * angles) @ (groups.members @ states.populations).T
    per_state = 2 if material.spin is SpinMode.NONE else 1
    exact = per_state * np.diff(states_below(moments, bounds, sampled.edges).T) / np.diff(sampled.edges)
    for deviation, error in zip(
        [sampled.total[0] - exact.sum(axis=0), *(sampled.of_groups[0] - exact)], sampled.errors[0], strict=True
    ):
        typical = error > 0.1 * error.max()
        relative = deviation[typical] / error[typical]
        assert 0.2 < np.sqrt((relative**2).mean()) < 2.5
        assert abs(relative).max() < 6
        assert abs(deviation).max() < 5 * error.max()


def test_large_cell_counts_its_electrons_twice(unpacked, monkeypatch):
    """Nothing given: the level by factorisations, the density by random vectors, and both hold the same electrons."""
    material = repeated(read_material(unpacked("openmx/mos2")), (2, 2, 1))
    for module in (dos, fermi):
        monkeypatch.setattr(module, "DENSE_LIMIT", 10)
    monkeypatch.setattr(fermi, "MESH_DENSITY", 10.0)
    found = compute_dos(material, DosOptions(window=(-3.0, 3.0), density=1.0, broadening=0.3, vectors=24))
    assert "kernel polynomials" in found.method
    assert found.fermi.source.startswith("middle of the gap; 104 electrons")
    assert found.occupied.sum() == pytest.approx(104, rel=0.04)
    assert np.interp(found.fermi.level, found.edges, found.below.sum(axis=(0, 1))) == pytest.approx(104, rel=0.04)
    monkeypatch.undo()
    exact = compute_dos(material, DosOptions(Method.GAUSSIAN, density=1.0, fermi_level=found.fermi.level))
    assert found.labels == exact.labels
    np.testing.assert_allclose(found.occupied, exact.occupied, atol=2.5)


def test_full_trace_of_kernel_polynomials_is_the_exact_spectrum(unpacked):
    """With unit vectors instead of random ones nothing is random, and the count is the kernel's of the exact states."""
    material = read_material(unpacked("openmx/mos2"))
    operators, groups = bloch_operators(material), OrbitalGroups.of(material, Grouping.SHELL)
    k = np.array([0.11, 0.23, 0.0])
    hamiltonian, factor = operators.hamiltonian[0].at_k(k), FactorisedOverlap.of(operators.overlap.at_k(k))
    bounds = Bounds.of(hamiltonian, factor)
    units = np.eye(operators.num_orbitals)
    moments = chebyshev_moments(hamiltonian, factor, bounds, units, 300, groups.members).sum(axis=2)
    states = states_at_k(operators, k)[0]
    angles = np.arccos((states.energies - bounds.centre) / bounds.radius)
    expected = np.cos(np.arange(300)[:, None] * angles) @ (groups.members @ states.populations).T
    np.testing.assert_allclose(moments, expected, rtol=0, atol=1e-10)
    levels = np.linspace(-20, 10, 50)
    np.testing.assert_allclose(
        states_below(moments, bounds, levels), states_below(expected, bounds, levels), atol=1e-10
    )


def test_method_follows_from_the_size(unpacked, monkeypatch):
    material = read_material(unpacked("openmx/mos2"))
    small = DosOptions(density=1.0, broadening=2.0, vectors=2, fermi_level=-5.0)
    assert compute_dos(material, small).method == "Gaussians of 2 eV, k-mesh 1x1x1"
    assert compute_dos(material, replace(small, density=9.0)).method == "linear tetrahedra, k-mesh 6x6x1"
    monkeypatch.setattr(dos, "DENSE_LIMIT", 10)
    assert "kernel polynomials of 2 eV, 2 random vectors" in compute_dos(material, small).method


def test_random_vectors_do_not_depend_on_how_ranks_share_the_points(unpacked):
    material = read_material(unpacked("openmx/graphene"))
    operators, groups = bloch_operators(material), OrbitalGroups.of(material, Grouping.ELEMENT)
    sampled = Sampled(operators, groups, (3, 3, 1))
    one, two = (KernelPolynomials.of(sampled, 1.0, (-9.0, 1.0), 3) for _ in range(2))
    for left, right in zip(one.moments, two.moments, strict=True):
        np.testing.assert_array_equal(left[0][1], right[0][1])
