"""Start a benchmark again on several ranks."""

import os
import subprocess
import sys
from pathlib import Path


def on_ranks(ranks: int, *options: str, **environment: str) -> None:
    """The running script with its own arguments and these, under the mpirun beside the interpreter, or another."""
    mpirun = Path(sys.executable).parent / "mpirun"
    launch = [str(mpirun) if mpirun.exists() else "mpirun", "-n", str(ranks), sys.executable]
    subprocess.run([*launch, *sys.argv, *options], check=True, env={**os.environ, **environment})
