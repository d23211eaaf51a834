"""Numbers that a user gives to commands on spectra."""

import numpy as np

from deeph_tracegrad.errors import ConfigError


def check_window(window: tuple[float, float]) -> None:
    """Whether energies LO HI make a window.

    Raises:
        ConfigError: they do not.
    """
    if not -np.inf < window[0] < window[1] < np.inf:
        raise ConfigError(f"the window {window[0]:g} {window[1]:g} is empty; give LO HI with LO below HI")


def check_fermi_level(level: float) -> None:
    """Whether a Fermi level is a number of eV.

    Raises:
        ConfigError: it is not.
    """
    if not np.isfinite(level):
        raise ConfigError(f"the Fermi level {level} is not a number of eV")


def check_positive(option: str, value: float) -> None:
    """Whether the value of an option is above zero and finite.

    Raises:
        ConfigError: it is not.
    """
    if not 0 < value < np.inf:
        raise ConfigError(f"{option} {value:g} must be a number above 0")
