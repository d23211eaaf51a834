"""The bands that ABACUS itself computed: OUT.*/BANDS_*.dat with OUT.*/kpoints, for comparison.

Shape letters: K k-points, n bands.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.folder import locate
from deeph_tracegrad.preprocess.abacus.text import numbers
from deeph_tracegrad.text_tables import read_text


@dataclass(frozen=True, eq=False)
class AbacusBands:
    """Bands of an ABACUS run.

    k: (K, 3) in fractions of the reciprocal vectors. energies: (spins, K, n) eV, not relative to the Fermi level.
    """

    k: np.ndarray
    energies: np.ndarray


def read_abacus_bands(run_folder: Path) -> AbacusBands:
    """Read the bands of a run with `calculation nscf` and `out_band 1` on a line of k-points.

    Raises:
        ReadError: a file is missing or damaged, or the files do not belong together.
    """
    folder = locate(run_folder).output
    paths = sorted(folder.glob("BANDS_*.dat"))
    if not paths:
        raise ReadError(folder, "holds no BANDS_*.dat; run ABACUS with calculation nscf and out_band 1")
    k = _read_kpoints(folder / "kpoints")
    energies = [_read_energies(path, len(k)) for path in paths]
    if len({table.shape for table in energies}) != 1:
        raise ReadError(folder, "its BANDS_*.dat have different numbers of bands")
    return AbacusBands(k, np.stack(energies))


def _read_kpoints(path: Path) -> np.ndarray:
    text = read_text(path, errors="replace")
    announced = re.search(r"nkstot now = (\d+)", text)
    rows = [
        line.split()
        for line in text.splitlines(keepends=True)
        if line.endswith("\n") and re.match(r"\s*\d+\s+[-+]?\d", line)
    ]
    # The points in fractions come first; other tables of the same points may follow.
    count = int(announced.group(1)) if announced else len(rows)
    if not 0 < count <= len(rows):
        raise ReadError(path, f"announces {count} k-points and lists {len(rows)}")
    return np.array([numbers(path, row[1:], 3, "a k-point") for row in rows[:count]])


def _read_energies(path: Path, k_points: int) -> np.ndarray:
    text = read_text(path, errors="replace")
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if not text.endswith("\n"):
        raise ReadError(path, "ends within a line; the file is cut short")
    if len(rows) != k_points:
        raise ReadError(path, f"has {len(rows)} lines where kpoints lists {k_points} k-points")
    width = len(rows[0])
    if width < 3 or any(len(row) != width for row in rows):
        raise ReadError(path, "has lines of different length, or without energies")
    return np.array([numbers(path, row, width, "a line of bands") for row in rows])[:, 2:]
