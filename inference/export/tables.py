"""Band structures as tables of numbers: CSV, and a script with data for gnuplot. Energies count from the Fermi level.

Shape letters: K k-points, n bands, s spin channels.
"""

import csv
from pathlib import Path

import numpy as np

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.inference.bands import BandStructure

COLUMNS = ("spin", "band", "point", "k1", "k2", "k3", "distance_per_A", "energy_eV")


def write_csv(file: Path, bands: BandStructure) -> None:
    """One line for each state: spin (empty where it stands for both), band and k-point from 1, k, path length, E."""
    path, names = bands.path, ("",) if len(bands.energies) == 1 else ("up", "down")
    with atomic_path(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for spin, channel in enumerate(bands.energies - bands.fermi.level):
            for band, energies in enumerate(channel.T, start=bands.first_band + 1):
                for point in np.flatnonzero(~np.isnan(energies)):
                    k = [f"{value:.10g}" for value in path.k[point]]
                    place, energy = f"{path.distance[point]:.8f}", f"{energies[point]:.8f}"
                    writer.writerow([names[spin], band, point + 1, *k, place, energy])


def write_gnuplot(file: Path, bands: BandStructure) -> None:
    """A script for gnuplot 5 that holds the bands and draws them: `gnuplot -p FILE`."""
    places = bands.path.corner_distance
    ticks = ", ".join(f'"{label}" {place:.8f}' for label, place in zip(bands.path.ticks, places, strict=True))
    lines = ["# bands by deeph-tracegrad; energies in eV from the Fermi level, path length in 1/Å", "set encoding utf8"]
    for spin, channel in enumerate(bands.energies - bands.fermi.level):
        lines.append(f"$bands{spin} << EOD")
        for energies in channel.T:
            for segment in bands.path.segments:
                points = zip(bands.path.distance[segment], energies[segment], strict=True)
                lines += [f"{x:.8f} {energy:.8f}" if np.isfinite(energy) else "" for x, energy in points]
                lines.append("")
        lines.append("EOD")
    titles = ("notitle",) if len(bands.energies) == 1 else ('title "spin up"', 'title "spin down"')
    curves = [f"$bands{spin} with lines linetype {spin + 1} {title}" for spin, title in enumerate(titles)]
    lines += [
        f"set xtics ({ticks})",
        "set grid xtics linetype -1",
        *([f"set xrange [0:{places[-1]:.8f}]"] if places[-1] > 0 else []),
        f"set yrange [{bands.shown_range[0]:g}:{bands.shown_range[1]:g}]",
        'set ylabel "E - E_F (eV)"',
        f"plot 0 notitle linetype 0, {', '.join(curves)}",
    ]
    with atomic_path(file) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
