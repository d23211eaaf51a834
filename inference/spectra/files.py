"""Densities of states and unfolded spectra as HDF5 and CSV.

Energies are absolute; `fermi_level_eV` tells where the Fermi level lies. Only the CSV counts from it.

Shape letters: G intervals of energy, P groups of orbitals, s spin channels, K k-points, n states.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deeph_tracegrad import __version__
from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.hdf5_files import new_hdf5
from deeph_tracegrad.inference.spectra.dos import DensityOfStates
from deeph_tracegrad.inference.spectra.supercell import SupercellMap
from deeph_tracegrad.inference.spectra.unfolding import UnfoldedStates

DOS_FORMAT = "deeph-tracegrad density of states"
UNFOLDED_FORMAT = "deeph-tracegrad unfolded spectrum"
FORMAT_VERSION = 1


def write_dos(file: Path, dos: DensityOfStates) -> None:
    """A density of states with its groups, as HDF5."""
    datasets = {
        "edges_eV": dos.edges,
        "energies_eV": dos.energies,
        "total": dos.total,
        "groups": dos.of_groups,
        "labels": list(dos.labels),
        "electrons_below_edges": dos.below,
        "electrons_below_fermi_level": dos.occupied,
        "fermi_level_eV": dos.fermi.level,
        "fermi_source": dos.fermi.source,
        "method": dos.method,
        "spin_mode": str(dos.spin),
        "provenance": json.dumps(dict(dos.provenance), default=str),
    }
    if dos.errors is not None:
        datasets |= {"total_error": dos.errors[:, 0], "groups_error": dos.errors[:, 1:]}
    _write(file, DOS_FORMAT, datasets)


def write_dos_csv(file: Path, dos: DensityOfStates) -> None:
    """A line for each interval: energy from the Fermi level; total, electrons below its end, groups, for each spin."""
    spins = ("",) if len(dos.total) == 1 else (" up", " down")
    names = ["total", "integrated", *dos.labels]
    header = ["energy_eV", *(f"{name}{spin}" for spin in spins for name in names)]
    integrated = dos.below.sum(axis=1)[:, 1:]
    columns = np.concatenate([np.stack([dos.total, integrated], axis=1), dos.of_groups], axis=1)
    table = np.column_stack([dos.energies - dos.fermi.level, columns.reshape(-1, len(dos.energies)).T])
    with atomic_path(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows([f"{value:.8g}" for value in row] for row in table)


def write_unfolded(file: Path, states: UnfoldedStates, supercell: SupercellMap) -> None:
    """The states and their weights, and where the atoms stand, as HDF5."""
    datasets = {
        "kpoints_frac": states.path.k,
        "kpoints_distance": states.path.distance,
        "segment_points": states.path.counts,
        "segment_labels": [list(pair) for pair in states.path.labels],
        "reciprocal": states.path.reciprocal,
        "energies_eV": states.energies,
        "weights": states.weights,
        "supercell_matrix": supercell.transform,
        "atom_sites": supercell.site,
        "atom_cells": supercell.cell,
        "atom_displacements_A": supercell.displacement,
        "fermi_level_eV": states.fermi.level,
        "fermi_source": states.fermi.source,
        "spin_mode": str(states.spin),
        "provenance": json.dumps(dict(states.provenance), default=str),
    }
    _write(file, UNFOLDED_FORMAT, datasets)


def _write(file: Path, kind: str, datasets: Mapping[str, Any]) -> None:
    with atomic_path(file) as temporary, new_hdf5(temporary) as stream:
        stream.attrs.update(format=kind, format_version=FORMAT_VERSION, program=f"deeph-tracegrad {__version__}")
        for key, value in datasets.items():
            stream.create_dataset(key, data=value)
