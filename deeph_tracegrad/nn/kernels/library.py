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
_SECONDS = 300


def compiled(like: Tensor) -> bool:
    """Whether the compiled kernels can work on this tensor."""
    usable = like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64)
    return usable and _library() is not None


def kernel(name: str, dtype: torch.dtype) -> Callable[..., int]:
    """A function of the library for a precision; tensors are passed as what `address` returns."""
    function = getattr(_loaded(), f"{name}_{str(dtype).removeprefix('torch.')}")
    function.restype = ctypes.c_int64
    return lambda *arguments: function(*map(ctypes.c_int64, arguments))


def address(values: Tensor | np.ndarray | None) -> int:
    """Where contiguous numbers begin; 0 for none."""
    if values is None:
        return 0
    return values.data_ptr() if isinstance(values, Tensor) else values.ctypes.data


def lanes(dtype: torch.dtype) -> int:
    """Numbers in one vector; rows of packed matrices are padded to a multiple of it."""
    return _loaded().vector_bytes() // dtype.itemsize


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
        warn("no C++ compiler: training and prediction on CPUs are several times slower than they could be")
        return None
    try:
        return _built(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        warn(f"{compiler} cannot build the fast kernels for CPUs, slower ones are used: {str(reason).strip()}")
        return None


def _built(compiler: str) -> ctypes.CDLL:
    """From the cache, or built; several processes may do so at once.

    torch has loaded a runtime of OpenMP, whose threads the library shares if it is linked to none itself.
    """
    sources = sorted(_SOURCE.glob("*.cpp"))
    path = _cache_folder() / f"kernels-{_fingerprint(compiler)}.so"
    if path.is_file():
        return ctypes.CDLL(str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        objects = [str(Path(folder) / f"{source.stem}.o") for source in sources]
        built = Path(folder) / path.name
        for openmp, link in ((["-fopenmp"], []), (["-fopenmp"], ["-fopenmp"]), ([], [])):
            try:
                for source, target in zip(sources, objects, strict=True):
                    _run([compiler, *_FLAGS, *openmp, "-c", str(source), "-o", target])
                _run([compiler, "-shared", *objects, *link, "-o", str(built)])
                ctypes.CDLL(str(built))
            except (OSError, subprocess.CalledProcessError) as error:
                failure: OSError | subprocess.CalledProcessError = error
            else:
                built.replace(path)
                return ctypes.CDLL(str(path))
        raise failure


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)


def _fingerprint(compiler: str) -> str:
    """Of the sources, the compiler and the processor: a cache folder may be shared by unlike machines."""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=_SECONDS).stdout
    processor = Path("/proc/cpuinfo")
    flags = [line for line in processor.read_bytes().splitlines() if line[:5] in (b"flags", b"Featu", b"model")][:4] if processor.is_file() else []
    digest = hashlib.sha256(b"\n".join([version, platform.machine().encode(), *flags]))
    for source in sorted(_SOURCE.iterdir()):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deeph-tracegrad"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir()) / f"deeph-tracegrad-{os.getuid()}"
    return folder
