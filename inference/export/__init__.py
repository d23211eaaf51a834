"""Band structures as files: our HDF5, and what other programs read."""

from collections.abc import Callable, Mapping
from pathlib import Path

from deeph_tracegrad.inference.bands import BandStructure
from deeph_tracegrad.inference.export.hdf5 import read_bands, write_bands
from deeph_tracegrad.inference.export.openmx_band import write_openmx_band
from deeph_tracegrad.inference.export.pymatgen_bands import to_pymatgen, write_pymatgen
from deeph_tracegrad.inference.export.tables import write_csv, write_gnuplot

EXPORTS: Mapping[str, tuple[str, Callable[[Path, BandStructure], None]]] = {  # by name: suffix and writer
    "openmx": (".Band", write_openmx_band),
    "gnuplot": (".gnuplot", write_gnuplot),
    "csv": (".csv", write_csv),
    "pymatgen": (".json", write_pymatgen),
}

__all__ = ["EXPORTS", "read_bands", "to_pymatgen", "write_bands"]
