"""Tables kept in the cache folder: whatever stands there, the answer is right."""

import numpy as np
import pytest

from damage import cut, flipped
from deeph_tracegrad.integrals.kept import kept

ARRAY = np.random.default_rng(0).normal(size=(6, 3, 4))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "deeph-tracegrad"


def made() -> np.ndarray:
    return ARRAY


def not_made() -> np.ndarray:
    raise AssertionError


def test_an_array_is_made_once(cache):
    for make in (made, not_made, not_made):
        assert np.array_equal(kept("one", make), ARRAY)
    assert np.array_equal(kept("other", lambda: 2 * ARRAY), 2 * ARRAY)
    assert len(list((cache / "integrals").iterdir())) == 2


@pytest.mark.parametrize("damage", [cut, flipped])
def test_a_damaged_file_is_made_again(cache, damage):
    kept("table", made)
    (path,) = (cache / "integrals").iterdir()
    whole = path.read_bytes()
    for content in (b"", bytes(len(whole)), *damage(whole, seed=0, count=300)):
        path.write_bytes(content)
        assert np.array_equal(kept("table", made), ARRAY)
        assert path.read_bytes() == whole
        assert np.array_equal(kept("table", not_made), ARRAY)


@pytest.mark.parametrize("place", [".", "..", "integrals"])
def test_a_file_in_place_of_a_folder(cache, place):
    """Which a user without permissions sees alike."""
    file = (cache / place).resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    for _ in range(2):
        assert np.array_equal(kept("table", made), ARRAY)
    assert file.read_text() == "mine"


def test_a_folder_in_place_of_the_file(cache):
    kept("table", made)
    (path,) = (cache / "integrals").iterdir()
    path.unlink()
    (path / "something").mkdir(parents=True)
    assert np.array_equal(kept("table", made), ARRAY)
    assert [own.name for own in path.parent.iterdir()] == [path.name]


def test_a_full_disk_leaves_nothing(cache, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    assert np.array_equal(kept("table", made), ARRAY)
    assert not any((cache / "integrals").iterdir())
