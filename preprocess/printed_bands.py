"""The bands that a DFT code itself computed and printed, whichever the code."""

from pathlib import Path

from deeph_tracegrad.preprocess.abacus.bands_file import AbacusBands, read_abacus_bands
from deeph_tracegrad.preprocess.openmx.bands_file import OpenMXBands, read_openmx_band


def read_printed_bands(path: Path) -> OpenMXBands | AbacusBands:
    """Read an OpenMX .Band file, or the ABACUS bands that a BANDS_*.dat belongs to (both spins, k-points beside it).

    Raises:
        ReadError: the file is neither, or damaged.
    """
    return read_abacus_bands(path.parent) if path.name.startswith("BANDS_") else read_openmx_band(path)
