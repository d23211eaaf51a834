"""The edges of the gap: on a mesh, and between its points.

Shape letters: K k-points, n bands, s spin channels.
"""

import numpy as np

from deeph_tracegrad.inference.bloch import BlochOperators
from deeph_tracegrad.inference.kpoints import over_k_points
from deeph_tracegrad.inference.solvers.dense import dense_energies

ZERO_GAP = 1e-3  # eV; bands closer than this touch
SEARCH_STEPS = 60
FINEST_STEP = 1 / 4096  # of the mesh's spacing; the tips of graphene's cones are then 0.2 meV apart


def mesh_energies(operators: BlochOperators, k_points: np.ndarray) -> np.ndarray:
    """All eigenvalues at the k-points (K, 3), (s, K, n) eV; the MPI ranks share the k-points.

    n is the number of states that every k-point has: where S(k) is nearly singular a few of the highest are missing.
    """

    def solve(k: np.ndarray) -> list[np.ndarray]:
        overlap = operators.overlap.at_k(k)
        return [dense_energies(channel.at_k(k), overlap) for channel in operators.hamiltonian]

    solved = over_k_points(solve, k_points, operators.num_orbitals, "Fermi level")
    common = min(len(energies) for channels in solved for energies in channels)
    return np.array([[energies[:common] for energies in channels] for channels in solved]).swapaxes(0, 1)


def band_edges(energies: np.ndarray, level: float) -> tuple[float, float] | None:
    """Top of the bands below a level and bottom of those above, eV; None where a band crosses it.

    Where no band was computed below, the top is -inf, and where none was above, the bottom is inf.

    energies: (..., K, n) with one band a column; NaN where a state was not computed.
    """
    bands = np.moveaxis(energies, -1, -2).reshape(-1, energies.shape[-2])
    bands = bands[~np.isnan(bands).all(axis=1)]
    top, bottom = np.nanmax(bands, axis=1), np.nanmin(bands, axis=1)
    if ((bottom < level) & (top > level)).any():
        return None
    return float(top[top <= level].max(initial=-np.inf)), float(bottom[top > level].min(initial=np.inf))


def search_band_edges(
    operators: BlochOperators, k_points: np.ndarray, energies: np.ndarray, level: float, divisions: tuple[int, int, int]
) -> tuple[float, float]:
    """Top of the valence and bottom of the conduction bands between the points of a mesh, eV; top > bottom in a metal.

    A compass search from the mesh's own edges: of Dirac cones, which a mesh misses, it finds the tips.

    Args:
        operators: H and S.
        k_points: (K, 3) of the mesh.
        energies: (s, K, n) on the mesh, eV.
        level: in the gap that the mesh shows, eV.
        divisions: of the mesh; one point along an axis means no bands along it.
    """
    filled = (energies[:, 0] < level).sum(axis=1)

    def edges(states: np.ndarray) -> np.ndarray:
        """(2, K): minus the top, and the bottom, so that both are sought as minima."""
        tops = [channel[:, count - 1] for channel, count in zip(states, filled, strict=True) if count]
        bottoms = [channel[:, count] for channel, count in zip(states, filled, strict=True) if count < states.shape[2]]
        return np.stack([-np.max(tops, axis=0), np.min(bottoms, axis=0)])

    on_mesh = edges(energies)
    best, place = on_mesh.min(axis=1), k_points[on_mesh.argmin(axis=1)]
    step = np.full(2, 0.5)
    axes = np.eye(3)[np.array(divisions) > 1] / np.array(divisions)
    compass = np.concatenate([axes, -axes])
    for _ in range(SEARCH_STEPS if len(compass) else 0):  # the levels of a molecule have no k
        if step.max() < FINEST_STEP:
            break
        around = place[:, None] + step[:, None, None] * compass
        found = edges(mesh_energies(operators, around.reshape(-1, 3))).reshape(2, 2, len(compass))
        for edge in (0, 1):
            nearest = int(found[edge, edge].argmin())
            if found[edge, edge, nearest] < best[edge]:
                best[edge], place[edge] = found[edge, edge, nearest], around[edge, nearest]
            else:
                step[edge] /= 2
    return float(-best[0]), float(best[1])
