"""Outputs that appear whole or not at all."""

import pytest

from deeph_tracegrad.atomic import atomic_path, check_writable
from deeph_tracegrad.errors import WriteError


def test_a_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "deep" / "er" / "out.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["out.txt"]


def test_nothing_is_left_of_a_block_that_fails(tmp_path):
    def fail(target):
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise ValueError

    with pytest.raises(ValueError):
        fail(tmp_path / "out.txt")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_an_error_with_the_path(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "full").mkdir(parents=True)

    def write(target):
        with atomic_path(target) as temporary:
            temporary.touch()

    for target in (tmp_path / "file" / "out.txt", tmp_path / "folder"):
        with pytest.raises(WriteError, match=str(target)):
            write(target)
        with pytest.raises(WriteError, match=str(target)):
            check_writable(target)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "full"]
    check_writable(tmp_path / "not" / "there" / "yet.txt")
    assert not (tmp_path / "not").exists()
