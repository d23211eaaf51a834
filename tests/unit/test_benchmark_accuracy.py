"""The accuracy study: its rows, what it measures, that it goes on where it stopped, and its page."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "accuracy"))

from costs import read_effort
from measure import similarity, state_errors
from render import main as render_main
from render import page, render
from results import read_results
from run import perform, planned, run
from study import ROWS, SETS, DataSet, Row, Study
from summary import Summary, Value, change
from tasks import Task

from deeph_tracegrad.config import differing_keys, load_config
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.inference.solvers import Spectrum
from deeph_tracegrad.material import Material
from deeph_tracegrad.preprocess.runs import read_material
from deeph_tracegrad.training.metrics import read_metrics

DEMO = Path(__file__).parents[2] / "demo"
TINY = (
    "model.blocks=1",
    "model.trunk=4x0e+2x1o+2x2e",
    *(f"model.{name}=8" for name in ("node_channels", "edge_channels", "radial_basis")),
)
CELLS = DataSet(
    "graphene", "Cells", "of two atoms", "runs", ("a_00", "a_01"), ("a_02", "a_03"), {"C": 4.0}, 2, ("runs/b_00",)
)


@pytest.fixture(scope="module")
def crystal() -> Material:
    return read_material(DEMO / "runs" / "a_00")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(DEMO, tmp_path_factory.mktemp("study"), common=TINY)


@pytest.fixture(scope="module")
def tasks(study: Study) -> list[Task]:
    best = next(row for row in ROWS if row.name == "best")
    tasks = [Task(study, CELLS, row, budget, 1) for row, budget in [(ROWS[0], "epochs"), (best, "time")]]
    assert not run(tasks, jobs=2)
    return tasks


def shifted(material: Material, energy: float) -> Material:
    """With H + energy · S."""
    (hamiltonian,) = material.hamiltonian
    overlap = material.overlap.on_pairs(hamiltonian.pairs)
    return material.with_hamiltonian((hamiltonian.with_entries(hamiltonian.entries + energy * overlap.entries),))


class TestRows:
    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
    def test_each_changes_what_it_says_and_nothing_else(self, row):
        study = Study(Path("data"), Path("out"))
        changed = differing_keys(study.config(row, SETS[0], Path("run")), study.config(ROWS[0], SETS[0], Path("run")))
        assert set(changed) <= {setting.partition("=")[0] for setting in row.settings}

    def test_the_first_is_the_published_network(self):
        config = Study(Path("data"), Path("out")).config(ROWS[0], SETS[0], Path("run"))
        changed = differing_keys(config, load_config(Path(__file__).parents[2] / "configs" / "deeph-e3.toml"))
        assert not [key for key in changed if key.startswith(("model.", "training.optimizer", "training.schedule"))]

    def test_names_differ_and_no_structure_is_trained_on_and_validated(self):
        names = {row.name for row in ROWS}
        assert len(names) == len(ROWS)
        assert {row.reference for row in ROWS} <= names
        for chosen in SETS:
            assert not set(chosen.train) & set(chosen.validation)

    def test_a_named_row_is_run_even_if_it_is_not_by_default(self):
        study = Study(Path("data"), Path("out"))
        wanted = SimpleNamespace(sets=["mos2"], rows=None, seeds=None, budgets=["epochs"])
        default = {task.row.name for task in planned(study, wanted)}
        assert "paper-full" not in default
        assert {"deeph-e3", "best"} <= default
        wanted.rows = ["paper-full"]
        assert [task.name for task in planned(study, wanted)] == ["mos2-paper-full-epochs-1"]


class TestMeasures:
    def test_the_same_hamiltonian_has_no_error(self, crystal):
        errors = state_errors(crystal, crystal)
        assert vars(errors) == pytest.approx(dict.fromkeys(vars(errors), 0.0) | {"similarity": 1.0}, abs=1e-9)

    def test_a_shift_of_all_energies_is_the_error(self, crystal):
        errors = state_errors(crystal, shifted(crystal, 0.005))
        assert crystal.electrons == 8
        per_atom = 5.0 * 8 / 2  # meV a state times electrons over atoms
        assert vars(errors) == pytest.approx(
            dict.fromkeys(vars(errors), 5.0) | {"energy_sum": per_atom, "similarity": 1.0}, abs=1e-6
        )

    def test_degenerate_states_are_compared_as_spaces(self):
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))[0]
        states = np.eye(4)
        turned = states.copy()
        turned[:2, :2] = turn
        energies = np.array([0.0, 0.001, 1.0, 2.0])
        true, found = (Spectrum(energies, np.zeros(4), states=one) for one in (states, turned))
        assert similarity(true, found, np.eye(4), 1) == pytest.approx(1.0)
        apart = replace(true, energies=np.array([0.0, 0.5, 1.0, 2.0]))
        assert similarity(apart, found, np.eye(4), 2) == pytest.approx(abs(np.diag(turn)).mean())
        swapped = replace(true, states=states[:, [0, 2, 1, 3]])
        assert similarity(apart, swapped, np.eye(4), 3) == pytest.approx(1 / 3)


class TestRunner:
    def test_records_what_a_training_was_and_what_came_of_it(self, tasks, study):
        record = json.loads(tasks[0].result.read_text())
        assert record["epochs"] == CELLS.epochs
        assert record["split"] == {"train": list(CELLS.train), "validation": list(CELLS.validation), "test": []}
        assert set(record["errors"]) == {"validation", "b_00"}
        assert record["config"]["model"]["trunk"] == "4x0e+2x1o+2x2e"
        assert record["training_seconds"]["processor"] > 0
        header, *lines = (study.out / "results.csv").read_text().splitlines()
        assert len(lines) == 4
        assert header.startswith("set,row,budget,seed")

    def test_measures_the_error_that_the_training_validates(self, tasks):
        record = json.loads(tasks[0].result.read_text())
        rows = {int(row["epoch"]): row for row in read_metrics(tasks[0].folder / "metrics.csv")}
        validated = float(rows[record["best_epoch"]]["validation_mae_mev"])
        assert record["errors"]["validation"]["hamiltonian"] == pytest.approx(validated, rel=1e-5)

    def test_equal_time_means_fewer_epochs_of_longer_steps(self, tasks):
        record = json.loads(tasks[1].result.read_text())
        assert record["epochs"] == max(1, round(CELLS.epochs / record["step_ratio"]))

    def test_goes_on_where_it_stopped(self, tasks):
        first, second = tasks
        written = first.result.stat().st_mtime_ns, second.result.stat().st_mtime_ns
        weights = (second.folder / "best.pt").read_bytes()
        effort = read_effort(second.folder)
        second.result.unlink()
        assert not run(tasks, jobs=1)
        assert first.result.stat().st_mtime_ns == written[0]
        assert second.result.is_file()
        assert (second.folder / "best.pt").read_bytes() == weights
        assert read_effort(second.folder)["processor"] > effort["processor"]

    def test_does_not_mix_trainings_of_different_settings(self, tasks, study):
        longer = replace(tasks[0], study=replace(study, epochs=3))
        with pytest.raises(MismatchError, match=r"training\.epochs"):
            run([longer], jobs=1)

    def test_a_training_that_fails_does_not_stop_the_others(self, study):
        broken = replace(CELLS, train=("a_00", "no_such_run"))
        task = Task(study, broken, Row("hermitian", "", ("model.hermitian=true",)), "epochs", 1)
        (failure,) = run([task], jobs=1)
        assert "no_such_run" in failure


def test_interrupted_trainings_are_completed(tmp_path):
    study = Study(DEMO, tmp_path, common=TINY)
    task = Task(study, CELLS, ROWS[0], "epochs", 1)
    run([replace(task, study=replace(study, epochs=1))], jobs=1)
    task.result.unlink()
    toml = task.folder / "config.toml"  # as if it had been stopped after the first of two epochs
    toml.write_text(toml.read_text().replace("epochs = 1\n", "epochs = 2\n"))
    perform(task)
    assert [epoch for epoch, _ in json.loads(task.result.read_text())["curve"]] == [1, 2]


def record(row: str, budget: str, seed: int, hamiltonian: float, occupied: float) -> dict:
    errors = dict.fromkeys(("occupied_largest", "window", "window_largest", "energy_sum", "similarity"), 1.0)
    cell = {"hamiltonian": hamiltonian, "occupied": occupied, "trace": None, **errors}
    return {
        "set": "mos2",
        "row": row,
        "budget": budget,
        "seed": seed,
        "epochs": 4,
        "best_epoch": 3,
        "weights": 10,
        "step_seconds": 0.1,
        "step_ratio": 1.5,
        "edges_per_second": 100.0,
        "errors": {"validation": cell},
        "training_seconds": {"processor": 60.0, "wall": 90.0},
        "curve": [[1, 2 * hamiltonian], [4, hamiltonian]],
        "split": {"train": ["a"], "validation": ["b"], "test": []},
        "versions": {"torch": "2"},
        "revision": "abc",
        "machine": "this",
        "config": {"training": {"epochs": 4}},
    }


class TestPage:
    records = (
        *(record("deeph-e3", "epochs", seed, value, 10.0) for seed, value in enumerate((9.0, 10.0, 11.0), 1)),
        record("best", "time", 1, 5.0, 5.0),
        record("baseline", "epochs", 1, 12.0, 10.0),
        record("scaling", "epochs", 1, 10.5, 10.0),
        record("schedule", "epochs", 1, 7.0, 10.0),
    )

    def test_says_which_goals_are_reached(self):
        text = page(Summary(self.records))
        assert "| MoS₂ | error of H | −40 % or lower | −50 % | reached |" in text
        assert "| MoS₂ | error of occupied energies | −76 % or lower | −50 % | **not reached** |" in text
        assert "| DeepH-E3 as published | 10.0 ± 1.0 | +0 % |" in text

    def test_says_what_helped_and_what_did_not(self):
        said = page(Summary(self.records)).splitlines()[-1]
        assert "lower: optimiser and schedule of the default (−30 %)" in said
        assert "no difference: target scaling (+5 %)" in said
        assert "higher: two-centre baseline (+20 %)" in said

    def test_compares_each_row_to_its_reference(self):
        further = [record("best", "epochs", 1, 2.0, 2.0), record("squared", "epochs", 1, 3.0, 3.0)]
        said = page(Summary([*self.records, *further])).splitlines()[-1]
        assert said.startswith("- Against improved DeepH-E3 with TraceGrad, compact: ")
        assert "higher: …, loss: mean square (+50 %)" in said

    def test_is_the_same_for_the_same_results(self, tmp_path):
        for name in ("one", "two"):
            (tmp_path / name / "results").mkdir(parents=True)
            for number, content in enumerate(self.records):
                (tmp_path / name / "results" / f"{number}.json").write_text(json.dumps(content))
            render(Summary(read_results(tmp_path / name)), tmp_path / name / "docs")
        one, two = (
            {path.name: path.read_bytes() for path in (tmp_path / name / "docs").rglob("*.*")}
            for name in ("one", "two")
        )
        assert set(one) == {"accuracy.md", "accuracy_mos2.png", "accuracy_curves.png"}
        assert one == two

    @pytest.mark.parametrize("content", [None, "{"])
    def test_bad_results_leave_the_page_as_it_is(self, tmp_path, monkeypatch, content):
        (tmp_path / "accuracy.md").write_text("before")
        if content:
            (tmp_path / "results").mkdir()
            (tmp_path / "results" / "one.json").write_text(content)
        monkeypatch.setattr(sys, "argv", ["render.py", str(tmp_path), "--docs", str(tmp_path)])
        with pytest.raises(SystemExit, match=r"no result of run\.py|damaged result"):
            render_main()
        assert (tmp_path / "accuracy.md").read_text() == "before"

    def test_without_results_of_the_best_row_nothing_is_claimed(self):
        text = page(Summary([one for one in self.records if one["row"] != "best"]))
        assert text.count("not measured") == 2
        assert "| reached |" not in text

    def test_refuses_results_that_it_would_leave_out(self):
        with pytest.raises(MismatchError, match="no_such_row"):
            Summary([record("no_such_row", "epochs", 1, 1.0, 1.0)])

    def test_refuses_unequal_epochs(self):
        longer = record("best", "epochs", 1, 1.0, 1.0) | {"config": {"training": {"epochs": 8}}}
        with pytest.raises(MismatchError, match="4 and 8"):
            Summary([*self.records, longer])

    def test_numbers_have_three_digits(self):
        assert [Value(mean).text() for mean in (1234.5, 123.4, 12.34, 1.234, 0.01234)] == [
            *("1234", "123", "12.3", "1.23", "0.012")
        ]
        assert Value.of([1.0, 2.0, 3.0]).text() == "2.00 ± 1.00"
        assert [change(ratio) for ratio in (0.6, 1.25, None)] == ["−40 %", "+25 %", "–"]
