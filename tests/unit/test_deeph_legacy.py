"""The legacy DeepH format: against files of DeepH-E3 and of OpenMX, round trips, local coordinates, damage."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from damage import cut, flipped, outcome
from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.deeph_format import read_deeph
from deeph_tracegrad.deeph_legacy import read_deeph_legacy, write_deeph_legacy
from deeph_tracegrad.deeph_spin import join_spins
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.frames import rotation_matrices, spin_rotation
from deeph_tracegrad.legacy_frames import legacy_frames
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode

LEGACY = Path(__file__).parents[1] / "data" / "deeph_legacy"
CASES = ["graphene", "mos2", "fe_bcc_spin", "bi_soc"]

# From the legacy order of one shell to the project's: new = old[index]
TO_OURS = {0: [0], 1: [1, 2, 0], 2: [2, 4, 0, 3, 1]}


@pytest.fixture(params=CASES)
def material(request, unpacked):
    """In the legacy format's reach: every spin mode, one and two elements."""
    return read_deeph(unpacked(f"openmx/{request.param}") / "deeph_dock")


@pytest.fixture
def graphene(tmp_path):
    """A copy to damage."""
    return shutil.copytree(LEGACY / "graphene", tmp_path / "graphene")


def order_of(shells, components=1):
    """Gather index of one atom, from a literal table."""
    index, start = [], 0
    for degree in list(shells) * components:
        index += [start + place for place in TO_OURS[degree]]
        start += 2 * degree + 1
    return np.array(index)


def blocks_by_hand(path, material, components=1):
    """The blocks of a file in the project's order, by a plain loop: (R1, R2, R3, i, j) -> block."""
    orders = [order_of(material.basis[element].shells, components) for element in material.elements]
    blocks = {}
    with h5py.File(path) as file:
        for name in file:
            x, y, z, i, j = json.loads(name)
            blocks[x, y, z, i - 1, j - 1] = file[name][()][orders[i - 1]][:, orders[j - 1]]
    return blocks


def test_overlap_of_deeph_e3s_input_is_that_of_the_openmx_run(unpacked):
    """The same run came here over two roads: legacy files of one, DeepH-dock's files of the other."""
    legacy, current = read_deeph_legacy(LEGACY / "graphene"), read_deeph(unpacked("openmx/graphene") / "deeph_dock")
    assert legacy.basis == current.basis
    assert legacy.spin is SpinMode.NONE
    assert legacy.hamiltonian == ()
    assert legacy.fermi_level is None
    np.testing.assert_allclose(legacy.structure.lattice.matrix, current.structure.lattice.matrix, atol=1e-12)
    np.testing.assert_allclose(legacy.structure.cart_coords, current.structure.cart_coords, atol=1e-12)
    ours = current.overlap.on_pairs(legacy.overlap.pairs)
    assert len(legacy.overlap) == len(current.overlap)
    np.testing.assert_allclose(legacy.overlap.entries, ours.entries, rtol=0, atol=1e-7)  # rounded to float32 there


def test_prediction_of_deeph_e3_with_spin_orbit():
    material = read_deeph_legacy(LEGACY / "bismuth")
    assert material.spin is SpinMode.NONCOLLINEAR
    assert material.basis["Bi"].shells == (0, 1, 2)
    assert material.provenance["files"] == {"overlap": "overlaps.h5", "hamiltonian": "hamiltonians_pred.h5"}
    assert material.provenance["hermiticity_violation"]["hamiltonian"] > 1  # of a network that is not Hermitian
    by_hand = blocks_by_hand(LEGACY / "bismuth" / "hamiltonians_pred.h5", material, components=2)
    (hamiltonian,) = material.hamiltonian
    assert len(by_hand) == len(hamiltonian)
    for place, (x, y, z, i, j) in enumerate(hamiltonian.pairs.tolist()):
        expected = (by_hand[x, y, z, i, j] + by_hand[-x, -y, -z, j, i].conj().T) / 2
        np.testing.assert_allclose(hamiltonian.block(place), expected, rtol=0, atol=1e-14)


def test_round_trip_is_exact(material, tmp_path):
    bases = {element: replace(basis, cutoff_radius=3.5, label="x") for element, basis in material.basis.items()}
    material = replace(material, basis=Basis.of(bases), electrons=8.0, converged=True)
    write_deeph_legacy(material, tmp_path / "out")
    again = read_deeph_legacy(tmp_path / "out")
    for name in ("elements", "basis", "spin", "fermi_level", "electrons", "converged"):
        assert getattr(again, name) == getattr(material, name)
    np.testing.assert_array_equal(again.structure.lattice.matrix, material.structure.lattice.matrix)
    np.testing.assert_allclose(again.structure.cart_coords, material.structure.cart_coords, rtol=0, atol=1e-14)
    for left, right in zip([again.overlap, *again.hamiltonian], [material.overlap, *material.hamiltonian], strict=True):
        assert left.entries.dtype == right.entries.dtype
        np.testing.assert_array_equal(left.pairs, right.pairs)
        np.testing.assert_array_equal(left.entries, right.entries)


def test_files_as_other_programs_read_them(material, tmp_path):
    write_deeph_legacy(material, tmp_path / "out")
    structure = material.structure
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "out" / "lat.dat"), structure.lattice.matrix.T)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "out" / "site_positions.dat"), structure.cart_coords.T)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "out" / "element.dat"), structure.atomic_numbers)
    product = structure.lattice.matrix @ np.loadtxt(tmp_path / "out" / "rlat.dat")
    np.testing.assert_allclose(product, 2 * np.pi * np.eye(3), atol=1e-12)
    lines = (tmp_path / "out" / "orbital_types.dat").read_text().splitlines()
    assert lines == [" ".join(map(str, material.basis[element].shells)) for element in material.elements]
    info = json.loads((tmp_path / "out" / "info.json").read_text())
    spinful = material.spin is not SpinMode.NONE
    assert info["isspinful"] is spinful
    assert info["fermi_level"] == material.fermi_level
    overlaps = blocks_by_hand(tmp_path / "out" / "overlaps.h5", material)
    hamiltonians = blocks_by_hand(tmp_path / "out" / "hamiltonians.h5", material, 2 if spinful else 1)
    whole = join_spins(*material.hamiltonian) if material.spin is SpinMode.COLLINEAR else material.hamiltonian[0]
    for blocks, matrix in [(overlaps, material.overlap), (hamiltonians, whole)]:
        assert len(blocks) == len(matrix)
        for place, pair in enumerate(matrix.pairs.tolist()):
            np.testing.assert_array_equal(blocks[tuple(pair)], matrix.block(place))
    assert {block.dtype for block in hamiltonians.values()} == {np.dtype(complex if spinful else float)}


def test_collinear_without_our_key_is_noncollinear(unpacked, tmp_path):
    write_deeph_legacy(read_deeph(unpacked("openmx/fe_bcc_spin") / "deeph_dock"), tmp_path / "out")
    (tmp_path / "out" / "info.json").write_text('{"isspinful": true}')
    assert read_deeph_legacy(tmp_path / "out").spin is SpinMode.NONCOLLINEAR


@pytest.mark.parametrize("case", ["graphene", "bi_soc"])
def test_without_info_the_blocks_tell_the_spin(unpacked, tmp_path, case):
    material = read_deeph(unpacked(f"openmx/{case}") / "deeph_dock")
    write_deeph_legacy(material, tmp_path / "out")
    (tmp_path / "out" / "info.json").unlink()
    assert read_deeph_legacy(tmp_path / "out").spin is material.spin


# local coordinates


def test_local_coordinates_rotate_back_to_h(material, tmp_path):
    write_deeph_legacy(material, tmp_path / "out", local_coordinates=True)
    components = 1 if material.spin is SpinMode.NONE else 2
    whole = join_spins(*material.hamiltonian) if material.spin is SpinMode.COLLINEAR else material.hamiltonian[0]
    vectors = material.pair_vectors(whole.pairs)
    local = blocks_by_hand(tmp_path / "out" / "rh.h5", material, components)
    with h5py.File(tmp_path / "out" / "rc.h5") as file:
        assert len(file) == len(local) == len(whole)
        axes = {tuple(np.array(json.loads(name)) - [0, 0, 0, 1, 1]): file[name][()] for name in file}
    for place, pair in enumerate(whole.pairs.tolist()):
        columns = axes[tuple(pair)]
        np.testing.assert_allclose(columns.T @ columns, np.eye(3), atol=1e-14)
        assert np.linalg.det(columns) > 0
        length = np.linalg.norm(vectors[place])
        if length > 0:
            np.testing.assert_allclose(columns[:, 0], vectors[place] / length, atol=1e-13)
        turns = [atom_turn(material, atom, columns.T, components) for atom in pair[3:]]
        back = turns[0].conj().T @ local[tuple(pair)] @ turns[1]
        np.testing.assert_allclose(back, whole.block(place), rtol=0, atol=1e-13 * abs(whole.entries).max())


def atom_turn(material, atom, rotation, components):
    """From global to local coefficients of one atom's orbitals and spinors; rows of the rotation are the local axes."""
    shells = material.basis[material.elements[atom]].shells
    turns = [rotation_matrices(degree, rotation[None])[0] for degree in shells]
    size = sum(len(turn) for turn in turns)
    whole, start = np.zeros((size, size)), 0
    for turn in turns:
        whole[start : start + len(turn), start : start + len(turn)] = turn
        start += len(turn)
    return np.kron(spin_rotation(rotation[None])[0], whole) if components == 2 else whole


def test_frames_follow_the_rule_atom_by_atom(unpacked):
    """Against a loop over pairs and sorted neighbours, as the rule is told."""
    material = read_deeph(unpacked("openmx/mos2") / "deeph_dock")
    pairs = material.overlap.pairs
    vectors = material.pair_vectors(pairs)
    species = material.basis.species(material.elements)
    frames = legacy_frames(vectors, pairs, species)
    distance = np.linalg.norm(vectors, axis=1)
    for place in range(len(pairs)):
        neighbours = [
            other for other in range(len(pairs)) if pairs[other, 3] == pairs[place, 3] and distance[other] > 0
        ]
        neighbours.sort(
            key=lambda n: (round(distance[n], 6), species[pairs[n, 4]], *pairs[n, :3].tolist(), int(pairs[n, 4]))
        )
        bond = vectors[place] if distance[place] > 0 else vectors[neighbours[0]]
        normals = [np.cross(bond, vectors[n]) / np.linalg.norm(bond) / distance[n] for n in neighbours]
        normal = next(normal for normal in normals if np.linalg.norm(normal) > 1e-3)
        first, second = bond / np.linalg.norm(bond), normal / np.linalg.norm(normal)
        expected = np.stack([first, second, np.cross(first, second)])
        np.testing.assert_allclose(frames[place], expected, atol=1e-14)


def test_frames_do_not_depend_on_the_order_of_pairs_and_turn_with_the_structure(unpacked):
    material = read_deeph(unpacked("openmx/bi_soc") / "deeph_dock")
    pairs = material.overlap.pairs
    vectors = material.pair_vectors(pairs)
    species = material.basis.species(material.elements)
    frames = legacy_frames(vectors, pairs, species)
    shuffle = np.random.default_rng(0).permutation(len(pairs))
    np.testing.assert_array_equal(legacy_frames(vectors[shuffle], pairs[shuffle], species), frames[shuffle])
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turn *= np.linalg.det(turn)
    np.testing.assert_allclose(legacy_frames(vectors @ turn.T, pairs, species), frames @ turn.T, atol=1e-12)


def test_a_chain_has_no_local_coordinates(tmp_path):
    pairs = np.array([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [-1, 0, 0, 0, 0], [2, 0, 0, 0, 0], [-2, 0, 0, 0, 0]])
    matrix = BlockMatrix.of(pairs, np.array([1, 0.3, 0.3, 0.1, 0.1]), np.array([1]))
    structure = Structure(Lattice.orthorhombic(1.5, 20, 20), ["H"], [[0, 0, 0]])
    chain = Material(structure, Basis.of({"H": ElementBasis((0,))}), SpinMode.NONE, matrix, (matrix,))
    with pytest.raises(MismatchError, match="atom 1 has no two neighbours in different directions"):
        write_deeph_legacy(chain, tmp_path / "out", local_coordinates=True)
    assert not list(tmp_path.iterdir())
    write_deeph_legacy(chain, tmp_path / "out")
    alone = replace(chain, overlap=matrix.on_pairs(pairs[:1]), hamiltonian=())
    with pytest.raises(MismatchError, match="atom 1"):
        write_deeph_legacy(alone, tmp_path / "alone", local_coordinates=True)


def test_frames_alone_where_there_is_only_an_overlap(tmp_path):
    write_deeph_legacy(read_deeph_legacy(LEGACY / "graphene"), tmp_path / "out", local_coordinates=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"rc.h5", "overlaps.h5"} <= names
    assert not names & {"rh.h5", "hamiltonians.h5"}


# damage

TEXT_DAMAGE = {
    "element.dat": [
        ("6\n6\n", "6\n"),
        ("6\n6\n", "C\nC\n"),
        ("6\n6\n", "6\n0\n"),
        ("6\n6\n", "6\n6"),
        ("6\n6\n", "\n"),
    ],
    "lat.dat": [("20.0000000000000000", "x"), ("20.0000000000000000", "nan"), ("20.0000000000000000", "20 1")],
    "rlat.dat": [("0.3141592653589794", "0.4")],
    "site_positions.dat": [("10.0000000000000000 10.0000000000000000", "10.0"), ("1.2300000000000000", "1.23 4")],
    "orbital_types.dat": [
        ("0  0  1  1  2\n0  0  1  1  2\n", "0 0 1 1 2\n"),
        ("0  0  1  1  2\n0  0  1  1  2\n", "0 0 1 1 2\n0 0 1 1\n"),
        ("0  0  1  1  2\n0  0  1  1  2\n", "0 1 0 1 2\n0 1 0 1 2\n"),
        ("0  0  1  1  2\n0  0  1  1  2\n", "s s p p d\ns s p p d\n"),
        ("0  0  1  1  2\n0  0  1  1  2\n", "0 0 1 1 9\n0 0 1 1 9\n"),
        ("0  0  1  1  2\n0  0  1  1  2\n", "0 0 1 1 1\n0 0 1 1 1\n"),
    ],
    "info.json": [('{"isspinful": false}', "[]"), ('{"isspinful": false}', '{"isspinful": "no"}')],
}


@pytest.mark.parametrize(
    ("name", "old", "new"), [(name, old, new) for name, changes in TEXT_DAMAGE.items() for old, new in changes]
)
def test_inconsistent_text_files_are_refused(graphene, name, old, new):
    text = (graphene / name).read_text()
    assert old in text
    (graphene / name).write_text(text.replace(old, new))
    with pytest.raises(ReadError) as error:
        read_deeph_legacy(graphene)
    assert str(graphene) in str(error.value)


BLOCK_DAMAGE = {
    "no list": ("x", "block names should look like"),
    "four numbers": ("[0, 0, 0, 1]", "block names should look like"),
    "a call": ("[0, 0, 0, 1, __import__('os').getpid()]", "block names should look like"),
    "atom 0": ("[0, 0, 0, 0, 1]", "with 2 atoms"),
    "atom 3": ("[0, 0, 0, 3, 1]", "with 2 atoms"),
    "the same again": ("[0,0,0,1,1]", "twice"),
    "no partner": ("[9, 0, 0, 1, 1]", "have no partner"),
}


@pytest.mark.parametrize("damage", BLOCK_DAMAGE)
def test_impossible_blocks_are_refused(graphene, damage):
    name, message = BLOCK_DAMAGE[damage]
    with h5py.File(graphene / "overlaps.h5", "r+") as file:
        file[name] = np.ones((13, 13))
    with pytest.raises(ReadError, match=message) as error:
        read_deeph_legacy(graphene)
    assert str(graphene / "overlaps.h5") in str(error.value)


@pytest.mark.parametrize("block", [np.ones((13, 12)), np.ones(169), np.ones((13, 13), int), np.full((13, 13), np.nan)])
def test_blocks_of_the_wrong_kind_are_refused(graphene, block):
    with h5py.File(graphene / "overlaps.h5", "r+") as file:
        del file["[0, 0, 0, 1, 2]"]
        file["[0, 0, 0, 1, 2]"] = block
    with pytest.raises(ReadError, match=r"overlaps\.h5"):
        read_deeph_legacy(graphene)


FILES = sorted(path.name for path in (LEGACY / "bismuth").iterdir())


@pytest.fixture
def bismuth(tmp_path):
    """A copy to damage."""
    return shutil.copytree(LEGACY / "bismuth", tmp_path / "bismuth")


@pytest.mark.parametrize("name", FILES)
def test_cut_files_are_refused(bismuth, name):
    whole = (bismuth / name).read_bytes()
    for content in cut(whole, seed=1):
        (bismuth / name).write_bytes(content)
        assert outcome(read_deeph_legacy, bismuth) is None


@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_are_refused_or_change_one_number(bismuth, name):
    good = read_deeph_legacy(bismuth)
    for content in flipped((bismuth / name).read_bytes(), seed=2):
        (bismuth / name).write_bytes(content)
        material = outcome(read_deeph_legacy, bismuth)
        if material is None:
            continue
        changed = 0
        for left, right in zip(
            [good.overlap, *good.hamiltonian], [material.overlap, *material.hamiltonian], strict=True
        ):
            order = [right.pairs.tolist().index(pair) for pair in left.pairs.tolist()]
            assert len(right) == len(left)
            changed += (left.entries != right.on_pairs(right.pairs[order]).entries).sum()
        assert changed <= 2  # an entry and its partner


@pytest.mark.parametrize("name", FILES)
def test_wrong_files_are_refused(bismuth, name):
    contents = [b"", b"\0" * 5000, np.random.default_rng(3).bytes(5000), b"1\n2\n3\n", b"[]\n", b"\n" * 50]
    for content in contents:
        (bismuth / name).write_bytes(content)
        assert outcome(read_deeph_legacy, bismuth) is None
    (bismuth / name).unlink()
    (bismuth / name).mkdir()
    assert outcome(read_deeph_legacy, bismuth) is None
