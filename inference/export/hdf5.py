"""Band structures as HDF5: the keys of DeepH-dock's band.h5, and our own beside them.

Every key is a dataset at the root. Energies in `band_data` (n, K) count from the Fermi level, whose own energy is
`fermi_energy_before_shift_eV`. Of collinear spin the bands of up come first, then those of down; `band_spin` (n,)
tells them apart, 0 and 1. Where a state was not computed stands NaN.

Shape letters: K k-points, P segments, n bands of both spins, g groups of orbitals.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deeph_tracegrad import __version__
from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.hdf5_files import new_hdf5
from deeph_tracegrad.inference.bands import BandStructure
from deeph_tracegrad.inference.fermi import FermiLevel
from deeph_tracegrad.inference.kpath import KPath
from deeph_tracegrad.inference.spectra.projections import BandProjections
from deeph_tracegrad.orbitals import SpinMode

FORMAT = "deeph-tracegrad bands"
FORMAT_VERSION = 1
GAMMA_NAME = "Gamma"  # what DeepH-dock's plots turn into the letter


def write_bands(path: Path, bands: BandStructure, projections: BandProjections | None = None) -> None:
    """Write a band structure, and the shares of groups of orbitals in it where there are some."""
    spins, _, count = bands.energies.shape
    data = bands.energies.transpose(0, 2, 1).reshape(spins * count, -1)
    fermi = bands.fermi
    edges = [np.nan if edge is None else edge for edge in (fermi.valence_top, fermi.conduction_bottom)]
    labels = [[label.replace("Γ", GAMMA_NAME) for label in pair] for pair in bands.path.labels]
    datasets: dict[str, Any] = {
        "rlv": bands.path.reciprocal,
        "spinful": bands.spin is not SpinMode.NONE,
        "band_quantity": spins * count,
        "fermi_energy_before_shift_eV": fermi.level,
        "fermi_energy_eV": 0.0,
        "k_path_quantity": len(bands.path.counts),
        "k_path_density_list": bands.path.counts,
        "hsk_vector_list": bands.path.corners,
        "hsk_symbol_list": labels,
        "kpoints_quantity": len(bands.path.k),
        "kpoints_frac_list": bands.path.k,
        "kpoints_distance_list": bands.path.distance,
        "hsk_distance_list": bands.path.corner_distance,
        "band_data": data - fermi.level,
        "band_gap": fermi.gap,
        "is_metal": fermi.is_metal,
        "band_spin": np.repeat(np.arange(spins), count),
        "band_residuals_eV": bands.residuals.transpose(0, 2, 1).reshape(data.shape),
        "first_band": bands.first_band,
        "band_edges_eV": edges,
        "fermi_source": fermi.source,
        "fermi_of_whole_zone": fermi.whole_zone,
        "spin_mode": str(bands.spin),
        "provenance": json.dumps(dict(bands.provenance), default=str),
    }
    if projections is not None:
        datasets["projection_labels"] = list(projections.labels)
        datasets["band_projections"] = projections.weights.transpose(0, 2, 1, 3).reshape(*data.shape, -1)  # (n, K, g)
    with atomic_path(path) as temporary, new_hdf5(temporary) as file:
        file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION, program=f"deeph-tracegrad {__version__}")
        for key, value in datasets.items():
            file.create_dataset(key, data=value)


def read_bands(path: Path) -> BandStructure:
    """Read a file of `write_bands`.

    Raises:
        ReadError: the file is missing, damaged or of another kind.
    """
    try:
        with h5py.File(path) as file:
            return _from_datasets(file)
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError) as error:
        raise ReadError(path, f"this is not a whole file of the command `bands`: {error}") from error


def _from_datasets(file: h5py.File) -> BandStructure:
    if file.attrs.get("format") != FORMAT or int(file.attrs["format_version"]) != FORMAT_VERSION:
        raise ValueError(f"its format is not {FORMAT!r}, version {FORMAT_VERSION}")
    labels = [[label.decode().replace(GAMMA_NAME, "Γ") for label in pair] for pair in file["hsk_symbol_list"][()]]
    path = KPath(
        file["kpoints_frac_list"][()],
        file["k_path_density_list"][()],
        tuple((start, end) for start, end in labels),
        file["rlv"][()],
    )
    level = float(file["fermi_energy_before_shift_eV"][()])
    top, bottom = (None if np.isnan(edge) else float(edge) for edge in file["band_edges_eV"][()])
    shape = (int(file["band_spin"][-1]) + 1, -1, len(path.k))
    return BandStructure(
        path,
        (file["band_data"][()] + level).reshape(shape).transpose(0, 2, 1),
        file["band_residuals_eV"][()].reshape(shape).transpose(0, 2, 1),
        int(file["first_band"][()]),
        FermiLevel(level, file["fermi_source"][()].decode(), top, bottom, bool(file["fermi_of_whole_zone"][()])),
        SpinMode(file["spin_mode"][()].decode()),
        json.loads(file["provenance"][()]),
    )
