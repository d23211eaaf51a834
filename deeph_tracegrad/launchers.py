"""What launchers leave in the environment of each process that they start."""

import os
import sys

from deeph_tracegrad.errors import LaunchError

# srun sets SLURM_NTASKS in the job script too, which is one process; SLURM_STEP_NUM_TASKS in its tasks alone
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched_by_torchrun() -> bool:
    """Whether torchrun, or a script that sets the same variables, started this process.

    Raises:
        LaunchError: some of the variables are missing.
    """
    if any(name in os.environ for name in _SIZES[:2]) or not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return False
    missing = [name for name in _TORCHRUN if name not in os.environ]
    if missing:
        raise LaunchError(
            f"RANK and WORLD_SIZE are set, as torchrun does, but not {', '.join(missing)}: set them too (MASTER_ADDR "
            "is the machine of rank 0, MASTER_PORT a free port on it), or start with torchrun or mpirun"
        )
    wrong = [name for name in _TORCHRUN if name != "MASTER_ADDR" and not os.environ[name].isdecimal()]
    if wrong:
        raise LaunchError(f"{wrong[0]} is {os.environ[wrong[0]]!r} in the environment; expected a number")
    return True


def choose_mpi() -> None:
    """Let mpi4py load Open MPI's library under its mpirun; by itself it takes the first that it finds."""
    if "PMIX_RANK" in os.environ and "MPI4PY_LIBMPI" not in os.environ:
        os.environ.setdefault("MPI4PY_MPIABI", "openmpi")


def require_company(library: str) -> None:
    """To be called by a process that finds itself alone: whether it was meant to be.

    library: what mpi4py loaded, or why it did not.

    Raises:
        LaunchError: the launcher started more, each of which would do everything.
    """
    for name in _SIZES:
        size = os.environ.get(name, "1")
        if size.isdecimal() and int(size) > 1:
            raise LaunchError(
                f"{name} says that {size} processes were started together, but MPI shows each of them only itself "
                f"({library}): start with the mpirun of that MPI (here {sys.prefix}/bin/mpirun, if `mpich` is "
                "installed), set MPI4PY_LIBMPI to the libmpi.so of the MPI that started them, use srun --mpi=pmi2, or "
                "start with torchrun, which needs no MPI"
            )
