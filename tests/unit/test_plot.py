import numpy as np
import pytest
from PIL import Image
from pymatgen.core.lattice import Lattice

from deeph_tracegrad.inference.bands import BandStructure
from deeph_tracegrad.inference.fermi import FermiLevel
from deeph_tracegrad.inference.kpath import parse_corners, path_between
from deeph_tracegrad.inference.plot import plot_bands
from deeph_tracegrad.orbitals import SpinMode


def made_up(corners, spin, fermi):
    path = path_between(corners, Lattice.cubic(4.0), 80.0)
    energies = np.stack([np.cos(2 * np.pi * path.k).sum(axis=1) + 4 * band for band in range(4)], axis=1) - 6
    energies = np.stack([energies + 0.3 * channel for channel in range(spin.channels)])
    energies[:, :3, 0] = np.nan  # states that were not computed
    return BandStructure(path, energies, np.zeros_like(energies), 0, fermi, spin)


def colours(file):
    with Image.open(file) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}


@pytest.mark.parametrize("spin", [SpinMode.NONE, SpinMode.COLLINEAR])
@pytest.mark.parametrize("window", [None, (-2.0, 3.0)])
def test_draws_bands_over_a_reference(tmp_path, spin, window):
    bands = made_up(parse_corners("G 0 0 0, X 1/2 0 0 | M_1 1/2 1/2 0, G 0 0 0"), spin, FermiLevel(0.0, "", -1.0, 1.0))
    plot_bands(tmp_path / "bands.png", bands, bands, names=("ours", "theirs"), title="Po", window=window)
    assert (0x1F, 0x5F, 0xA8) in colours(tmp_path / "bands.png")
    assert ((0xC8, 0x40, 0x2F) in colours(tmp_path / "bands.png")) == (spin is SpinMode.COLLINEAR)


def test_draws_a_single_level_far_from_the_fermi_level(tmp_path):
    path = path_between([[("Γ", np.zeros(3))]], Lattice.cubic(4.0), 80.0)
    level = BandStructure(path, np.full((1, 1, 1), -40.0), np.zeros((1, 1, 1)), 0, FermiLevel(0.0, ""), SpinMode.NONE)
    plot_bands(tmp_path / "level.png", level)
    assert (0x1F, 0x5F, 0xA8) in colours(tmp_path / "level.png")


def test_draws_the_levels_of_a_molecule(tmp_path):
    molecule = made_up([[("Γ", np.zeros(3))]], SpinMode.NONE, FermiLevel(0.0, ""))
    plot_bands(tmp_path / "levels.png", molecule)
    assert (0x1F, 0x5F, 0xA8) in colours(tmp_path / "levels.png")
