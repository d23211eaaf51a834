"""The compiled library: built from `source/` at its first use, kept in the user's cache folder, loaded by ctypes."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deeph_tracegrad.console import warn

SWITCH = "DEEPH_TRACEGRAD_KERNELS"
"""Environment variable: 0 leaves the compiled kernels aside."""

_SOURCE = Path(__file__).parent / "source"
_FLAGS = ["-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fPIC"]
# Flags of compiling and of linking, the best first. torch has loaded a runtime of OpenMP: a library that is linked to
# none shares its threads.
_OPENMP: tuple[tuple[list[str], list[str]], ...] = ((["-fopenmp"], []), (["-fopenmp"], ["-fopenmp"]), ([], []))
_SECONDS = 300

Argument = Tensor | np.ndarray | int | None


def compiled(like: Tensor) -> bool:
    """Whether the compiled kernels can work on this tensor."""
    usable = like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64)
    return usable and _library() is not None


def kernel(name: str, dtype: torch.dtype) -> Callable[..., int]:
    """A function of the library for a precision. Arrays and tensors must be contiguous; None is no array."""
    function = getattr(_loaded(), f"{name}_{str(dtype).removeprefix('torch.')}")
    function.restype = ctypes.c_int64

    def call(*arguments: Argument) -> int:
        return function(*(ctypes.c_int64(_number(argument)) for argument in arguments))

    return call


def lanes(dtype: torch.dtype) -> int:
    """Numbers in one vector; rows of packed matrices are padded to a multiple of it."""
    return _loaded().vector_bytes() // dtype.itemsize


def _number(argument: Argument) -> int:
    """An integer, or the address at which numbers begin."""
    if argument is None:
        return 0
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    return argument.ctypes.data if isinstance(argument, np.ndarray) else argument


def _loaded() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError("the compiled kernels are not there; ask `compiled` first")
    return library


@cache
def _library() -> ctypes.CDLL | None:
    if os.environ.get(SWITCH) == "0":
        return None
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        warn("there is no C++ compiler: training and prediction on CPUs are several times slower than with one")
        return None
    try:
        return _built(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip().splitlines()[0]
        warn(f"{compiler} cannot build the fast kernels for CPUs, slower ones are used: {reason}")
        return None


def _built(compiler: str) -> ctypes.CDLL:
    """From the cache, or built; several processes may do so at once."""
    path = _cache_folder() / f"kernels-{_fingerprint(compiler)}.so"
    if path.is_file():
        return ctypes.CDLL(str(path))
    sources = sorted(map(str, _SOURCE.glob("*.cpp")))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / path.name
        for compile_flags, link_flags in _OPENMP:
            try:
                _run([compiler, *_FLAGS, *compile_flags, "-c", *sources], folder)
                _run([compiler, "-shared", *map(str, Path(folder).glob("*.o")), *link_flags, "-o", str(built)], folder)
                ctypes.CDLL(str(built))
                break
            except (OSError, subprocess.CalledProcessError):
                if not compile_flags:
                    raise
        built.replace(path)
    return ctypes.CDLL(str(path))


def _run(command: list[str], folder: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS, cwd=folder)


def _fingerprint(compiler: str) -> str:
    """Of sources, compiler and processor: unlike machines may share a cache folder."""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=_SECONDS).stdout
    digest = hashlib.sha256(version + platform.machine().encode())
    processor = Path("/proc/cpuinfo")
    if processor.is_file():
        lines = processor.read_bytes().splitlines()
        digest.update(
            b"".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model name"))}))
        )
    for source in sorted(_SOURCE.iterdir()):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    """The user's, made if it is missing; where that cannot be, a temporary one of this process."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deeph-tracegrad"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="deeph-tracegrad-"))
