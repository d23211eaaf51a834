"""What ABACUS starts from: against its own files, read as its own reader goes through them, and there and back."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from pymatgen.core import Structure
from scipy.linalg import eigvalsh
from scipy.sparse import csr_matrix

from abacus_writer import dense
from deeph_tracegrad.blocks import BlockMatrix, dense_at_k
from deeph_tracegrad.deeph_spin import join_spins
from deeph_tracegrad.errors import MismatchError, WriteError
from deeph_tracegrad.orbitals import Basis, OrbitalConvention, OrbitalOrder, SpinMode
from deeph_tracegrad.preprocess.abacus.csr import read_csr
from deeph_tracegrad.preprocess.abacus.geometry import parse_csr_structure
from deeph_tracegrad.preprocess.abacus.layout import Layout
from deeph_tracegrad.preprocess.abacus.reader import read_abacus
from deeph_tracegrad.preprocess.abacus.stru import read_stru
from deeph_tracegrad.preprocess.abacus.writer import write_abacus
from deeph_tracegrad.units import ABACUS_RYDBERG_EV
from materials import assert_same_matrices, random_material

RUNS = ["si2", "mos2", "fe_nspin2", "bi_soc"]
K = np.array([0.13, -0.29, 0.41])


def lines_as_abacus_reads_them(path, *, tolerant):
    """Its csrFileReader: by lines, of 3.9.0.25 and, tolerant of further comments and blank lines, of 3.11 betas."""
    lines = iter(path.read_text().split("\n"))
    assert int(next(lines).split()[3]) == 1
    title, _, _ = (next(lines) for _ in range(3))
    dimension, cells = (int(next(lines).split()[0]) for _ in range(2))
    assert next(lines).strip() == ""
    for _ in range(6):
        next(lines)  # name, constant, three vectors, labels
    atoms = sum(map(int, next(lines).split()))
    for _ in range(atoms + 1):
        next(lines)
    if not tolerant:
        assert [next(lines).strip()[:1] for _ in range(9)] == ["", *"########"]

    def numbers(count, kind):
        found = []
        while len(found) < count:
            found += [kind(word) for word in next(lines).split()]
        assert len(found) == count
        return found

    def value(word):
        return complex(*map(float, word.strip("()").split(","))) if "(" in word else float(word)

    matrices = {}
    for _ in range(cells):
        if tolerant:
            line = next(line for line in lines if line.strip() and line.strip()[0] != "#")
        else:
            assert next(lines) == ""
            line = next(lines)
        *cell, count = map(int, line.split())
        assert count > 0  # the reader would take the next comment for values
        parts = []
        for length, kind in [(count, value), (count, int), (dimension + 1, int)]:
            assert "#" in next(lines)
            parts.append(numbers(length, kind))
        matrices[tuple(cell)] = csr_matrix(tuple(parts), shape=(dimension, dimension)).toarray()
    assert not any(line.strip() for line in lines)
    return title, matrices


def energies(folder, basis, spin):
    """Levels at a k-point from the files alone."""
    geometry = parse_csr_structure(folder, read_csr(folder / "hrs1_nao.csr", "H").header.structure)
    layout = Layout.of(basis, [label[: 2 if label.startswith("Mo") else 1] for label in geometry.labels], spin)
    overlap, _ = layout.overlap(folder, read_csr(folder / "sr_nao.csr", "S"))
    if spin is SpinMode.NONCOLLINEAR:
        overlap = join_spins(overlap, overlap)
    channels = [layout.hermitian(folder, read_csr(path, "H"), "H")[0] for path in sorted(folder.glob("hrs*"))]
    return levels(channels, overlap) * ABACUS_RYDBERG_EV


def levels(channels, overlap):
    """Without asking whether S is positive definite, which that of a random material is not."""
    shifted = dense_at_k(overlap, K) + 100 * np.eye(overlap.sizes.sum())
    return np.array([eigvalsh(dense_at_k(channel, K), shifted) for channel in channels])


@pytest.mark.parametrize("name", RUNS)
def test_a_run_comes_back_to_the_last_bit(copy_of, tmp_path, name):
    run = copy_of(f"abacus/{name}")
    original = read_abacus(run)
    write_abacus(original, tmp_path / "out")
    for path in (run / "OUT.ABACUS").glob("data-*"):
        path.unlink()
    for path in (tmp_path / "out").glob("*.csr"):
        shutil.copy(path, run / "OUT.ABACUS")
    assert_same_matrices(original, read_abacus(run))
    shutil.copy(tmp_path / "out" / "STRU", run)
    again = read_abacus(run)
    assert_same_matrices(original, again)
    assert (again.basis, again.structure.labels) == (original.basis, original.structure.labels)
    for one, other in [
        (again.structure.frac_coords, original.structure.frac_coords),
        (again.structure.lattice.matrix, original.structure.lattice.matrix),
    ]:
        np.testing.assert_allclose(one, other, rtol=1e-15, atol=0)


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("name", RUNS)
def test_abacus_own_file_entry_for_entry(unpacked, tmp_path, name, tolerant):
    """No entry more or less; both halves of a Hermitian pair are their mean, which moves the tiniest parts."""
    run = unpacked(f"abacus/{name}")
    write_abacus(read_abacus(run), tmp_path / "out")
    names = {
        "hrs1_nao.csr": "data-HR-sparse_SPIN0.csr",
        "hrs2_nao.csr": "data-HR-sparse_SPIN1.csr",
        "sr_nao.csr": "data-SR-sparse_SPIN0.csr",
    }
    for ours, theirs in names.items():
        assert (tmp_path / "out" / ours).exists() == (run / "OUT.ABACUS" / theirs).exists()
        if not (tmp_path / "out" / ours).exists():
            continue
        title, matrices = lines_as_abacus_reads_them(tmp_path / "out" / ours, tolerant=tolerant)
        assert f" {ours[0].upper()} " in title
        own = {cell: array for cell, array in dense(run / "OUT.ABACUS" / theirs).items() if array.any()}
        assert set(matrices) == set(own)
        for cell, array in own.items():
            np.testing.assert_array_equal(matrices[cell] != 0, array != 0)
            np.testing.assert_allclose(matrices[cell], array, rtol=5e-16, atol=1e-16)


@pytest.mark.parametrize("spin", list(SpinMode))
def test_any_other_h_within_a_unit_in_the_last_place(tmp_path, spin):
    material = random_material(spin, max_degree=3)
    write_abacus(material, tmp_path / "out")
    np.testing.assert_allclose(
        energies(tmp_path / "out", material.basis, spin), levels(material.hamiltonian, spinful(material)), rtol=1e-12
    )
    channel = material.hamiltonian[0]
    layout = Layout.of(material.basis, material.elements, spin)
    again = layout.blocks(tmp_path, read_csr(tmp_path / "out" / "hrs1_nao.csr", "H"), "H").on_pairs(channel.pairs)
    for part in (np.real, np.imag):
        read, own = part(again.entries) * ABACUS_RYDBERG_EV, part(channel.entries)
        assert (abs(read - own) <= np.spacing(abs(own))).all()


def spinful(material):
    overlap = material.overlap
    return join_spins(overlap, overlap) if material.spin is SpinMode.NONCOLLINEAR else overlap


def test_atoms_are_counted_from_within_the_cell(tmp_path):
    material = random_material(SpinMode.NONE)
    write_abacus(material, tmp_path / "out")
    geometry = read_stru(tmp_path / "out" / "STRU")
    assert ((geometry.fractional >= 0) & (geometry.fractional < 1)).all()
    header = read_csr(tmp_path / "out" / "hrs1_nao.csr", "H").header.structure
    np.testing.assert_array_equal(parse_csr_structure(tmp_path, header).fractional, geometry.fractional)
    # The same crystal, with each atom named in another cell.
    shifts = np.array([[2, 0, -1], [0, 0, 0], [-1, 3, 0]])
    structure = material.structure
    moved = replace(
        material,
        structure=Structure(structure.lattice, structure.species, structure.frac_coords + shifts),
        overlap=shifted(material.overlap, shifts),
        hamiltonian=tuple(shifted(channel, shifts) for channel in material.hamiltonian),
    )
    write_abacus(moved, tmp_path / "moved")
    for name in ("hrs1_nao.csr", "sr_nao.csr"):
        one, other = (lines_as_abacus_reads_them(tmp_path / out / name, tolerant=False)[1] for out in ("out", "moved"))
        assert set(one) == set(other)
        for cell in one:
            np.testing.assert_array_equal(one[cell], other[cell])


def shifted(matrix: BlockMatrix, shifts):
    pairs = matrix.pairs.copy()
    pairs[:, :3] -= shifts[pairs[:, 4]] - shifts[pairs[:, 3]]
    return BlockMatrix.of(pairs, matrix.entries, matrix.sizes)


def test_species_are_put_together_and_said_so(tmp_path, capsys):
    material = random_material(SpinMode.NONCOLLINEAR)
    write_abacus(material, tmp_path / "grouped")
    assert capsys.readouterr().err == ""
    write_abacus(material.permuted(np.array([1, 0, 2])), tmp_path / "mixed")
    assert "they now come as S, Mo" in capsys.readouterr().err
    assert read_stru(tmp_path / "mixed" / "STRU").labels == ("S", "S", "Mo")
    one, other = (energies(tmp_path / out, material.basis, material.spin) for out in ("grouped", "mixed"))
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_labels_are_species_as_abacus_names_them(tmp_path):
    material = random_material(SpinMode.NONE)
    for labels, expected in [
        (["Mo", "S_up", "S_dn"], ("Mo", "S_up", "S_dn")),
        (["Mo1", "S1", "S1"], ("Mo1", "S1", "S1")),
        (["top", "S a", "Se"], ("Mo", "S", "S")),  # no label of these elements
    ]:
        structure = material.structure
        structure = Structure(structure.lattice, structure.species, structure.frac_coords, labels=labels)
        write_abacus(replace(material, structure=structure), tmp_path / "out")
        assert read_stru(tmp_path / "out" / "STRU").labels == expected


def test_the_inverse_of_an_order():
    order = OrbitalOrder(np.array([2, 0, 3, 1]), np.array([1.0, -1.0, -1.0, 1.0]))
    old = np.array([5.0, 6.0, 7.0, 8.0])
    new = order.sign * old[order.index]
    np.testing.assert_array_equal(order.inverse.sign * new[order.inverse.index], old)
    basis = random_material(SpinMode.NONE, max_degree=3).basis["Mo"]
    there = basis.order(OrbitalConvention.DEEPH, OrbitalConvention.ABACUS)
    back = basis.order(OrbitalConvention.ABACUS, OrbitalConvention.DEEPH).inverse
    np.testing.assert_array_equal(there.index, back.index)
    np.testing.assert_array_equal(there.sign, back.sign)


def labelled(material, label):
    bases = {element: replace(basis, label=label) for element, basis in material.basis.items()}
    return replace(material, basis=Basis.of(bases))


def test_what_abacus_cannot_start_from_is_refused(tmp_path):
    material = random_material(SpinMode.NONE)
    source = {"source": "runs/a"}
    refused = [
        (material.with_hamiltonian(()), "runs/a: holds no Hamiltonian"),
        (replace(material, provenance={"code": "OpenMX"}), "orbitals of OpenMX"),
        (replace(material, provenance={"code": "DeepH", "origin": {"code": "SIESTA"}}), "orbitals of SIESTA"),
        (labelled(material, "S7.0-s2p2"), "orbitals S7.0-s2p2 of OpenMX"),
    ]
    for one, message in refused:
        with pytest.raises(MismatchError, match=message):
            write_abacus(replace(one, provenance=source | dict(one.provenance)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    write_abacus(labelled(material, "S_gga_7au_100Ry_2s2p1d.orb"), tmp_path / "out")
    assert "S_gga_7au_100Ry_2s2p1d.orb" in (tmp_path / "out" / "STRU").read_text()


def test_nothing_half_written_remains(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deeph_tracegrad.preprocess.abacus.writer.write_csr", fail)
    with pytest.raises(WriteError, match="No space"):
        write_abacus(random_material(SpinMode.NONE), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
