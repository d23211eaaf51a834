"""The compiled library is built where it can be, and where it cannot, that is told once and nothing breaks."""

import os
import platform
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from deeph_tracegrad.nn.kernels import library

pytestmark = pytest.mark.skipif(not library.compiled(torch.empty(0)), reason="needs a C++ compiler")

SMALL = 'extern "C" long vector_bytes() { return 16; }\n'


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The (empty) cache folder, of a library that is built in no time."""
    source = tmp_path / "the source"
    source.mkdir()
    (source / "small.cpp").write_text(SMALL)
    monkeypatch.setattr(library, "_SOURCE", source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a cache"))
    monkeypatch.delenv("CXX", raising=False)
    library._library.cache_clear()
    yield tmp_path / "a cache" / "deeph-tracegrad"
    library._library.cache_clear()


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_it_is_built_once_and_kept(cache):
    assert library._library().vector_bytes() == 16
    (built,) = cache.iterdir()
    before = built.stat().st_mtime_ns
    library._library.cache_clear()
    assert library._library().vector_bytes() == 16
    assert [path.stat().st_mtime_ns for path in cache.iterdir()] == [before]


def test_other_flags_are_another_library(cache, monkeypatch):
    library._library()
    monkeypatch.setattr(library, "_FLAGS", ["-O0", "-std=c++17", "-fPIC"])
    library._library.cache_clear()
    library._library()
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9])
def test_a_damaged_library_is_built_again(cache, part):
    first = library._built(library._compiler())
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.unlink()  # the loaded one stays as it is
    path.write_bytes(whole[: int(part * len(whole))])
    assert library._library().vector_bytes() == first.vector_bytes() == 16
    assert path.read_bytes() == whole


def test_several_processes_build_at_once(cache):
    code = (
        "import pathlib, sys; from deeph_tracegrad.nn.kernels import library;"
        "library._SOURCE = pathlib.Path(sys.argv[1]); assert library._library().vector_bytes() == 16"
    )
    command = [sys.executable, "-c", code, str(library._SOURCE)]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: subprocess.run(command, capture_output=True, text=True), range(2)))  # noqa: PLW1510
    assert [(process.returncode, process.stderr) for process in done] == [(0, "")] * 2
    assert len(list(cache.iterdir())) == 1


def test_the_compiler_may_have_arguments(cache, monkeypatch):
    monkeypatch.setenv("CXX", "c++ -DNOTHING")
    assert library._library().vector_bytes() == 16
    assert cache.is_dir()


def test_the_path_of_the_compiler_may_have_spaces(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", str(script(tmp_path / "my c++", 'exec c++ "$@"')))
    assert library._library().vector_bytes() == 16
    assert cache.is_dir()


@pytest.mark.parametrize("message", ["", "echo; echo >&2", r"printf 'ung\374ltig' >&2"])
def test_a_compiler_that_fails_is_told(cache, message, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CXX", str(script(tmp_path / "broken", f"{message}\nexit 1")))
    assert library._library() is None
    assert "slower ones are used" in " ".join(capsys.readouterr().err.split())
    assert not any(cache.glob("*"))


def test_a_source_that_does_not_compile_is_told_and_leaves_nothing(cache, capsys):
    (library._SOURCE / "small.cpp").write_text("nonsense")
    assert library._library() is None
    assert "slower ones are used" in " ".join(capsys.readouterr().err.split())
    assert not any(cache.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("no home"), PermissionError("no")])
def test_without_a_cache_folder_it_is_built_for_this_process(cache, error, monkeypatch, tmp_path):
    def fail():
        raise error

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", fail)
    monkeypatch.setattr(library.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert library._library().vector_bytes() == 16
    assert not any((tmp_path / "temporary").iterdir())


def test_a_relative_cache_folder_is_that_of_the_working_folder(cache, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert library._library().vector_bytes() == 16
    assert len(list((tmp_path / "relative" / "deeph-tracegrad").iterdir())) == 1
    assert not cache.exists()


def test_arguments_that_a_kernel_would_misread_are_refused():
    with pytest.raises(ValueError, match="strides"):
        library._number(torch.zeros(2, 3).T)
    with pytest.raises(TypeError, match="float32"):
        library.require_alike(torch.zeros(1), None, torch.zeros(1, dtype=torch.float64))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
@pytest.mark.parametrize(("chosen", "kept"), [({}, True), ({"MALLOC_MMAP_THRESHOLD_": "65536"}, False)])
def test_freed_memory_stays_unless_the_user_chooses_otherwise(chosen, kept):
    code = (
        "import resource, torch; from deeph_tracegrad.nn.kernels import library; library._library();"
        "pages = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt;"
        "touch = lambda: [torch.ones(2**20) for _ in range(10)];"
        "touch(); touch(); before = pages(); touch(); print(pages() - before)"
    )
    environment = {**os.environ, **chosen}
    run = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert (int(run.stdout) < 1000) == kept
