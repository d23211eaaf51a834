"""Bands in the formats of other programs are read back, by our reader of OpenMX' files and by pymatgen."""

import csv
import json
import shutil
import subprocess

import numpy as np
import pytest
from pymatgen.core.lattice import Lattice
from pymatgen.electronic_structure.bandstructure import BandStructureSymmLine
from pymatgen.electronic_structure.core import Spin

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.bands import BandStructure
from deeph_tracegrad.inference.export import EXPORTS, to_pymatgen
from deeph_tracegrad.inference.fermi import FermiLevel
from deeph_tracegrad.inference.kpath import parse_corners, path_between, path_through
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.openmx.bands_file import read_openmx_band

LEVEL = -3.25


def made_up(spin, *, holes=False, corners="G 0 0 0, X 1/2 0 0, M 1/2 1/2 0 | R 1/2 1/2 1/2, G 0 0 0"):
    path = path_between(parse_corners(corners), Lattice.orthorhombic(3.0, 4.0, 5.0), 30.0)
    band = np.arange(5)
    energies = np.cos(2 * np.pi * path.k).sum(axis=1)[:, None] + 4.0 * band - 12.0
    energies = np.stack([energies + 0.3 * channel for channel in range(spin.channels)])
    if holes:  # states that were not computed, of the lowest and the highest band
        energies[:, :4, 0] = np.nan
        energies[-1, -3:, -1] = np.nan
    return BandStructure(path, energies, np.zeros_like(energies), 7, FermiLevel(LEVEL, "test"), spin)


def written(tmp_path, name, bands):
    suffix, write = EXPORTS[name]
    file = tmp_path / f"bands{suffix}"
    write(file, bands)
    return file


@pytest.mark.parametrize("spin", list(SpinMode))
@pytest.mark.parametrize("holes", [False, True])
def test_openmx_band_file_is_read_back(tmp_path, spin, holes):
    bands = made_up(spin, holes=holes)
    read = read_openmx_band(written(tmp_path, "openmx", bands))
    expected = bands.energies[:, :, 1:-1] if holes else bands.energies
    np.testing.assert_allclose(read.energies, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(read.k, bands.path.k, atol=1e-14)
    np.testing.assert_allclose(read.reciprocal, bands.path.reciprocal, atol=1e-13)
    assert read.fermi_level == pytest.approx(LEVEL, abs=1e-12)
    assert [segment.points for segment in read.segments] == bands.path.counts.tolist()
    assert [segment.labels for segment in read.segments] == [("G", "X"), ("X", "M"), ("R", "G")]


def test_openmx_band_file_of_openmx_is_written_as_it_was(unpacked, tmp_path):
    """Every number of the run's own file; so what reads those reads ours."""
    source = unpacked("openmx/fe_bcc_spin") / "openmx.Band"
    theirs = read_openmx_band(source)
    from pymatgen.core.structure import Structure

    structure = Structure(Lattice(2 * np.pi * np.linalg.inv(theirs.reciprocal).T), ["Fe"], [[0, 0, 0]])
    path, order = path_through(theirs.k, structure, [segment.labels for segment in theirs.segments])
    energies = theirs.energies[:, order]
    bands = BandStructure(
        path, energies, np.zeros_like(energies), 0, FermiLevel(theirs.fermi_level, ""), SpinMode.COLLINEAR
    )
    words = written(tmp_path, "openmx", bands).read_text().split()
    expected = source.read_text().split()
    assert len(words) == len(expected)
    numbers = [(float(one), float(other)) for one, other in zip(words, expected, strict=True) if not one.isalpha()]
    np.testing.assert_allclose(*zip(*numbers, strict=True), rtol=0, atol=1e-9)


@pytest.mark.parametrize("spin", [SpinMode.NONE, SpinMode.COLLINEAR])
def test_pymatgen_reads_its_json(tmp_path, spin):
    bands = made_up(spin, holes=True)
    file = written(tmp_path, "pymatgen", bands)
    read = BandStructureSymmLine.from_dict(json.loads(file.read_text()))
    assert read.efermi == LEVEL
    assert read.nb_bands == 3
    assert [branch["name"] for branch in read.branches] == [r"\Gamma-X", "X-M", r"R-\Gamma"]
    for channel, number in zip((Spin.up, Spin.down), range(spin.channels), strict=False):
        np.testing.assert_allclose(read.bands[channel], bands.energies[number, :, 1:-1].T)
    np.testing.assert_allclose([k.frac_coords for k in read.kpoints], bands.path.k)
    np.testing.assert_allclose(np.array(read.distance)[[0, 11, -1]] / (2 * np.pi), bands.path.distance[[0, 11, -1]])


def test_pymatgen_knows_metals_and_insulators():
    assert to_pymatgen(made_up(SpinMode.NONE)).is_metal()
    flat = made_up(SpinMode.NONE, corners="G 0 0 0, X 1/2 0 0")
    flat.energies[...] = np.array([-6.0, -5.0, -4.0, -2.0, -1.0])
    assert to_pymatgen(flat).get_band_gap()["energy"] == pytest.approx(2.0)


@pytest.mark.parametrize("spin", [SpinMode.NONE, SpinMode.COLLINEAR])
def test_csv_holds_every_state_that_was_computed(tmp_path, spin):
    bands = made_up(spin, holes=True)
    with written(tmp_path, "csv", bands).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == (~np.isnan(bands.energies)).sum()
    assert {row["spin"] for row in rows} == ({""} if spin is SpinMode.NONE else {"up", "down"})
    for row in rows[:: len(rows) // 50]:
        channel, point, band = int(row["spin"] == "down"), int(row["point"]) - 1, int(row["band"]) - 8
        assert float(row["energy_eV"]) == pytest.approx(bands.energies[channel, point, band] - LEVEL, abs=1e-8)
        assert float(row["distance_per_A"]) == pytest.approx(bands.path.distance[point], abs=1e-8)
        np.testing.assert_allclose([float(row[f"k{axis}"]) for axis in (1, 2, 3)], bands.path.k[point], atol=1e-9)


@pytest.mark.parametrize("spin", [SpinMode.NONE, SpinMode.COLLINEAR])
def test_gnuplot_script_holds_the_bands(tmp_path, spin):
    bands = made_up(spin, holes=True)
    file = written(tmp_path, "gnuplot", bands)
    blocks = file.read_text().split("<< EOD\n")[1:]
    assert len(blocks) == spin.channels
    for block, channel in zip(blocks, bands.energies - LEVEL, strict=True):
        data = [line.split() for line in block.split("EOD")[0].splitlines() if line]
        assert np.isnan(channel).sum() + len(data) == channel.size
        np.testing.assert_allclose([float(row[1]) for row in data], channel.T[~np.isnan(channel.T)], atol=1e-8)
    if shutil.which("gnuplot"):
        options = ["-e", f"set terminal svg; set output '{tmp_path / 'bands.svg'}'", str(file)]
        done = subprocess.run(["gnuplot", *options], capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        assert not done.stderr
        assert (tmp_path / "bands.svg").stat().st_size > 5000


def test_bands_of_which_none_is_complete_are_refused(tmp_path):
    bands = made_up(SpinMode.NONE)
    bands.energies[0, 2] = np.nan
    with pytest.raises(SolverError, match="at every k-point"):
        written(tmp_path, "openmx", bands)
    assert not list(tmp_path.iterdir())
