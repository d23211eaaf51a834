"""What the reader of SIESTA runs makes of real files, of other layouts of these, and of damaged ones."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from damage import cut, flipped, outcome
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.runs import detect, find_runs, read_material
from deeph_tracegrad.preprocess.siesta.reader import read_siesta
from deeph_tracegrad.units import SIESTA_RYDBERG_EV
from materials import assert_same_matrices

DENSITY = ["density"]


@pytest.fixture
def graphene(unpacked, tmp_path):
    """A copy of the file to change."""
    return Path(shutil.copy(unpacked("siesta/graphene") / "siesta_2.nc", tmp_path))


def rewritten(path, **changes):
    """The same data without compression; changes: function of the data by name, `/` written `__`, None to leave out."""
    with h5py.File(path) as old:
        data, attributes = {}, {}

        def keep(name, item):
            attributes[name] = {key: item.attrs[key] for key in item.attrs if key in ATTRIBUTES}
            if isinstance(item, h5py.Dataset):
                data[name] = item[()]

        old.visititems(keep)
    with h5py.File(path, "w") as new:
        for name, value in data.items():
            change = changes.pop(name.replace("/", "__"), lambda value: value)
            if (value := change(value)) is not None:
                new[name] = value
        for name, values in attributes.items():
            if name in new:
                new[name].attrs.update(values)
    assert not changes
    return path


ATTRIBUTES = ("ID", "Label", "Element", "Atomic_number", "Valence_charge")


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)
    return path


# real files


def test_graphene(unpacked):
    material = read_siesta(unpacked("siesta/graphene"), matrices=DENSITY)
    assert material.elements == ["C", "C"]
    assert material.spin is SpinMode.NONE
    basis = material.basis["C"]
    assert (basis.shells, basis.valence_electrons) == ((0, 1, 2), 4)
    assert basis.cutoff_radius == pytest.approx(2.577251, abs=1e-6)
    assert material.structure.get_distance(0, 1) == pytest.approx(1.44, abs=1e-8)  # as set in the run's input
    np.testing.assert_allclose(material.structure.lattice.abc, [1.44 * 3**0.5, 1.44 * 3**0.5, 14.4], atol=1e-6)
    assert material.electrons == 8
    assert material.fermi_level == pytest.approx(-0.42276377051432124 * SIESTA_RYDBERG_EV)
    assert material.converged is None
    assert len(material.position) == 0
    assert material.density[0].entries @ material.overlap.entries == pytest.approx(8, abs=1e-9)
    assert material.provenance["code"] == "SIESTA"
    assert material.provenance["hermiticity_violation"]["hamiltonian"] < 1e-8
    assert read_siesta(unpacked("siesta/graphene")).density == ()


def test_a_molecule_at_gamma(unpacked):
    material = read_siesta(unpacked("siesta/water"), matrices=DENSITY)
    assert material.elements == ["O", "H", "H"]
    assert material.basis.describe() == "O s1p1d1, H s1p1"
    assert (material.overlap.pairs[:, :3] == 0).all()
    assert material.electrons == pytest.approx(8)
    assert sum(material.basis[element].valence_electrons for element in material.elements) == 8


def test_a_run_is_found_by_its_content(unpacked, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with h5py.File(run / "C.ion.nc", "w") as file:
        file["orb"] = np.zeros(3)
    (run / "DM.nc").write_bytes(b"CDF\1")
    assert detect(run) is None
    shutil.copy(unpacked("siesta/graphene") / "siesta_2.nc", run / "any.thing.nc")
    assert detect(run) == "siesta"
    assert [found.kind for found in find_runs([str(tmp_path)])] == ["siesta"]
    assert_same_matrices(read_material(run, matrices=DENSITY), read_siesta(run / "any.thing.nc", matrices=DENSITY))
    shutil.copy(run / "any.thing.nc", run / "b.nc")
    with pytest.raises(ReadError, match=r"several runs \(any\.thing\.nc, b\.nc\)"):
        read_material(run)
    with pytest.raises(ReadError, match=r"CDF\.Save true"):
        read_siesta(tmp_path)


# other layouts of real data


def test_shells_in_another_order(graphene):
    """SIESTA lists polarisation orbitals last: s, d, and then the p that polarise s. Here d, s, p."""
    material = read_siesta(graphene, matrices=DENSITY)
    order = np.array([4, 5, 6, 7, 8, 0, 1, 2, 3])
    place = np.concatenate([order, order + 9])  # old number of each new orbital
    with h5py.File(graphene) as file:
        starts = np.concatenate([[0], np.cumsum(file["SPARSE/n_col"][:])])
    elements = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in place])

    def columns(old):
        cell, column = np.divmod(old - 1, 18)
        return (cell * 18 + np.argsort(place)[column] + 1)[elements]

    rewritten(
        graphene,
        SPARSE__n_col=lambda old: old[place],
        SPARSE__list_col=columns,
        **{f"SPARSE__{name}": lambda old: old[..., elements] for name in ("S", "H", "DM")},
        **{f"BASIS__C__{name}": lambda old: old[[2, 0, 1]] for name in ("orbnl_l", "cutoff")},
    )
    again = read_siesta(graphene, matrices=DENSITY)
    assert again.basis == material.basis
    assert_same_matrices(again, material)


def collinear(path, levels=(-0.4,)):
    def channels(values):
        return np.concatenate([0.75 * values, 0.25 * values])

    return rewritten(path, SPARSE__H=channels, SPARSE__DM=channels, Ef=lambda _: np.array(levels))


def test_collinear_spin(graphene):
    plain = read_siesta(graphene, matrices=DENSITY)
    material = read_siesta(collinear(graphene), matrices=DENSITY)
    assert material.spin is SpinMode.COLLINEAR
    for factor, up_or_down in [(0.75, 0), (0.25, 1)]:
        for kind in ("hamiltonian", "density"):
            entries = getattr(material, kind)[up_or_down].entries
            np.testing.assert_allclose(entries, factor * getattr(plain, kind)[0].entries, atol=1e-12)
    assert material.fermi_level == -0.4 * SIESTA_RYDBERG_EV


def test_a_fixed_spin_moment_has_two_fermi_levels(graphene):
    material = read_siesta(collinear(graphene, levels=(-0.4, -0.5)))
    assert material.fermi_level is None
    assert "up and down are -5.442320 and -6.802900 eV" in material.provenance["remarks"][0]


def test_the_overlap_alone(graphene):
    material = read_siesta(rewritten(graphene, SPARSE__H=lambda _: None, SPARSE__DM=lambda _: None), matrices=DENSITY)
    assert material.hamiltonian == material.density == ()
    assert material.spin is SpinMode.NONE


def two_kinds(path):
    """The second carbon as a species of its own."""
    rewritten(path, BASIS__basis=lambda _: np.array([1, 2]))

    def change(file):
        file.copy("BASIS/C", "BASIS/C_dn")
        file["BASIS/C_dn"].attrs.update({"ID": 2, "Label": np.bytes_("C_dn")})

    return edit(path, change)


def test_two_kinds_of_one_element(graphene):
    material = read_siesta(two_kinds(graphene))
    assert [site.label for site in material.structure] == ["C", "C_dn"]
    assert list(material.basis) == ["C"]
    edit(graphene, lambda file: file["BASIS/C_dn"].attrs.update({"Label": "C_down", "Element": "C"}))  # of any length
    assert read_siesta(graphene).structure[1].label == "C_down"
    edit(graphene, lambda file: file["BASIS/C_dn/cutoff"].write_direct(np.array([4.0, 4.8, 4.8])))
    with pytest.raises(ReadError, match="different orbitals under different labels"):
        read_siesta(graphene)


# what is refused


def one_changed(place, value):
    def change(values):
        values = values.copy()
        values[place] = value
        return values

    return change


def repeated(times):
    return lambda values: np.repeat(values, times, axis=0)


REFUSED = {
    "noncollinear": ({"SPARSE__H": repeated(4), "SPARSE__DM": repeated(4)}, "noncollinear runs of SIESTA"),
    "spin-orbit": ({"SPARSE__H": repeated(8), "SPARSE__DM": repeated(4)}, "noncollinear runs of SIESTA"),
    "three components": ({"SPARSE__H": repeated(3), "SPARSE__DM": repeated(3)}, "3 spin components"),
    "spins that differ": ({"SPARSE__DM": repeated(2)}, "1 and 2 spin components"),
    "folded": ({"cell": one_changed((2, 2), 12.0)}, "lattice vector 3 .* ForceAuxCell"),
    "flat": ({"cell": one_changed((2, 2), 0.0)}, "no volume"),
    "atom elsewhere": ({"xa": one_changed((1, 0), 22.0)}, "longer than orbitals"),
    "basis of no atom": ({"BASIS__basis": one_changed(0, 7)}, "no basis of the species 7"),
    "other orbitals": ({"BASIS__C__orbnl_l": one_changed(2, 1)}, "not those of their basis"),
    "negative degree": ({"BASIS__C__orbnl_l": one_changed(2, -2)}, "degree below 0"),
    "no end": ({"BASIS__C__cutoff": one_changed(1, 0.0)}, "should end somewhere"),
    "cells twice": ({"SPARSE__isc_off": one_changed(3, [1, 0, 0])}, "isc_off"),
    "cells outside": ({"SPARSE__isc_off": one_changed(3, [9, 0, 0])}, "isc_off"),
    "counts": ({"SPARSE__n_col": one_changed(3, 332)}, "n_col"),
    "negative counts": ({"SPARSE__n_col": lambda n: n * [-1, *[1] * 16, 3]}, "n_col"),
    "column 0": ({"SPARSE__list_col": one_changed(5, 0)}, "list_col"),
    "column beyond": ({"SPARSE__list_col": one_changed(5, 451)}, "list_col"),
    "column twice": ({"SPARSE__list_col": lambda c: one_changed(5, c[6])(c)}, "given twice"),
    "elements lacking": ({"SPARSE__S": lambda s: s[:-1]}, "SPARSE/S"),
    "not finite": ({"SPARSE__H": one_changed((0, 8), np.nan)}, "not finite"),
    "not Hermitian": ({"SPARSE__H": one_changed((0, 1), 0.5)}, "not Hermitian"),
    "too large": ({"SPARSE__H": one_changed((0, 0), 1e9)}, "element of 1e"),
    "not normalised": ({"SPARSE__S": lambda s: 2 * s}, "diagonal elements other than 1"),
    "other density": ({"SPARSE__DM": lambda d: 2 * d}, "holds 16 electrons"),
    "no electrons": ({"Qtot": lambda _: np.zeros(1)}, "0 electrons"),
    "impossible Fermi level": ({"Ef": lambda _: np.array([1e308])}, "Fermi level is 1e\\+308 Ry"),
    "three Fermi levels": ({"Ef": lambda _: np.zeros(3)}, "3 Fermi levels"),
    "no Fermi level": ({"Ef": lambda _: None}, "lacks something"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_cannot_be_used_are_refused(graphene, case):
    changes, message = REFUSED[case]
    rewritten(graphene, **changes)
    with pytest.raises(ReadError, match=message) as error:
        read_siesta(graphene, matrices=DENSITY)
    assert str(graphene) in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Atomic_number", -6, "ghost atoms"),
        ("Atomic_number", 206, "the symbol 'C' and the atomic number 206"),
        ("Atomic_number", 7, "the symbol 'C' and the atomic number 7"),
        ("Atomic_number", "six", "Atomic_number of /BASIS/C is 'six'"),
        ("Atomic_number", h5py.Empty("i8"), "Atomic_number of /BASIS/C is"),
        ("Element", "Cc", "the symbol 'Cc' and the atomic number 6"),
        ("Element", h5py.Empty("f8"), "Element of /BASIS/C is"),
        ("Label", np.zeros(2), r"Label of /BASIS/C is \[0.0, 0.0\]"),
        ("Valence_charge", np.nan, "nan valence electrons of 6"),
        ("Valence_charge", 7.0, "7 valence electrons of 6"),
    ],
)
def test_species_that_cannot_be_are_refused(graphene, name, value, message):
    edit(graphene, lambda file: file["BASIS/C"].attrs.create(name, value))
    with pytest.raises(ReadError, match=message):
        read_siesta(graphene)


# damage


@pytest.mark.parametrize("layout", ["compressed", "plain"])
def test_damaged_files(graphene, layout):
    if layout == "plain":
        rewritten(graphene)

    def read(path):
        return read_siesta(path, matrices=DENSITY)

    path, good, whole = graphene, read(graphene), graphene.read_bytes()
    for damaged in cut(whole, seed=1, count=40):
        path.write_bytes(damaged)
        assert outcome(read, path) is None
    for damaged in [b"", bytes(5000), np.random.default_rng(3).bytes(5000)]:
        path.write_bytes(damaged)
        assert outcome(read, path) is None
    for damaged in flipped(whole, seed=2, count=120):
        path.write_bytes(damaged)
        material = outcome(read, path)
        if material is None:
            continue
        assert material.elements == good.elements
        for kind in ("hamiltonian", "density"):
            (own,), (expected,) = getattr(material, kind), getattr(good, kind)
            np.testing.assert_array_equal(own.pairs, expected.pairs)
            assert (own.entries != expected.entries).sum() <= 2
