"""Relaxations and molecular dynamics: each ionic step is a sample with its own matrices, structure and Fermi level."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from abacus_layout import SI2_CELL
from abacus_writer import (
    binary,
    dense,
    lattice_table,
    md_dump,
    moving_log,
    newer_text,
    older_text,
    position_table,
    position_text,
)
from damage import cut, flipped, outcome
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.md_dump import read_md_dump
from deeph_tracegrad.preprocess.abacus.reader import read_abacus
from deeph_tracegrad.preprocess.build import build_dataset
from deeph_tracegrad.preprocess.runs import Run, find_runs, read_material
from deeph_tracegrad.testing.datasets import check_dataset

STEPS = 3
CONSTANT, LATTICE = 1.8897259886, np.array([[0, 2.715, 2.715], [2.715, 0, 2.715], [2.715, 2.715, 0]])
H_NAME, S_NAME = "data-HR-sparse_SPIN0.csr", "data-SR-sparse_SPIN0.csr"
FERMI = [6.5, 6.25, 6.125]


def fractional(step: int) -> np.ndarray:
    """The second atom moves; the first leaves the cell at its lower end and comes back at the upper."""
    return np.array([[0.0, 0, 0], [0.25, 0.25, 0.25 + 0.001 * step]]) + (
        np.array([[0.9999, 0, 0], [0, 0, 0]]) if step else 0
    )


def scaled(matrix: dict, step: int) -> dict:
    return {cell: (1 + step / 4) * array for cell, array in matrix.items()}


class Run3:
    """si2 with three ionic steps: H is 1, 5/4, 6/4 times that of the real run."""

    def __init__(self, run: Path, calculation: str):
        self.run, self.output = run, run / "OUT.ABACUS"
        self.matrices = {"H": dense(self.output / H_NAME), "S": dense(self.output / S_NAME)}
        for name in (H_NAME, S_NAME):
            (self.output / name).unlink()
        self.real_log = (self.output / "running_scf.log").read_text()
        (self.output / "running_scf.log").unlink()
        text = (run / "INPUT").read_text()
        (run / "INPUT").write_text(text.replace("calculation             scf", f"calculation {calculation}"))
        self.calculation = calculation

    def steps(self, kind: str) -> list[dict]:
        return [scaled(self.matrices[kind], step if kind == "H" else 0) for step in range(STEPS)]

    def log(self, headings: list[str], tables: list[str | None]) -> None:
        text = moving_log(self.real_log, headings, FERMI, tables)
        (self.output / f"running_{self.calculation}.log").write_text(text)

    def appended_text(self, steps=range(STEPS)) -> None:
        for kind, name in (("H", H_NAME), ("S", S_NAME)):
            text = "".join(older_text(kind, own, step) for step, own in enumerate(self.steps(kind)) if step in steps)
            (self.output / name).write_text(text)

    def one_file_a_step(self) -> None:
        (self.output / "matrix").mkdir()
        for kind, name in (("H", H_NAME), ("S", S_NAME)):
            for step, own in enumerate(self.steps(kind)):
                (self.output / "matrix" / f"{step}_{name}").write_text(older_text(kind, own, step))

    def newer_text(self, names=("hrs1_nao.csr", "srs1_nao.csr")) -> None:
        for kind, name in zip("HS", names, strict=True):
            for step, own in enumerate(self.steps(kind)):
                atoms = "".join(" " + " ".join(f"{x:.15g}" for x in atom) + "\n" for atom in fractional(step))
                cell = SI2_CELL.replace(" 0 0 0\n 0.25 0.25 0.25\n", atoms).replace(" 1\n", " 1.00001\n", 1)
                with (self.output / name.format(step + 1)).open("a") as file:
                    file.write(newer_text(kind, own, cell, step))

    def binary(self, names=("hrs1_nao.dat", "sr_nao.dat")) -> None:
        for kind, name in zip("HS", names, strict=True):
            for step, own in enumerate(self.steps(kind)):
                with (self.output / name.format(step + 1)).open("ab") as file:
                    file.write(binary(own, step))


@pytest.fixture
def real(unpacked):
    return read_abacus(unpacked("abacus/si2"))


def copied(unpacked, tmp_path, calculation) -> Run3:
    shutil.copytree(unpacked("abacus/si2"), tmp_path / "si2")
    return Run3(tmp_path / "si2", calculation)


@pytest.fixture
def dynamics(unpacked, tmp_path):
    made = copied(unpacked, tmp_path, "md")
    made.log([f"STEP OF MOLECULAR DYNAMICS : {step}" for step in range(STEPS)], [None] * STEPS)
    entries = [md_dump(step, CONSTANT, LATTICE, ["Si", "Si"], fractional(step)) for step in range(STEPS)]
    (made.output / "MD_dump").write_text("".join(entries))
    return made


@pytest.fixture
def relaxation(unpacked, tmp_path):
    made = copied(unpacked, tmp_path, "relax")
    tables = [None, *(position_table(["Si", "Si"], fractional(step)) for step in range(1, STEPS))]
    made.log([f"STEP OF RELAXATION : {step + 1}" for step in range(STEPS)], tables)
    return made


def assert_step(material, real, step, atol=1e-9):
    """atol: Å."""
    assert (material.fermi_level, material.converged) == (FERMI[step], True)
    expected = fractional(step) @ real.structure.lattice.matrix
    np.testing.assert_allclose(material.structure.cart_coords, expected, rtol=0, atol=atol)
    np.testing.assert_allclose(material.structure.lattice.matrix, real.structure.lattice.matrix, rtol=0, atol=atol)
    (own,), (its,) = material.hamiltonian, real.hamiltonian
    np.testing.assert_allclose(own.on_pairs(its.pairs).entries, (1 + step / 4) * its.entries, rtol=2e-8, atol=1e-8)
    assert material.basis == real.basis
    assert material.provenance["source"].endswith(f"si2/step_{step}")


WRITERS = {
    "one text file": Run3.appended_text,
    "a text file a step": Run3.one_file_a_step,
    "one newer file": Run3.newer_text,
    "a newer file a step": lambda made: made.newer_text(("hrs1g{}_nao.csr", "srg{}_nao.csr")),
    "one binary file": Run3.binary,
    "a binary file a step": lambda made: made.binary(("hrs1g{}_nao.dat", "srg{}_nao.dat")),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("calculation", ["dynamics", "relaxation"])
def test_each_step_is_a_sample_of_its_own(request, real, calculation, writer):
    made = request.getfixturevalue(calculation)
    WRITERS[writer](made)
    runs = find_runs([str(made.run)])
    assert [(run.label, run.step) for run in runs] == [(f"si2/step_{step}", step) for step in range(STEPS)]
    for step, run in enumerate(runs):
        material = read_material(run)
        assert_step(material, real, step)
        assert material.structure.labels == ["Si", "Si"]
        np.testing.assert_array_equal(read_material(run.path).structure.frac_coords, material.structure.frac_coords)


def test_a_run_by_its_folder_is_its_last_step(dynamics, real):
    dynamics.appended_text()
    material = read_material(dynamics.run)
    (own,), (its,) = material.hamiltonian, real.hamiltonian
    np.testing.assert_allclose(own.on_pairs(its.pairs).entries, 1.5 * its.entries, rtol=2e-8, atol=1e-8)
    assert "of 3 ionic steps the last was read" in material.provenance["remarks"][0]


def test_the_only_step_needs_no_number(relaxation, real):
    """Up to 3.10 a relaxation keeps the matrices of its last step only."""
    relaxation.appended_text(steps=[2])
    assert find_runs([str(relaxation.run)]) == [Run(relaxation.run, "abacus", "si2")]
    material = read_abacus(relaxation.run)
    assert material.fermi_level == FERMI[2]
    expected = fractional(2) @ real.structure.lattice.matrix
    np.testing.assert_allclose(material.structure.cart_coords, expected, atol=1e-9)
    with pytest.raises(ReadError, match=r"has no S\(R\) of step 1; it has that of the steps 2"):
        read_abacus(relaxation.run, 1)


def test_single_steps_and_runs_are_found_once(dynamics):
    dynamics.appended_text()
    run = dynamics.run
    assert [own.label for own in find_runs([str(run / "step_1"), str(run)])] == [
        "si2/step_1",
        "si2/step_0",
        "si2/step_2",
    ]
    assert [own.step for own in find_runs([str(run.parent)])] == [0, 1, 2]
    with pytest.raises(ReadError, match="does not exist"):
        find_runs([str(run.parent / "step_1")])
    with pytest.raises(ReadError, match="is no run: it does not exist"):
        read_material(run.parent / "step_1")


def test_a_continued_dynamics_counts_on_in_its_dump(dynamics, real):
    dynamics.appended_text()
    dynamics.log([f"STEP OF MOLECULAR DYNAMICS : {step + 10}" for step in range(STEPS)], [None] * STEPS)
    earlier = [md_dump(step, CONSTANT, LATTICE, ["Si", "Si"], fractional(step) / 2) for step in range(10)]
    own = [md_dump(step + 10, CONSTANT, LATTICE, ["Si", "Si"], fractional(step)) for step in range(STEPS)]
    (dynamics.output / "MD_dump").write_text("".join(earlier + own))
    assert_step(read_abacus(dynamics.run, 1), real, 1)


def test_a_step_without_a_structure_is_refused_and_costs_no_other(dynamics, real):
    dynamics.appended_text()
    dump = dynamics.output / "MD_dump"
    whole = dump.read_text()
    dump.write_text(whole.replace("MDSTEP:  1", "MDSTEP:  7"))
    assert_step(read_abacus(dynamics.run, 2), real, 2)
    with pytest.raises(ReadError, match=r"nothing tells the structure of step 1; .* MD_dump with md_dumpfreq 1"):
        read_abacus(dynamics.run, 1)
    dump.write_text(whole[: whole.index("MDSTEP:  1") + 200])
    with pytest.raises(ReadError, match="step 1 lacks its lattice or its positions"):
        read_abacus(dynamics.run, 1)


def test_a_structure_file_of_molecular_dynamics(dynamics, real):
    dynamics.appended_text()
    (dynamics.output / "MD_dump").unlink()
    (dynamics.output / "STRU").mkdir()
    stru = (dynamics.run / "STRU").read_text()
    atom = " ".join(f"{x:.10f}" for x in fractional(2)[1])
    stru = stru.replace("0.250000000000 0.250000000000 0.250000000000", atom)
    assert atom in stru
    (dynamics.output / "STRU" / "STRU_MD_2").write_text(
        stru.replace("0.000000000000 0.000000000000 0.000000000000 1", "0.9999 0 0 1")
    )
    assert_step(read_abacus(dynamics.run, 2), real, 2)


def test_early_dumps_count_in_the_lattice_constant(dynamics):
    text = (
        "MDSTEP:  5\nLATTICE_CONSTANT: 1.889726125458\nLATTICE_VECTORS\n"
        "   14.5    0.0    0.0\n   -0.5   15.0    0.0\n    0.0    0.0   16.0\n"
        "VIRIAL (KBAR)\n  1.0  0.0  0.0\n  0.0  1.0  0.0\n  0.0  0.0  1.0\n"
        "INDEX    LABEL    POSITIONS    FORCE (eV/Angstrom)\n  0  H1  7.25  3.75  4.0  0.2  -0.4  -0.6\n"
    )
    path = dynamics.output / "MD_dump"
    path.write_text(text)
    geometry = read_md_dump(path, 5)
    assert geometry.labels == ("H1",)
    np.testing.assert_allclose(geometry.lattice[1], np.array([-0.5, 15, 0]) * 1.889726125458 * 0.529177)
    np.testing.assert_allclose(
        geometry.fractional, np.linalg.solve(np.array([[14.5, -0.5, 0], [0, 15, 0], [0, 0, 16]]), [7.25, 3.75, 4])[None]
    )
    assert read_md_dump(path, 0) is None
    path.write_text(text.replace("POSITIONS", "POSITION (Angstrom)"))
    with pytest.raises(ReadError, match="damaged"):
        read_md_dump(path, 5)
    for constant, message in [("none", "LATTICE_CONSTANT should be"), ("0.0", "do not span"), ("1e300", "do not span")]:
        path.write_text(f"{text.replace('1.889726125458', constant)}\n")
        with pytest.raises(ReadError, match=message):
            read_md_dump(path, 5)


def cell_relaxation(unpacked, tmp_path) -> tuple[Run3, np.ndarray]:
    """The second step has another lattice, which the log prints to six digits, without positions."""
    made = copied(unpacked, tmp_path, "cell-relax")
    lattice = LATTICE * 1.01234567
    made.log(
        ["RELAX CELL : 1\n RELAX IONS : 1 (in total: 1)", "RELAX CELL : 2\n RELAX IONS : 1 (in total: 2)", "later"],
        [None, lattice_table(lattice), None],
    )
    made.appended_text()
    return made, lattice


def stru_of(made: Run3, lattice: np.ndarray) -> str:
    old = (made.run / "STRU").read_text()
    rows = "".join(" ".join(f"{x:.10f}" for x in row) + "\n" for row in lattice)
    start = old.index("LATTICE_VECTORS\n") + len("LATTICE_VECTORS\n")
    return old[:start] + rows + old[old.index("\nATOMIC_POSITIONS") :]


def test_a_cell_relaxation_takes_the_written_structures(unpacked, tmp_path):
    made, lattice = cell_relaxation(unpacked, tmp_path)
    (made.output / "STRU_ION1_D").write_text(stru_of(made, lattice))
    expected = lattice * CONSTANT * 0.529177
    material = read_abacus(made.run, 1)
    np.testing.assert_allclose(material.structure.lattice.matrix, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        read_abacus(made.run, 0).structure.lattice.matrix, LATTICE * CONSTANT * 0.529177, atol=1e-9
    )
    assert "STRU_ION1_D" in " ".join(material.provenance["remarks"])


def test_a_written_structure_with_another_lattice_than_the_log_is_of_another_step(unpacked, tmp_path):
    made, lattice = cell_relaxation(unpacked, tmp_path)
    (made.output / "STRU_ION1_D").write_text(stru_of(made, lattice * 1.001))
    with pytest.raises(ReadError, match=r"nothing tells the structure of step 1; .* STRU_ION1_D with out_stru 1"):
        read_abacus(made.run, 1)


def test_a_lattice_that_only_the_log_tells_is_remarked(unpacked, tmp_path):
    made, lattice = cell_relaxation(unpacked, tmp_path)
    table = position_table(["Si", "Si"], fractional(1))
    made.log(["first", "second", "third"], [None, lattice_table(lattice) + table, None])
    material = read_abacus(made.run, 1)
    np.testing.assert_allclose(material.structure.lattice.matrix, lattice * CONSTANT * 0.529177, rtol=1e-5)
    assert "whose lattice has few digits" in " ".join(material.provenance["remarks"])
    with pytest.raises(ReadError, match="nothing tells the structure of step 2"):  # no table before it
        read_abacus(made.run, 2)


def test_what_a_log_does_not_tell_of_a_step_is_unknown(dynamics):
    dynamics.appended_text()
    log = dynamics.output / "running_md.log"
    text = log.read_text()
    log.write_text(text[: text.index("ION=   3")])
    material = read_abacus(dynamics.run, 2)
    assert (material.fermi_level, material.converged, material.electrons) == (None, None, 8)
    log.write_text(text.replace("charge density convergence is achieved", "convergence has NOT been achieved!", 1))
    assert [read_abacus(dynamics.run, step).converged for step in range(STEPS)] == [False, True, True]


def test_the_position_matrix_of_a_step(dynamics, real):
    dynamics.one_file_a_step()
    for step in range(STEPS):
        origin = fractional(step) @ LATTICE * CONSTANT
        atoms = np.repeat([0, 1], 13)
        matrix = {}
        for cell, array in dynamics.matrices["S"].items():
            shift = np.array(cell) @ LATTICE * CONSTANT
            middle = (origin[atoms][:, None] + origin[atoms] + shift) / 2  # (M, M, 3)
            matrix[cell] = np.moveaxis(middle * array[..., None], -1, 0)
        (dynamics.output / "matrix" / f"rrg{step}.csr").write_text(position_text(matrix, step))
    for step in range(STEPS):
        material = read_abacus(dynamics.run, step, matrices=["position"])
        positions = material.structure.cart_coords
        for axis, component in enumerate(material.position):
            onsite = component.on_pairs(np.array([[0, 0, 0, 1, 1]])).block(0)
            np.testing.assert_allclose(np.diag(onsite), positions[1, axis], atol=1e-6)


def test_an_empty_file_of_an_interrupted_run_costs_no_other(dynamics, capfd):
    dynamics.one_file_a_step()
    (dynamics.output / "matrix" / f"3_{H_NAME}").touch()
    assert [run.step for run in find_runs([str(dynamics.run)])] == [0, 1, 2]
    assert f"3_{H_NAME}: is empty" in capfd.readouterr().err
    assert read_abacus(dynamics.run, 1).hamiltonian


def test_a_step_whose_hamiltonian_is_missing_is_refused(dynamics):
    dynamics.one_file_a_step()
    (dynamics.output / "matrix" / f"1_{H_NAME}").unlink()
    assert [run.step for run in find_runs([str(dynamics.run)])] == [0, 2]
    with pytest.raises(ReadError, match=r"has no H\(R\) of step 1; it has that of the steps 0, 2"):
        read_abacus(dynamics.run, 1)


def test_two_files_with_the_same_step_are_refused(dynamics):
    dynamics.one_file_a_step()
    dynamics.appended_text(steps=[1])
    assert read_abacus(dynamics.run, 2).hamiltonian
    with pytest.raises(ReadError, match="remove the outdated one"):
        read_abacus(dynamics.run, 1)


def test_steps_in_a_dataset(dynamics, tmp_path):
    dynamics.appended_text()
    out = tmp_path / "dataset"
    assert build_dataset([str(dynamics.run / "step_1")], out, workers=1).built == 1
    report = build_dataset([str(dynamics.run)], out, workers=1)
    assert (report.built, report.kept, report.failures) == (2, 1, ())
    dataset = GraphDataset(out)
    assert [entry.label for entry in dataset.entries] == [f"si2/step_{step}" for step in range(STEPS)]
    assert len({entry.digest for entry in dataset.entries}) == STEPS
    assert all(result.value < 1e-10 for result in check_dataset(dataset, read_material).values())
    again = build_dataset([str(dynamics.run)], out, workers=1)
    assert (again.built, again.kept) == (0, 3)
    (dynamics.output / "MD_dump").touch()
    assert build_dataset([str(dynamics.run)], out, workers=1).built == 3


def test_a_damaged_step_costs_the_dataset_only_itself(dynamics, tmp_path):
    dynamics.appended_text()
    path = dynamics.output / H_NAME
    path.write_text(
        path.read_text().replace("STEP: 1\nMatrix Dimension of H(R): 26", "STEP: 1\nMatrix Dimension of H(R): 25")
    )
    report = build_dataset([str(dynamics.run)], tmp_path / "dataset", workers=1)
    assert report.built == 2
    assert [failure.path.name for failure in report.failures] == ["step_1"]


CELLS = [(0, 0, 0), (-1, 0, 0), (1, 0, 0), (-1, 1, 0), (1, -1, 0)]


@pytest.mark.parametrize("name", ["MD_dump", "running_md.log", H_NAME])
@pytest.mark.parametrize("damage", [cut, flipped])
def test_damaged_files_of_a_dynamics(dynamics, name, damage):
    for kind, matrix in dynamics.matrices.items():
        dynamics.matrices[kind] = {cell: array for cell, array in matrix.items() if cell in CELLS}
    dynamics.appended_text()
    path = dynamics.output / name
    content, expected = path.read_bytes(), read_abacus(dynamics.run, 1)
    refused = 0
    for damaged in damage(content, seed=7, count=60):
        path.write_bytes(damaged)
        found = outcome(lambda run: read_abacus(run, 1), dynamics.run)
        refused += found is None
        if found is None:
            continue
        assert found.elements == expected.elements
        assert np.isfinite(found.structure.cart_coords).all()
        if damage is cut:
            np.testing.assert_array_equal(found.structure.cart_coords, expected.structure.cart_coords)
            np.testing.assert_array_equal(found.hamiltonian[0].entries, expected.hamiltonian[0].entries)
            assert found.fermi_level in (FERMI[1], None) or name == "running_md.log"
    assert refused < 60
    assert refused > 10 or damage is flipped or name == "running_md.log"


@pytest.mark.parametrize("damage", [cut, flipped])
def test_a_damaged_written_structure(unpacked, tmp_path, damage):
    made, lattice = cell_relaxation(unpacked, tmp_path)
    for kind, matrix in made.matrices.items():
        made.matrices[kind] = {cell: array for cell, array in matrix.items() if cell in CELLS}
    made.appended_text()
    path = made.output / "STRU_ION1_D"
    for content in damage(stru_of(made, lattice).encode(), seed=8, count=60):
        path.write_bytes(content)
        found = outcome(lambda run: read_abacus(run, 1), made.run)
        assert found is None or np.isfinite(found.structure.cart_coords).all()
