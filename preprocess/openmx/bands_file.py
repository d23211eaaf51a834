"""The file NAME.Band that OpenMX writes with Band.dispersion: its own band structure.

Shape letters: K k-points, M bands of one spin.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeph_tracegrad import units
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.openmx.input_file import PathSegment, parse_path_segment
from deeph_tracegrad.text_tables import read_text

MAX_ENERGY_HARTREE = 1e4


@dataclass(frozen=True, eq=False)
class OpenMXBands:
    """Bands along a path.

    k: (K, 3) fractions of the reciprocal vectors. reciprocal: (3, 3) rows b_i, 1/Å, with the factor 2π.
    energies: (1, K, M), or (2, K, M) up and down, eV, ascending.
    fermi_level: eV.
    segments: the path; its points are the K k-points one after another, ends included twice.
    """

    k: np.ndarray
    reciprocal: np.ndarray
    energies: np.ndarray
    fermi_level: float
    segments: tuple[PathSegment, ...]


def read_openmx_band(path: Path) -> OpenMXBands:
    """Read an OpenMX band file.

    Raises:
        ReadError: the file is missing, damaged, or of another kind.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    try:
        num_bands, spin_switch = (int(word) for word in lines[0].split()[:2])
        fermi_level = float(lines[0].split()[2])
        reciprocal = np.array(lines[1].split(), dtype=np.float64).reshape(3, 3)
        num_segments = int(lines[2])
        segment_lines, data = lines[3 : 3 + num_segments], lines[3 + num_segments :]
        values = np.array(" ".join(data).split(), dtype=np.float64)
    except (ValueError, IndexError):
        raise ReadError(path, "this is not an OpenMX .Band file: a number is missing or broken") from None
    if not (num_bands > 0 and spin_switch in (0, 1, 3) and 0 < num_segments == len(segment_lines)):
        raise ReadError(path, "this is not an OpenMX .Band file: its first lines do not give bands, spin and path")
    segments = tuple(parse_path_segment(line.split(), path) for line in segment_lines)
    num_points = sum(segment.points for segment in segments)
    channels = 2 if spin_switch == 1 else 1
    if len(values) != num_points * channels * (4 + num_bands):
        raise ReadError(
            path,
            f"expected {num_points} k-points with {channels} x {num_bands} energies after the path; found "
            f"{len(values)} numbers instead of {num_points * channels * (4 + num_bands)}: the file is not complete",
        )
    rows = values.reshape(num_points, channels, 4 + num_bands)
    k, energies = rows[:, :, 1:4], rows[:, :, 4:]
    if (
        not (rows[:, :, 0] == num_bands).all()
        or not np.array_equal(k[:, 0], k[:, -1])
        or not (np.abs(rows) < MAX_ENERGY_HARTREE).all()
        or not abs(fermi_level) < MAX_ENERGY_HARTREE
    ):
        raise ReadError(path, "the k-points and energies are not in order: the file is damaged")
    return OpenMXBands(
        k=k[:, 0].copy(),
        reciprocal=reciprocal / units.OPENMX_BOHR_ANGSTROM,
        energies=energies.transpose(1, 0, 2) * units.OPENMX_HARTREE_EV,
        fermi_level=fermi_level * units.OPENMX_HARTREE_EV,
        segments=segments,
    )
