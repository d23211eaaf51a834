"""The compiled library: built from `source/` at its first use, kept in the user's cache folder, loaded by ctypes."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deeph_tracegrad.cache_folder import cache_folder
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
    usable = usable and not torch.is_autocast_enabled("cpu")  # whose tensors have other types than the weights
    usable = usable and not torch.compiler.is_compiling()  # which cannot look into them
    return usable and _library() is not None


def kernel(name: str, dtype: torch.dtype) -> Callable[..., int]:
    """A function of the library for a precision. Arrays and tensors must be contiguous; None is no array."""
    function = getattr(_loaded(), f"{name}_{str(dtype).removeprefix('torch.')}")
    function.restype = ctypes.c_int64

    def call(*arguments: Argument) -> int:
        return function(*(ctypes.c_int64(_number(argument)) for argument in arguments))

    return call


def require_alike(*tensors: Tensor | None) -> None:
    """Kernels go by the first tensor's type and by addresses: others of another type would be read as noise.

    Raises:
        TypeError: type or device differ.
    """
    kinds = {(tensor.dtype, tensor.device) for tensor in tensors if tensor is not None}
    if len(kinds) > 1:
        raise TypeError(f"features and weights have different types or devices: {sorted(map(str, kinds))}")


def lanes(dtype: torch.dtype) -> int:
    """Numbers in one vector; rows of packed matrices are padded to a multiple of it."""
    return _loaded().vector_bytes() // dtype.itemsize


def _number(argument: Argument) -> int:
    """An integer, or the address at which numbers begin."""
    if argument is None:
        return 0
    if isinstance(argument, Tensor):
        if not argument.is_contiguous():
            raise ValueError(f"a kernel was given a tensor with strides {argument.stride()}")
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
    compiler = _compiler()
    if not compiler:
        warn("there is no C++ compiler: training and prediction on CPUs are several times slower than with one")
        return None
    try:
        return _built(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        reason = ((getattr(error, "stderr", None) or "").strip() or str(error)).splitlines()[0]
        warn(f"{shlex.join(compiler)} cannot build the fast kernels for CPUs, slower ones are used: {reason}")
        return None


def _compiler() -> list[str]:
    """The command that compiles C++, empty if there is none; $CXX may have arguments."""
    named = os.environ.get("CXX", "").strip()
    if named:
        return [named] if Path(named).is_file() else shlex.split(named)
    return [found for found in map(shutil.which, ("c++", "g++", "clang++")) if found][:1]


def _built(compiler: list[str]) -> ctypes.CDLL:
    """From the cache, or built; several processes may do so at once."""
    cache = cache_folder()
    name = f"kernels-{_fingerprint(compiler)}"
    for path in cache.glob(f"{name}-*.so") if cache else []:
        if path.name == _kept_as(name, path):  # else damaged: loading what is cut short would kill the process
            return ctypes.CDLL(str(path))
    sources = sorted(map(str, _SOURCE.glob("*.cpp")))
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        built = Path(folder) / "kernels.so"
        for compile_flags, link_flags in _OPENMP:
            try:
                _run([*compiler, *_FLAGS, *compile_flags, "-c", *sources], folder)
                objects = sorted(map(str, Path(folder).glob("*.o")))
                _run([*compiler, "-shared", *objects, *link_flags, "-o", str(built)], folder)
                library = ctypes.CDLL(str(built))
                break
            except (OSError, subprocess.CalledProcessError):
                if not compile_flags:
                    raise
        if cache:
            built.replace(cache / _kept_as(name, built))
    return library  # that its file has moved, or is no more, does not matter to it


def _kept_as(name: str, library: Path) -> str:
    """The name in the cache, which tells the content."""
    return f"{name}-{hashlib.sha256(library.read_bytes()).hexdigest()[:16]}.so"


def _run(command: list[str], folder: str | None = None) -> str:
    """What a command prints, whatever the encoding of its messages."""
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, errors="replace", timeout=_SECONDS, cwd=folder
    )
    return done.stdout


def _fingerprint(compiler: list[str]) -> str:
    """Of sources, compiler, flags and processor: unlike machines may share a cache folder."""
    about = [_run([*compiler, "--version"]), *compiler[1:], *_FLAGS, platform.machine()]
    digest = hashlib.sha256("\n".join(about).encode())
    processor = Path("/proc/cpuinfo")
    if processor.is_file():
        lines = processor.read_bytes().splitlines()
        digest.update(
            b"".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model name"))}))
        )
    for source in sorted(_SOURCE.iterdir()):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
