"""What a calculation keeps until it is complete."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from damage import cut, flipped, outcome
from deeph_tracegrad.errors import InterruptionError
from deeph_tracegrad.inference import kept_results as module
from deeph_tracegrad.inference.kept_results import KeptResults, fingerprint, kept_results, read_results, write_results
from deeph_tracegrad.preprocess.runs import read_material

RESULTS = [{"kind": "k-point", "origin": {"input": "0ab1"}, "content": [[0.1, 1 / 3, 0.0], [-3.1, np.pi]]}]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every result is worth a file."""
    monkeypatch.setattr(module, "KEEP_SECONDS", 0.0)


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    write_results(tmp_path / "folder", RESULTS)
    (file,) = (tmp_path / "folder").iterdir()
    assert read_results(file) == RESULTS


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    write_results(tmp_path, RESULTS)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in [*cut(whole, 0), *flipped(whole, 1), b"", bytes(1000), whole[::-1], whole.replace(b"1", b"2", 1)]:
        path.write_bytes(damaged)
        assert outcome(read_results, path) is None
    path.unlink()
    path.mkdir()
    assert outcome(read_results, path) is None


@pytest.mark.usefixtures("eager")
def test_what_is_kept_is_found_by_kind_and_origin(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kept = KeptResults(tmp_path / "x.unfinished")
    kept.add("k-point", {"input": "a", "solver": "dense"}, 1)
    kept.add("k-point", {"input": "a", "solver": "dense"}, 2)
    kept.add("Fermi level", {"input": "a"}, 3)
    later = KeptResults(tmp_path / "x.unfinished")
    assert sorted(later.find("k-point", {"input": "a", "solver": "dense"})) == [1, 2]
    assert later.find("Fermi level", {"input": "b"}) == []
    later.explain_unused("Fermi level", {"input": "b"})
    later.explain_unused("k-point", {"input": "b"})
    assert capfd.readouterr().out == f"not used      1 Fermi level in {tmp_path / 'x.unfinished'}: another input\n"


def test_a_calculation_that_has_only_begun_leaves_no_file(tmp_path: Path) -> None:
    kept = KeptResults(tmp_path / "x.unfinished")
    kept.add("k-point", {}, 1)
    kept.save()
    assert not list(tmp_path.iterdir())
    assert "nothing was finished" in kept.advice


@pytest.mark.usefixtures("eager")
def test_the_folder_goes_when_the_calculation_ends_well(tmp_path: Path) -> None:
    folder = tmp_path / "x.unfinished"
    with kept_results(folder) as kept:
        kept.add("k-point", {}, 1)
        assert list(folder.iterdir())
        (folder / ".results-1.77.part.json").touch()  # of a rank that was killed
    assert not folder.exists()
    with kept_results(folder) as kept:
        kept.add("k-point", {}, 1)
        (folder / "notes").touch()
    assert [file.name for file in folder.iterdir()] == ["notes"]


@pytest.mark.usefixtures("eager")
def test_an_error_and_an_interruption_leave_what_was_finished(tmp_path: Path) -> None:
    def calculate(error: BaseException) -> None:
        with kept_results(tmp_path / "x.unfinished") as kept:
            kept.add("k-point", {}, str(error))
            raise error

    with pytest.raises(ZeroDivisionError):
        calculate(ZeroDivisionError("first"))
    with pytest.raises(InterruptionError, match="the same command goes on"):
        calculate(KeyboardInterrupt("second"))
    assert sorted(KeptResults(tmp_path / "x.unfinished").find("k-point", {})) == ["first", "second"]


@pytest.mark.usefixtures("eager")
def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.unfinished").touch()
    with kept_results(tmp_path / "x.unfinished") as kept:
        for number in range(3):
            kept.add("k-point", {}, number)
    assert capfd.readouterr().err.count("finished results are not kept") == 1


def test_the_fingerprint_tells_materials_apart(unpacked: Callable[[str], Path]) -> None:
    material = read_material(unpacked("openmx/graphene"))
    assert material.overlap is not None
    assert fingerprint(material) == fingerprint(read_material(unpacked("openmx/graphene")))
    (hamiltonian,) = material.hamiltonian
    entries = hamiltonian.entries.copy()
    entries[-1] = np.nextafter(entries[-1], 1.0)
    moved = material.structure.copy()
    moved.translate_sites([0], [1e-9, 0, 0])
    others = [
        material.with_hamiltonian((hamiltonian.with_entries(entries),)),
        replace(material, overlap=material.overlap.with_entries(1.001 * material.overlap.entries)),
        replace(material, structure=moved),
        replace(material, electrons=7.0),
        replace(material, fermi_level=0.0),
    ]
    assert len({fingerprint(one) for one in (material, *others)}) == 6
