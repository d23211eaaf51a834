import shutil

import pytest

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess import runs
from deeph_tracegrad.preprocess.runs import Run, detect, find_runs, read_material

FILES = {
    "openmx": ["any.scfout", "openmx.dat"],
    "abacus": ["STRU", "OUT.ABACUS/running_scf.log"],
    "deeph": ["info.json", "POSCAR", "overlap.h5"],
    "deeph-legacy": ["element.dat", "lat.dat", "hamiltonians.h5"],
}


def make(folder, kind):
    for name in FILES[kind]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def labels(patterns):
    return [run.label for run in find_runs([str(pattern) for pattern in patterns])]


@pytest.mark.parametrize("kind", FILES)
def test_kinds_are_told_by_the_names_of_the_files(tmp_path, kind):
    assert detect(make(tmp_path / "run", kind)) == kind
    (tmp_path / "run" / FILES[kind][-1 if kind != "openmx" else 0]).unlink()
    assert detect(tmp_path / "run") is None


@pytest.mark.parametrize("name", ["hamiltonian.h5", "hamiltonian_pred.h5"])
def test_a_deeph_folder_may_hold_only_a_hamiltonian(tmp_path, name):
    make(tmp_path, "deeph")
    (tmp_path / "overlap.h5").rename(tmp_path / name)
    assert detect(tmp_path) == "deeph"


def test_no_kind(tmp_path):
    assert detect(tmp_path) is None
    assert detect(tmp_path / "nowhere") is None
    (tmp_path / "file.out").touch()
    assert detect(tmp_path / "file.out") is None


def test_the_output_folder_of_abacus_is_a_run_too(tmp_path):
    assert detect(make(tmp_path, "abacus") / "OUT.ABACUS") == "abacus"


def test_nested_folders_in_natural_order_and_nothing_below_a_run(tmp_path):
    for name in ("run10", "run2", "deep/er/one"):
        make(tmp_path / name, "openmx")
    make(tmp_path / "run2" / "converted", "deeph")
    make(tmp_path / "abacus", "abacus")
    make(tmp_path / ".hidden", "deeph")
    assert labels([tmp_path]) == ["abacus", "deep/er/one", "run2", "run10"]


def test_two_outputs_of_abacus_are_two_runs(tmp_path):
    make(tmp_path / "scan", "abacus")
    shutil.copytree(tmp_path / "scan" / "OUT.ABACUS", tmp_path / "scan" / "OUT.b")
    assert labels([tmp_path]) == ["scan/OUT.ABACUS", "scan/OUT.b"]


def test_each_of_several_scfout_is_a_run(tmp_path):
    folder = make(tmp_path / "md", "openmx")
    for step in (2, 10):
        (folder / f"step_{step}.scfout").touch()
    make(tmp_path / "single", "openmx")
    assert labels([tmp_path]) == ["md/any", "md/step_2", "md/step_10", "single"]
    assert [run.path.name for run in find_runs([str(folder)])] == ["any.scfout", "step_2.scfout", "step_10.scfout"]


def test_a_scfout_can_be_named(tmp_path):
    folder = make(tmp_path / "md", "openmx")
    assert detect(folder / "any.scfout") == "openmx"
    assert labels([folder / "any.scfout"]) == ["any"]
    (folder / "other.scfout").touch()
    assert labels([tmp_path / "*" / "o*.scfout", folder / "any.scfout"]) == ["md/other", "any"]


def test_overlaps_of_openmx_are_a_run_unless_they_were_converted(tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "overlaps_0.h5").touch()
    assert detect(tmp_path) == "openmx"
    assert labels([tmp_path]) == [tmp_path.name]
    make(tmp_path, "deeph-legacy")
    assert detect(tmp_path) == "deeph-legacy"


def test_globs_and_plain_folders_name_each_run_once(tmp_path):
    for name in ("a/run1", "a/run2", "b/run1"):
        make(tmp_path / name, "deeph")
    assert labels([tmp_path / "*" / "run1", tmp_path]) == ["a/run1", "b/run1", "a/run2"]
    assert labels([tmp_path / "**"]) == ["a/run1", "a/run2", "b/run1"]
    assert labels([tmp_path / "a" / "run[2-9]"]) == ["run2"]


def test_equal_names_from_different_places_are_told_apart(tmp_path):
    one, other = make(tmp_path / "a" / "run", "openmx"), make(tmp_path / "b" / "run", "openmx")
    assert labels([one, other]) == ["a/run", "b/run"]
    assert labels([one]) == ["run"]


def test_the_current_folder_has_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(make(tmp_path / "here", "openmx"))
    assert labels(["."]) == ["here"]


def test_links_are_followed_once(tmp_path):
    make(tmp_path / "store" / "run", "openmx")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "store" / "run")
    (tmp_path / "set" / "loop").symlink_to(tmp_path)
    assert labels([tmp_path / "set"]) == ["linked"]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("nowhere", "does not exist"),
        ("*.none", "nothing that it matches"),
        ("empty", "it is empty"),
        ("notes", "holds todo.txt"),
    ],
)
def test_a_pattern_without_runs_is_an_error_that_says_so(tmp_path, pattern, reason):
    make(tmp_path / "run", "openmx")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").touch()
    with pytest.raises(ReadError, match=reason) as caught:
        find_runs([str(tmp_path / "run"), str(tmp_path / pattern)])
    assert str(tmp_path / pattern) in str(caught.value)
    assert "Accepted are OpenMX" in str(caught.value)


def test_reading_by_path_and_by_run(unpacked):
    path = unpacked("abacus/si2")
    (run,) = find_runs([str(path)])
    assert run == Run(path, "abacus", "si2")
    assert read_material(run).basis == read_material(path).basis


def test_reading_what_is_no_run(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ReadError, match=r"is no run: it holds notes\.txt\. Accepted are OpenMX"):
        read_material(tmp_path)


def test_a_folder_that_cannot_be_listed_costs_no_other(tmp_path, monkeypatch, capfd):
    make(tmp_path / "run", "openmx")
    (tmp_path / "lost+found").mkdir()
    listed = runs.entries

    def refusing(folder):
        if folder.name == "lost+found":
            raise ReadError(folder, "cannot be listed: Permission denied")
        return listed(folder)

    monkeypatch.setattr(runs, "entries", refusing)
    assert labels([tmp_path]) == ["run"]
    assert f"skipped {tmp_path / 'lost+found'}: cannot be listed" in capfd.readouterr().err
    with pytest.raises(ReadError, match="cannot be listed"):
        find_runs([str(tmp_path / "lost+found")])
