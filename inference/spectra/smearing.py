"""States below an energy, each state spread by a Gaussian.

Shape letters: K k-points, n bands, P groups of orbitals, L levels.
"""

import numpy as np
from scipy.special import ndtr

REACH = 8.0  # standard deviations, beyond which a Gaussian is zero


def smeared_states_below(
    energies: np.ndarray, weights: np.ndarray, shares: np.ndarray, levels: np.ndarray, broadening: float
) -> np.ndarray:
    """What each group has of the states below each level, (P, L), in a cell.

    energies: (K, n) eV. weights: (K,) of the k-points, 1 in sum. shares: (K, n, P) of the groups in the states.
    levels: (L,) ascending, eV. broadening: standard deviation, eV.
    """
    centres = energies.ravel()
    order = np.argsort(centres)
    centres = centres[order]
    of_state = np.repeat(weights, energies.shape[1])[order]
    columns = shares.reshape(len(centres), -1)[order] * of_state[:, None]
    full = np.concatenate([np.zeros((1, columns.shape[1])), columns.cumsum(axis=0)])
    below = np.empty((len(levels), columns.shape[1]))
    for number, level in enumerate(levels):
        first, last = np.searchsorted(centres, [level - REACH * broadening, level + REACH * broadening])
        below[number] = full[first] + ndtr((level - centres[first:last]) / broadening) @ columns[first:last]
    return below.T
