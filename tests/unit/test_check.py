"""What is wrong with runs beside each other: each rule alone, on figures made up or read."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from damage import cut, flipped
from deeph_tracegrad.deeph_format import write_deeph
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.preprocess.check import duplicates as duplicates_module
from deeph_tracegrad.preprocess.check.common import Common
from deeph_tracegrad.preprocess.check.duplicates import duplicates, fingerprint
from deeph_tracegrad.preprocess.check.electrons import electron_misfits, valences
from deeph_tracegrad.preprocess.check.outliers import MIN_COMPARED, Scatter, outliers, scatters
from deeph_tracegrad.preprocess.check.survey import check_run
from deeph_tracegrad.preprocess.defects import Kind
from deeph_tracegrad.preprocess.figures import Figures, measure
from deeph_tracegrad.preprocess.runs import Run
from materials import random_material

MOLYBDENUM, SULPHUR = ElementBasis((0, 1, 2), label="Mo7.0-s1p1d1"), ElementBasis((0, 1), label="S7.0-s1p1")


@pytest.fixture(scope="module")
def sound() -> Figures:
    return measure(random_material(SpinMode.NONE))


def with_structure(figures, structure):
    return replace(
        figures,
        elements=tuple(site.specie.symbol for site in structure),
        cell=structure.lattice.matrix,
        fractional=structure.frac_coords,
    )


def supercell(seed, spread=0.1, repeats=3):
    """A perturbed MoS2-like layer, 3 * repeats² atoms."""
    layer = Structure(
        Lattice.hexagonal(3.18, 15.0), ["Mo", "S", "S"], [[0, 0, 0.5], [1 / 3, 2 / 3, 0.6], [1 / 3, 2 / 3, 0.4]]
    )
    layer.make_supercell([repeats, repeats, 1])
    positions = layer.cart_coords + np.random.default_rng(seed).normal(scale=spread, size=(len(layer), 3))
    return Structure(layer.lattice, layer.species, positions, coords_are_cartesian=True)


def other_order_and_images(structure, seed=0):
    """The same structure: atoms shuffled and moved by lattice vectors, each by 0.0005 Å, and the whole turned."""
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(structure))
    fractional = structure.frac_coords[order] + chance.integers(-2, 3, size=(len(structure), 3))
    turn = np.linalg.qr(chance.normal(size=(3, 3)))[0]
    noise = chance.normal(size=(len(structure), 3))
    noise *= 5e-4 / np.linalg.norm(noise, axis=1, keepdims=True)
    lattice = Lattice(structure.lattice.matrix @ turn)
    positions = lattice.get_cartesian_coords(fractional) + noise
    return Structure(lattice, [structure.species[atom] for atom in order], positions, coords_are_cartesian=True)


@pytest.mark.parametrize("seed", range(5))
def test_duplicates_are_found_in_any_order_image_and_direction(sound, seed):
    structures = [supercell(one) for one in (seed, seed + 100)]
    again = [other_order_and_images(structure, seed) for structure in structures]
    assert list(duplicates([with_structure(sound, one) for one in (*structures, *again)])) == [(2, 0), (3, 1)]


def one_atom_moved(structure):
    structure.translate_sites([4], [0.003, 0, 0], frac_coords=False)


def strained(structure):
    structure.apply_strain([0.002, 0, 0])


def two_elements_exchanged(structure):
    structure.replace(0, "S")
    structure.replace(len(structure) - 1, "Mo")


def a_layer_slid(structure):
    upper = [place for place, site in enumerate(structure) if site.specie.symbol == "S" and site.frac_coords[2] > 0.5]
    structure.translate_sites(upper, [0.01, 0, 0])


@pytest.mark.parametrize("change", [one_atom_moved, strained, two_elements_exchanged, a_layer_slid])
@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_near_duplicates_are_none(sound, change, spread):
    structure = supercell(0, spread)
    changed = structure.copy()
    change(changed)
    assert not list(duplicates([with_structure(sound, structure), with_structure(sound, changed)]))


def test_the_fingerprint_moves_no_more_than_the_atoms(sound):
    structure = supercell(3)
    one, other = (fingerprint(with_structure(sound, each)) for each in (structure, other_order_and_images(structure)))
    assert abs(one - other).max() <= 5e-4
    assert abs(one - fingerprint(with_structure(sound, supercell(4)))).max() > 5e-3


@pytest.mark.parametrize("alloy", [False, True])
def test_few_structures_are_compared_atom_by_atom(sound, monkeypatch, alloy):
    """Else the time would grow with the square of their number; alloys have one lattice, and differ by elements."""
    chance, lattice = np.random.default_rng(0), supercell(0, spread=0.0)
    structures = []
    for seed in range(300):
        structure = supercell(seed) if not alloy else lattice.copy()
        for place, element in enumerate(chance.permutation([site.specie.symbol for site in lattice]) if alloy else ()):
            structure.replace(place, element)
        structures.append(with_structure(sound, structure))
    compared, same = [], duplicates_module.same
    monkeypatch.setattr(duplicates_module, "same", lambda *pair: compared.append(pair) or same(*pair))
    assert not list(duplicates(structures))
    assert len(compared) < 300


def test_the_odd_ones_are_told_from_the_majority(sound):
    usual = replace(sound, basis=Basis.of({"Mo": MOLYBDENUM, "S": SULPHUR}))
    unlabelled = replace(usual, basis=Basis.of({"Mo": replace(MOLYBDENUM, label=None), "S": SULPHUR}))
    relabelled = replace(usual, basis=Basis.of({"Mo": replace(MOLYBDENUM, label="Mo9.0-s1p1d1"), "S": SULPHUR}))
    larger = replace(usual, basis=Basis.of({"Mo": MOLYBDENUM, "S": ElementBasis((0, 1, 2))}))
    magnetic = replace(usual, spin=SpinMode.COLLINEAR)
    runs = [larger, unlabelled, unlabelled, usual, relabelled, magnetic]
    common = Common.of(runs)
    assert common.basis["Mo"].label == MOLYBDENUM.label
    assert [[defect.message for defect in common.misfits(run)] for run in runs] == [
        ["S has the shells s1p1d1 here and s1p1 in 5 of 6 runs"],
        [],
        [],
        [],
        ["Mo has the basis Mo9.0-s1p1d1 here and Mo7.0-s1p1d1 in 5 of 6 runs"],
        ["spin is collinear here and none in 5 of 6 runs"],
    ]


def cell(sound, molybdenum, sulphur, electrons):
    return replace(sound, elements=("Mo",) * molybdenum + ("S",) * sulphur, electrons=electrons)


def test_charged_cells_stand_out_from_valence_electrons_that_nobody_told(sound):
    runs = [
        cell(sound, number, 2 * number + extra, 14.0 * number + 6.0 * (2 * number + extra))
        for number in range(1, 5)
        for extra in range(3)
    ]
    runs[3], runs[7] = (replace(runs[place], electrons=runs[place].electrons - 1) for place in (3, 7))
    found = dict(electron_misfits(runs))
    assert set(found) == {3, 7}
    assert found[3].message == "51 electrons, where the valence electrons of Mo2 S4 make 52"
    of_one_formula = [cell(sound, 1, 2, electrons) for electrons in (26.0, 26.0, 27.0)]  # Mo and S cannot be told apart
    assert set(dict(electron_misfits(of_one_formula))) == {2}


def test_valence_electrons_that_the_basis_tells_count(sound):
    told = Basis.of({"Mo": replace(MOLYBDENUM, valence_electrons=14.0), "S": replace(SULPHUR, valence_electrons=6.0)})
    runs = [replace(cell(sound, 1, 2, electrons), basis=told) for electrons in (27.0, 27.0, 26.0, None)]
    assert set(dict(electron_misfits(runs))) == {0, 1}
    assert not list(electron_misfits([cell(sound, 1, 2, None)]))


def test_valences_of_many_cells():
    chance = np.random.default_rng(0)
    cells = chance.integers(0, 20, size=(400, 3))
    electrons = cells @ [4.0, 5.0, 14.0]
    electrons[:40] += chance.normal(size=40)
    np.testing.assert_allclose(valences(cells, electrons, np.ones(400)), [4, 5, 14], atol=1e-9)


def test_scatter_is_that_of_a_normal_distribution_and_does_not_mind_outliers():
    values = np.random.default_rng(0).normal(-3.0, 0.2, size=20_000)
    values[:500] = 50.0
    scatter = Scatter.of(list(values))
    assert scatter.median == pytest.approx(-3.0, abs=0.02)
    assert scatter.deviation == pytest.approx(0.2, rel=0.05)


def test_outliers_are_told_where_enough_runs_are_known(sound):
    energies = np.linspace(0.9, 1.1, MIN_COMPARED)
    runs = [replace(sound, fermi_level=float(energy)) for energy in energies]
    runs[4] = replace(sound, fermi_level=2.0)
    found = {place: [*outliers(run, scatters(runs))] for place, run in enumerate(runs)}
    assert [place for place, defects in found.items() if defects] == [4]
    assert "its Fermi level, 2.0000 eV, is " in found[4][0].message
    assert "above the median of Mo1 S2" in found[4][0].message
    assert not list(outliers(runs[4], scatters(runs[1:])))
    other = replace(runs[4], elements=("Mo", "S"))
    assert not list(outliers(other, scatters(runs)))


def test_equal_runs_make_no_outlier_of_a_small_difference(sound):
    runs = [sound] * MIN_COMPARED
    level = sound.fermi_level
    assert not list(outliers(replace(sound, fermi_level=level + 0.029), scatters(runs)))
    assert list(outliers(replace(sound, fermi_level=level + 0.031), scatters(runs)))


def test_another_magnetic_state_is_an_outlier():
    iron = measure(random_material(SpinMode.COLLINEAR))
    runs = [replace(iron, exchange_splitting=1.5 + 0.01 * number) for number in range(MIN_COMPARED)]
    (defect,) = outliers(replace(iron, exchange_splitting=0.0), scatters(runs))
    assert "its exchange splitting" in defect.message


@pytest.mark.parametrize("damaged", [cut, flipped])
def test_damaged_files_never_end_the_check(unpacked, tmp_path, damaged):
    """Whatever stands in a run, it is judged; most damage is told by the reader."""
    whole = (unpacked("openmx/demo_a_00") / "openmx.scfout").read_bytes()
    unreadable = 0
    for content in damaged(whole, seed=5, count=100):
        (tmp_path / "openmx.scfout").write_bytes(content)
        checked = check_run(Run(tmp_path, "openmx", "damaged"))
        unreadable += Kind.UNREADABLE in {defect.kind for defect in checked.defects}
    assert unreadable > 5


@pytest.mark.parametrize("matrix", ["overlap", "hamiltonian"])
@pytest.mark.parametrize("value", [1e7, 1e300])
def test_entries_that_no_matrix_can_have(tmp_path, matrix, value):
    material = random_material(SpinMode.NONE)
    write_deeph(material, tmp_path)
    with h5py.File(tmp_path / f"{matrix}.h5", "r+") as file:
        file["entries"][...] = value
    checked = check_run(Run(tmp_path, "deeph", "damaged"))
    assert [defect.kind for defect in checked.defects] == [Kind.UNREADABLE]
    assert f"as large as {value:.1e}" in checked.defects[0].message


def test_a_run_that_the_system_refuses_to_read_is_told(tmp_path, monkeypatch):
    def refused(run):
        raise PermissionError(13, "Permission denied", str(run.path))

    monkeypatch.setattr("deeph_tracegrad.preprocess.check.survey.read_material", refused)
    checked = check_run(Run(tmp_path, "openmx", "locked"))
    assert [defect.kind for defect in checked.defects] == [Kind.UNREADABLE]
    assert "Permission denied" in checked.defects[0].message
