import numpy as np
import pytest
import torch
from e3nn import o3

from deeph_tracegrad.frames import REVERSAL, edge_frames, rotation_matrices, spin_rotation

PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


@pytest.fixture
def rotations():
    matrices = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 3, 3)))[0]
    matrices *= np.linalg.det(matrices)[:, None, None]
    # the Euler angles' poles
    matrices[:4] = [np.eye(3), np.diag([1, -1, -1]), np.diag([-1, 1, -1]), np.diag([-1, -1, 1])]
    return matrices


@pytest.fixture
def vectors():
    vectors = np.random.default_rng(1).normal(size=(200, 3))
    vectors[:6] = [[0, 0, 2], [0, 0, -3], [1e-13, 0, 1], [1e-7, -1e-9, -1], [1, 0, 0], [0, -1, 0]]
    return vectors


@pytest.mark.parametrize("degree", range(7))
def test_rotation_matrices_turn_e3nns_harmonics(degree, rotations):
    points = np.random.default_rng(2).normal(size=(40, 3))
    turned = np.einsum("eab,eb->ea", rotations, points)

    def harmonics(x):  # e3nn's axes are (y, z, x)
        return o3.spherical_harmonics(degree, torch.from_numpy(x[:, [1, 2, 0]]), normalize=True).numpy()

    ours = np.einsum("eab,eb->ea", rotation_matrices(degree, rotations), harmonics(points))
    assert ours == pytest.approx(harmonics(turned), abs=1e-13)


def test_rotation_matrices_of_torch_and_numpy_agree(rotations):
    ours = rotation_matrices(3, torch.from_numpy(rotations))
    assert ours.numpy() == pytest.approx(rotation_matrices(3, rotations), abs=1e-14)


def test_spinors_turn_with_their_spin(rotations):
    fields = np.random.default_rng(3).normal(size=(40, 3))
    u = spin_rotation(rotations)
    before = np.einsum("en,nab->eab", fields, PAULI)
    after = np.einsum("en,nab->eab", np.einsum("eab,eb->ea", rotations, fields), PAULI)
    assert u @ before @ u.conj().transpose(0, 2, 1) == pytest.approx(after, abs=1e-13)


def test_frames_are_rotations_with_the_bond_as_third_axis(vectors):
    frames = edge_frames(vectors)
    assert frames @ frames.transpose(0, 2, 1) == pytest.approx(np.broadcast_to(np.eye(3), frames.shape), abs=1e-12)
    assert np.linalg.det(frames) == pytest.approx(np.ones(len(frames)), abs=1e-12)
    length = np.linalg.norm(vectors, axis=1)[:, None]
    assert frames[:, 2] == pytest.approx(vectors / length, abs=1e-12)


def test_frame_of_the_reversed_bond(vectors):
    assert np.array_equal(edge_frames(-vectors), REVERSAL[:, None] * edge_frames(vectors))


def test_on_site_frames_are_global():
    assert np.array_equal(edge_frames(np.zeros((2, 3))), np.broadcast_to(np.eye(3), (2, 3, 3)))
