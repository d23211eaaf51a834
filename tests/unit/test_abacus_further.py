"""Density and position matrices of ABACUS: real H and S, and what follows from them, in the layouts of its files."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from abacus_layout import FE_CELL, SI2_CELL
from abacus_writer import Matrix, binary, dense, newer_text, older_text, position_text
from damage import cut, flipped, outcome
from deeph_tracegrad.blocks import BlockMatrix, dense_at_k
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.reader import read_abacus

LATTICE = {
    "si2": np.array([[0, 2.715, 2.715], [2.715, 0, 2.715], [2.715, 2.715, 0]]),
    "bi_soc": np.array([[4.34, 0, 0], [-2.17, 3.758550252, 0], [0, 0, 16]]),
}
POSITIONS = {"si2": [[0, 0, 0], [0.25, 0.25, 0.25]], "bi_soc": [[1 / 3, 2 / 3, 0.445625], [2 / 3, 1 / 3, 0.554375]]}
CONSTANT, BOHR = 1.8897259886, 0.529177
LEVEL = {"si2": 0.507, "fe_nspin2": 1.7503}  # Ry; silicon's is in its gap
RYDBERG = 13.605698
MESH = np.stack(np.meshgrid(*[np.arange(3) / 3] * 3), axis=-1).reshape(-1, 3)


def at_k(matrix: Matrix, k: np.ndarray) -> np.ndarray:
    return sum(np.exp(2j * np.pi * np.dot(k, cell)) * array for cell, array in matrix.items())


def occupations(energies: np.ndarray, level: float, width: float = 5e-4) -> np.ndarray:
    return 1 / (1 + np.exp(np.clip((energies - level) / width, -500, 500)))


def filled(hamiltonian: Matrix, overlap: Matrix, level: float, spins: int) -> tuple[Matrix, float]:
    """D(R) with the states of H filled to a level (Ry), in the order of H's file; and the sum of their energies."""
    density = {cell: np.zeros_like(array) for cell, array in hamiltonian.items()}
    energy = 0.0
    for k in MESH:
        energies, states = scipy.linalg.eigh(at_k(hamiltonian, k), at_k(overlap, k))
        filling = spins * occupations(energies, level) / len(MESH)
        energy += filling @ energies
        own = states * filling @ states.conj().T
        for cell in density:
            density[cell] += (np.exp(-2j * np.pi * np.dot(k, cell)) * own).real
    return density, energy


def trace(density: BlockMatrix, other: BlockMatrix) -> float:
    """Σ D_ij(R) A_ij(R): the expectation value of A."""
    return float(np.vdot(other.entries, density.on_pairs(other.pairs).entries))


@pytest.mark.parametrize("layout", ["older", "newer", "IONIC_STEP"])
@pytest.mark.parametrize("case", ["si2", "fe_nspin2"])
def test_a_density_matrix_gives_back_electrons_and_energy(copy_of, case, layout):
    run = copy_of(f"abacus/{case}")
    output = run / "OUT.ABACUS"
    spins = 1 if case == "fe_nspin2" else 2
    overlap = dense(output / "data-SR-sparse_SPIN0.csr")
    level = LEVEL[case]
    energies = []
    for place, path in enumerate(sorted(output.glob("data-HR-*.csr"))):
        density, energy = filled(dense(path), overlap, level, spins)
        energies.append(energy * RYDBERG)
        if layout == "newer":
            cell = SI2_CELL if case == "si2" else FE_CELL
            (output / f"dmrs{place + 1}_nao.csr").write_text(newer_text("DM", density, cell))
        else:
            name = f"data-DMR-sparse_SPIN{place}.csr" if layout == "older" else f"dmrs{place + 1}_nao.csr"
            text = older_text("DM", density)
            (output / name).write_text(text if layout == "older" else text.replace("STEP: 0", "IONIC_STEP: 1"))
    held = sum(float((overlap[cell] * array).sum()) for cell, array in density.items() for _ in [0] if cell in overlap)
    assert held > 1
    number = _electrons(run, overlap, level, spins)
    with (run / "INPUT").open("a") as file:
        file.write(f"nelec {number}\n")
    material = read_abacus(run, matrices=["density"])
    assert len(material.density) == material.spin.channels
    assert sum(trace(own, material.overlap) for own in material.density) == pytest.approx(number, abs=1e-6)
    for own, hamiltonian, energy in zip(material.density, material.hamiltonian, energies, strict=True):
        assert trace(own, hamiltonian) == pytest.approx(energy, abs=1e-5)
    assert material.provenance["hermiticity_violation"]["density"] < 1e-7
    assert len(material.provenance["files"]) == 2 + len(material.hamiltonian) + len(material.density) - 1
    assert read_abacus(run).density == ()


def _electrons(run: Path, overlap: Matrix, level: float, spins: int) -> float:
    """Of the filled states of all channels."""
    total = 0.0
    for path in sorted((run / "OUT.ABACUS").glob("data-HR-*.csr")):
        hamiltonian = dense(path)
        for k in MESH:
            energies = scipy.linalg.eigvalsh(at_k(hamiltonian, k), at_k(overlap, k))
            total += spins * occupations(energies, level).sum() / len(MESH)
    return total


def test_silicon_holds_its_eight_electrons_and_each_entry_stands_in_its_place(copy_of):
    run = copy_of("abacus/si2")
    output = run / "OUT.ABACUS"
    hamiltonian, overlap = (dense(output / f"data-{kind}R-sparse_SPIN0.csr") for kind in "HS")
    density, _ = filled(hamiltonian, overlap, LEVEL["si2"], 2)
    (output / "data-DMR-sparse_SPIN0.csr").write_text(older_text("DM", density))
    material = read_abacus(run, matrices=["density", "position"])
    assert material.position == ()
    (own,) = material.density
    assert trace(own, material.overlap) == pytest.approx(material.electrons, abs=1e-6)
    # the same density from the project's own matrices
    expected = np.zeros((len(MESH), 26, 26), complex)
    for place, k in enumerate(MESH):
        _, states = scipy.linalg.eigh(dense_at_k(material.hamiltonian[0], k), dense_at_k(material.overlap, k))
        expected[place] = 2 * states[:, :4] @ states[:, :4].conj().T
    phases = np.exp(-2j * np.pi * MESH @ own.pairs[:, :3].T)  # (k, E)
    blocks = np.einsum("ke,kab->eab", phases, expected).real / len(MESH)
    for pair, (*_, i, j) in enumerate(own.pairs.tolist()):
        part = blocks[pair, 13 * i : 13 * i + 13, 13 * j : 13 * j + 13]
        np.testing.assert_allclose(own.block(pair), part, rtol=0, atol=2e-7)


def test_symmetry_is_remarked(copy_of):
    run = copy_of("abacus/si2")
    output = run / "OUT.ABACUS"
    hamiltonian, overlap = (dense(output / f"data-{kind}R-sparse_SPIN0.csr") for kind in "HS")
    (output / "data-DMR-sparse_SPIN0.csr").write_text(
        older_text("DM", filled(hamiltonian, overlap, LEVEL["si2"], 2)[0])
    )
    assert read_abacus(run, matrices=["density"]).provenance["remarks"] == []
    text = (run / "INPUT").read_text()
    for symmetry in ("symmetry 1", "symmetry default", ""):
        (run / "INPUT").write_text(text.replace("symmetry                0", symmetry))
        assert "irreducible k-points" in read_abacus(run, matrices=["density"]).provenance["remarks"][0]


def test_a_density_that_does_not_belong_to_the_run_is_refused(copy_of):
    run = copy_of("abacus/si2")
    output = run / "OUT.ABACUS"
    hamiltonian, overlap = (dense(output / f"data-{kind}R-sparse_SPIN0.csr") for kind in "HS")
    density, _ = filled(hamiltonian, overlap, LEVEL["si2"], 2)
    path = output / "data-DMR-sparse_SPIN0.csr"

    path.write_text(older_text("DM", {cell: array / 2 for cell, array in density.items()}))
    with pytest.raises(ReadError, match=r"holds 4 electrons, tr\(D S\), where the run has 8"):
        read_abacus(run, matrices=["density"])

    # read for <i in cell R | j in cell 0>
    turned = {cell: array.T if cell != (0, 0, 0) else array for cell, array in density.items()}
    path.write_text(older_text("DM", turned))
    with pytest.raises(ReadError, match="electrons"):
        read_abacus(run, matrices=["density"])

    lopsided = {**density, (1, 0, 0): density[1, 0, 0] + 0.01}
    path.write_text(older_text("DM", lopsided))
    with pytest.raises(ReadError, match="is not Hermitian"):
        read_abacus(run, matrices=["density"])

    path.write_text(older_text("H", density))
    with pytest.raises(ReadError, match=r"holds the matrix H\(R\) where DM\(R\) was expected"):
        read_abacus(run, matrices=["density"])


def test_a_density_of_one_spin_alone_is_refused(copy_of):
    run = copy_of("abacus/fe_nspin2")
    output = run / "OUT.ABACUS"
    (output / "data-DMR-sparse_SPIN0.csr").write_text(older_text("DM", dense(output / "data-SR-sparse_SPIN0.csr")))
    with pytest.raises(ReadError, match=r"does not go with its DM\(R\) files: data-DMR-sparse_SPIN0\.csr"):
        read_abacus(run, matrices=["density"])


def test_the_density_of_spinors_is_refused_with_the_reason(copy_of):
    run = copy_of("abacus/bi_soc")
    output = run / "OUT.ABACUS"
    real = {cell: array.real for cell, array in dense(output / "data-SR-sparse_SPIN0.csr").items()}
    (output / "dmrs1_nao.csr").write_text(older_text("DM", real))
    with pytest.raises(ReadError, match="with nspin 4 ABACUS writes the real parts"):
        read_abacus(run, matrices=["density"])
    assert read_abacus(run).hamiltonian


def position_of(case: str, overlap: Matrix, seed: int) -> tuple[Matrix, Matrix]:
    """r(R) in bohr with the overlap's pattern: the midpoint times S, and what is random and Hermitian about it."""
    rng = np.random.default_rng(seed)
    lattice = LATTICE[case] * CONSTANT
    origin = np.array(POSITIONS[case]) @ lattice
    rows = next(iter(overlap.values())).shape[0]
    atoms = np.repeat([0, 1], rows // 2)
    spin = np.arange(rows) % (2 if case == "bi_soc" else 1)
    same_spin = spin[:, None] == spin
    centred: Matrix = {}
    for cell, array in overlap.items():
        partner = (-cell[0], -cell[1], -cell[2])
        own = rng.normal(size=(3, *array.shape)) * (abs(array) > 0) * same_spin
        if case == "bi_soc":
            own = np.repeat(np.repeat(own[:, ::2, ::2], 2, axis=1), 2, axis=2) * same_spin
        if partner in centred:
            own = centred[partner].transpose(0, 2, 1)
        elif partner == cell:
            own = (own + own.transpose(0, 2, 1)) / 2
        centred[cell] = own
    whole = {}
    for cell, array in overlap.items():
        middle = (origin[atoms][:, None] + origin[atoms] + np.array(cell) @ lattice) / 2
        whole[cell] = np.moveaxis(middle * array.real[..., None], -1, 0) + centred[cell]
    return whole, centred


# Shells of ABACUS s s p p d as z, -x, -y ...; the project's p is y, z, x.
SILICON_ORDER = [0, 1, 4, 2, 3, 7, 5, 6, 12, 10, 8, 9, 11]
SILICON_SIGN = [1, 1, -1, 1, -1, -1, 1, -1, 1, -1, 1, -1, 1]


@pytest.mark.parametrize("form", ["text", "binary", "newer"])
@pytest.mark.parametrize("case", ["si2", "bi_soc"])
def test_a_position_matrix(copy_of, case, form):
    run = copy_of(f"abacus/{case}")
    output = run / "OUT.ABACUS"
    overlap = dense(output / "data-SR-sparse_SPIN0.csr")
    whole, _ = position_of(case, overlap, 1)
    name = "rr.csr" if form == "newer" else "data-rR-sparse.csr"
    if form == "binary":
        (output / name).write_bytes(binary(whole, pointer="<i4", empty_pointers=False))
    else:
        (output / name).write_text(position_text(whole))
    material = read_abacus(run, matrices=["position"])
    assert material.density == ()
    assert material.provenance["hermiticity_violation"]["position"] < 1e-5
    step = 2 if case == "bi_soc" else 1
    size = len(next(iter(overlap.values()))) // 2 // step
    order = SILICON_ORDER if case == "si2" else _order(material.basis["Bi"].shells)
    sign = SILICON_SIGN if case == "si2" else _sign(material.basis["Bi"].shells)
    for axis, component in enumerate(material.position):
        assert component.sizes.tolist() == [size, size]
        for pair, (*cell, i, j) in enumerate(component.pairs.tolist()):
            array = whole[tuple(cell)][axis][::step, ::step] * BOHR
            block = array[size * i : size * i + size, size * j : size * j + size]
            expected = block[np.ix_(order, order)] * np.outer(sign, sign)
            np.testing.assert_allclose(component.block(pair), expected, rtol=0, atol=2e-7)
    assert read_abacus(run).position == ()


def _order(shells) -> list[int]:
    """Where the project's orbitals stand in ABACUS' order 0, 1, -1, 2, -2, ..."""
    order, start = [], 0
    for degree in shells:
        places = {0: 0, **{m: 2 * m - 1 for m in range(1, degree + 1)}, **{-m: 2 * m for m in range(1, degree + 1)}}
        order += [start + places[m] for m in range(-degree, degree + 1)]
        start += 2 * degree + 1
    return order


def _sign(shells) -> list[int]:
    return [(-1) ** abs(m) for degree in shells for m in range(-degree, degree + 1)]


def test_a_position_matrix_that_does_not_fit_is_refused(copy_of):
    run = copy_of("abacus/si2")
    output = run / "OUT.ABACUS"
    overlap = dense(output / "data-SR-sparse_SPIN0.csr")
    whole, centred = position_of("si2", overlap, 2)
    path = output / "data-rR-sparse.csr"

    path.write_text(position_text(centred))  # relative to the atoms
    with pytest.raises(ReadError, match="is not Hermitian"):
        read_abacus(run, matrices=["position"])

    path.write_text(position_text({cell: array * 1e7 for cell, array in whole.items()}))
    with pytest.raises(ReadError, match=r"which no r\(R\) can have"):
        read_abacus(run, matrices=["position"])

    path.write_text(older_text("r", {cell: arrays[0] for cell, arrays in whole.items()}))
    with pytest.raises(ReadError, match="damaged or cut short"):
        read_abacus(run, matrices=["position"])


@pytest.mark.parametrize("kind", ["density", "position"])
@pytest.mark.parametrize("damage", [cut, flipped])
def test_damaged_files_are_refused_or_still_make_sense(copy_of, kind, damage):
    run = copy_of("abacus/si2")
    output = run / "OUT.ABACUS"
    cells = [(0, 0, 0), (-1, 0, 0), (1, 0, 0), (-1, 1, 0), (1, -1, 0)]
    matrices = {}
    for name in "HS":
        path = output / f"data-{name}R-sparse_SPIN0.csr"
        matrices[name] = {cell: array for cell, array in dense(path).items() if cell in cells}
        path.write_text(older_text(name, matrices[name]))
    if kind == "density":
        held = sum(float((array * array).sum()) for array in matrices["S"].values())
        whole = older_text("DM", {cell: 8 / held * array for cell, array in matrices["S"].items()})
        path = output / "data-DMR-sparse_SPIN0.csr"
    else:
        whole = position_text(position_of("si2", matrices["S"], 5)[0])
        path = output / "data-rR-sparse.csr"
    path.write_text(whole)
    expected = read_abacus(run, matrices=[kind])
    refused = 0
    for content in damage(whole.encode(), seed=6, count=60):
        path.write_bytes(content)
        found = outcome(lambda own: read_abacus(own, matrices=[kind]), run)
        refused += found is None
        for own, its in zip(getattr(found, kind, ()), getattr(expected, kind), strict=False):
            np.testing.assert_allclose(own.on_pairs(its.pairs).entries, its.entries, atol=1e-3)
    assert refused > (56 if damage is cut else 10)
