import pytest

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.structures.files import StructureFile, find_structures


@pytest.fixture
def folder(tmp_path):
    """Structures among other files; nothing is read, so they are empty."""
    for name in [
        *("a10.cif", "a2.cif", "deep/er/POSCAR_1.08", "deep/CONTCAR", "deep/graphene.vasp", "deep/chain.extxyz"),
        *(".hidden/b.cif", "info.json", "deep/notes.txt", "deep/run.traj"),
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def labels(*patterns):
    return [file.label for file in find_structures([str(pattern) for pattern in patterns])]


def test_folders_are_searched_for_names_of_structures(folder):
    assert labels(folder) == ["a2", "a10", "deep/CONTCAR", "deep/chain", "deep/er/POSCAR_1.08", "deep/graphene"]


def test_what_is_named_is_taken_whatever_its_name(folder):
    assert find_structures([str(folder / "deep" / "run.traj")]) == [StructureFile(folder / "deep" / "run.traj", "run")]
    assert labels(folder / "info.json", folder / "deep" / "n*") == ["info", "notes"]


def test_globs_lead_to_files_and_to_folders_with_some(folder):
    assert labels(folder / "*.cif") == ["a2", "a10"]
    assert labels(folder / "d*") == ["deep/CONTCAR", "deep/chain", "deep/er/POSCAR_1.08", "deep/graphene"]
    assert labels(folder / "*.cif", folder / "a2.cif") == ["a2", "a10"]


def test_equal_names_are_told_apart(folder):
    (folder / "a2.xyz").touch()
    (folder / "deep" / "a2.cif").touch()
    found = labels(folder / "a2.cif", folder / "a2.xyz", folder / "deep" / "a2.cif")
    assert found == [f"{folder.name}/a2.cif", f"{folder.name}/a2.xyz", "deep/a2.cif"]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("nowhere", "does not exist"),
        ("*.xsf", "nothing that it matches"),
        ("empty", "is empty"),
        ("texts", "holds a.txt"),
    ],
)
def test_patterns_without_structures(folder, pattern, reason):
    (folder / "empty").mkdir()
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").touch()
    with pytest.raises(ReadError, match=f"{reason}.*Accepted are POSCAR, CIF"):
        find_structures([str(folder / pattern)])
