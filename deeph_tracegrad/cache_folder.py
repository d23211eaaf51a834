"""The user's folder for what is made once and used often."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """`~/.cache/deeph-tracegrad` or below $XDG_CACHE_HOME, made if it is missing; None where that cannot be."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "deeph-tracegrad"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # not allowed, or nobody knows the home
        pass
    return None
