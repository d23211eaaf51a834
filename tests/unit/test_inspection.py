"""What `inspect` finds: figures against independent ones, and a warning for every defect that is put in."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure
from rich.console import Console
from scipy.linalg import eigvalsh

from deeph_tracegrad.blocks import dense_at_k, on_site
from deeph_tracegrad.deeph_format import read_deeph
from deeph_tracegrad.deeph_legacy import read_deeph_legacy
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import Basis
from deeph_tracegrad.preprocess import figures, inspection
from deeph_tracegrad.preprocess.defects import Kind, defects_as_label, defects_of
from deeph_tracegrad.preprocess.inspection import Finding, inspect, material_findings, report

LEGACY = Path(__file__).parents[1] / "data" / "deeph_legacy"


@pytest.fixture
def graphene(unpacked):
    material = read_deeph(unpacked("openmx/graphene") / "deeph_dock")
    return replace(material, electrons=8.0, converged=True)


def found(material):
    return {finding.name: finding for finding in material_findings(material)}


def warned(material):
    return {finding.name for finding in material_findings(material) if finding.warning}


def test_a_sound_run_has_no_warning(graphene):
    findings = found(graphene)
    assert warned(graphene) == set()
    assert findings["atoms"].value == "2, C2"
    assert findings["basis"].value == "C s2p2d1; 26 orbitals"
    assert findings["spin"].value == "none"
    assert findings["Fermi level"].value == "-3.830295 eV"
    assert findings["electrons"].value == "8"
    assert findings["blocks"].value == "S 92 pairs, H 92 pairs"
    assert findings["closest atoms"].value == "1.4203 Å"
    assert findings["H beyond S"].value == "none"
    longest = np.linalg.norm(graphene.pair_vectors(graphene.overlap.pairs), axis=1).max()
    assert findings["longest pair of S"].value == f"{longest:.3f} Å"
    lowest = [eigvalsh(dense_at_k(graphene.overlap, k))[0] for k in figures.CHECKED_K]
    assert findings["smallest eigenvalue of S(k)"].value.startswith(f"{min(lowest):.3e} at k = ")


@pytest.mark.parametrize("case", ["mos2", "fe_bcc_spin", "bi_soc"])
def test_every_spin_mode_is_inspected(unpacked, case):
    material = read_deeph(unpacked(f"openmx/{case}") / "deeph_dock")
    assert found(material)["spin"].value == str(material.spin)
    assert warned(material) == set()


def test_a_prediction_of_a_network_that_is_not_hermitian():
    material = read_deeph_legacy(LEGACY / "bismuth")
    assert warned(material) >= {"Fermi level", "hamiltonian, largest |A - A†|"}
    assert found(material)["Fermi level"].value == "unknown"
    assert "3.97" in found(material)["hamiltonian, largest |A - A†|"].value


def without_fermi_level(material):
    return replace(material, fermi_level=None)


def unconverged(material):
    return replace(material, converged=False)


def too_many_electrons(material):
    return replace(material, electrons=80.0)


def without_hamiltonian(material):
    return replace(material, hamiltonian=())


def without_overlap(material):
    return replace(material, overlap=None)


def overlap_cut_short(material):
    pairs = material.overlap.pairs
    near = np.linalg.norm(material.pair_vectors(pairs), axis=1) < 3
    return replace(material, overlap=material.overlap.on_pairs(pairs[near]))


def overlap_of_another_scale(material):
    overlap = material.overlap
    own = on_site(overlap.pairs)
    scale = np.repeat(np.where(own, 1.0, 1.5), np.diff(overlap.offsets))
    return replace(material, overlap=overlap.with_entries(overlap.entries * scale))


def onsite_block_missing(material):
    own = (material.overlap.pairs[:, :3] == 0).all(axis=1) & (material.overlap.pairs[:, 3:] == 0).all(axis=1)
    return replace(material, overlap=material.overlap.on_pairs(material.overlap.pairs[~own]))


def small_cutoff_radius(material):
    return replace(material, basis=Basis.of({"C": replace(material.basis["C"], cutoff_radius=2.0)}))


def lattice_in_bohr_as_if_it_were_nanometres(material):
    structure = material.structure
    smaller = Structure(structure.lattice.matrix / 10, structure.species, structure.frac_coords)
    return replace(material, structure=smaller)


def overlap_nearly_dependent(material):
    """S - λ, so that the smallest eigenvalue is left with 1e-6."""
    overlap, lowest = material.overlap, figures.measure(material).lowest_overlap
    entries = overlap.entries.copy()
    for place in np.flatnonzero(on_site(overlap.pairs)):
        block = entries[overlap.offsets[place] : overlap.offsets[place + 1]].reshape(13, 13)
        block -= (lowest - 1e-6) * np.eye(13)
    return replace(material, overlap=overlap.with_entries(entries))


def without_convergence(material):
    return replace(material, converged=None)


def without_electrons(material):
    return replace(material, electrons=None)


def predicted(material):
    return replace(material, provenance={"files": {"hamiltonian": "hamiltonian_pred.h5"}})


def violated(**violations):
    def material_with_violation(material):
        return replace(material, provenance={"hermiticity_violation": violations})

    return material_with_violation


# the rows of `inspect` that warn, and what `check` finds
DEFECTS = {
    "no Fermi level": (without_fermi_level, {"Fermi level"}, set()),
    "unconverged": (unconverged, {"self-consistency"}, {Kind.UNCONVERGED}),
    "too many electrons": (too_many_electrons, {"electrons"}, {Kind.TOO_MANY_ELECTRONS}),
    "no H": (without_hamiltonian, {"blocks"}, {Kind.NO_HAMILTONIAN}),
    "no S": (without_overlap, {"blocks"}, {Kind.NO_OVERLAP}),
    "S cut": (overlap_cut_short, {"H beyond S", "smallest eigenvalue of S(k)"}, {Kind.NOT_POSITIVE}),
    "S scaled": (overlap_of_another_scale, {"smallest eigenvalue of S(k)"}, {Kind.NOT_POSITIVE}),
    "S near singular": (overlap_nearly_dependent, {"smallest eigenvalue of S(k)"}, {Kind.NEARLY_DEPENDENT}),
    "no on-site block": (
        onsite_block_missing,
        {"on-site blocks of S", "smallest eigenvalue of S(k)", "H beyond S"},
        {Kind.INCOMPLETE, Kind.NOT_POSITIVE},
    ),
    "small radius": (small_cutoff_radius, {"longest pair of S"}, {Kind.UNTOUCHED}),
    "unit of length": (lattice_in_bohr_as_if_it_were_nanometres, {"closest atoms"}, {Kind.TOO_CLOSE}),
    "convergence": (without_convergence, set(), {Kind.CONVERGENCE_UNKNOWN}),
    "electrons": (without_electrons, set(), {Kind.NO_ELECTRONS}),
    "prediction": (predicted, set(), {Kind.PREDICTION}),
    "H off": (violated(hamiltonian=1e-4), {"hamiltonian, largest |A - A†|"}, {Kind.OFF_HERMITIAN}),
    "H damaged": (violated(hamiltonian=1e-2), {"hamiltonian, largest |A - A†|"}, {Kind.NOT_HERMITIAN}),
    "S off": (violated(overlap=1e-4), {"overlap, largest |A - A†|"}, {Kind.OFF_HERMITIAN}),
    "S damaged": (violated(overlap=1e-2), {"overlap, largest |A - A†|"}, {Kind.NOT_HERMITIAN}),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_defects_are_found(graphene, name):
    defect, rows, kinds = DEFECTS[name]
    material = defect(graphene)
    assert warned(material) == rows
    found = [*defects_as_label(material), *defects_of(figures.measure(material))]
    assert {one.kind for one in found} == kinds


def test_h_beyond_s_is_counted(graphene):
    pairs = graphene.overlap.pairs
    far = np.linalg.norm(graphene.pair_vectors(pairs), axis=1) >= 3
    hamiltonian = graphene.hamiltonian[0]
    largest = max(abs(hamiltonian.block(place)).max() for place in np.flatnonzero(far))
    expected = f"{far.sum()} blocks, largest |H| {largest:.2e} eV"
    assert found(overlap_cut_short(graphene))["H beyond S"].value == expected
    zeroed = graphene.overlap.on_pairs(pairs[~far]).on_pairs(pairs)  # as a DeepH folder holds it
    assert found(replace(graphene, overlap=zeroed))["H beyond S"].value == expected


def test_large_cells_skip_the_eigenvalues(graphene, monkeypatch):
    for module in (figures, inspection):
        monkeypatch.setattr(module, "MAX_DENSE_ORBITALS", 25)
    assert found(graphene)["smallest eigenvalue of S(k)"].value == "skipped, more than 25 orbitals"


def test_the_report_shows_values_and_warnings_as_they_are():
    table = report("a/[bold]/b", [Finding("name", "1 [x]"), Finding("other", "2", "Mind [this].")])
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    for text in ("a/[bold]/b", "1 [x]", "2", "Mind [this]."):
        assert text in capture.get()


def test_what_is_nothing_to_inspect(tmp_path):
    with pytest.raises(ReadError, match="does not exist"):
        inspect(tmp_path / "nothing")
    with pytest.raises(ReadError, match="is no run"):
        inspect(tmp_path)
