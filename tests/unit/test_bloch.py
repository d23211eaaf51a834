from dataclasses import replace

import numpy as np
import pytest

from deeph_tracegrad.blocks import BlockMatrix, dense_at_k
from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference import bloch_sum
from deeph_tracegrad.inference.bloch import BlochPattern, SparseOperator, bloch_operators
from deeph_tracegrad.orbitals import SpinMode
from materials import random_material

K = (0.13, -0.27, 0.41)
CORNERS = [(0, 0, 0), (0.5, 0, 0.5), (-0.5, 1.5, 0)]  # k and -k are the same point there


@pytest.fixture(params=["kernel", "numpy"], autouse=True)
def means(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(bloch_sum, "compiled", lambda _: False)
        monkeypatch.setattr(bloch_sum, "CHUNK", 100)


@pytest.mark.parametrize("spin", SpinMode)
def test_equals_the_dense_sum(spin):
    material = random_material(spin)
    operators = bloch_operators(material)
    for operator, matrix in zip(operators.hamiltonian, material.hamiltonian, strict=True):
        np.testing.assert_allclose(operator.at_k(K).toarray(), dense_at_k(matrix, K), rtol=0, atol=1e-12)
    assert operators.num_orbitals == material.num_orbitals * spin.components
    assert operators.is_real == (spin is not SpinMode.NONCOLLINEAR)


def test_overlap_of_spinors_is_the_same_for_both_spins_of_an_atom():
    material = random_material(SpinMode.NONCOLLINEAR)
    overlap = bloch_operators(material).overlap.at_k(K).toarray()
    sizes = material.overlap.sizes
    spin = np.concatenate([np.repeat([0, 1], size) for size in sizes])
    spinless = dense_at_k(material.overlap, K)
    for up in (0, 1):
        np.testing.assert_allclose(overlap[np.ix_(spin == up, spin == up)], spinless, rtol=0, atol=1e-12)
    assert not overlap[np.ix_(spin == 0, spin == 1)].any()


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("spin", SpinMode)
def test_is_hermitian_to_the_last_bit(spin, single):
    operators = bloch_operators(random_material(spin))
    for operator in (*operators.hamiltonian, operators.overlap):
        for k in (K, *CORNERS):
            matrix = operator.at_k(k, single=single).toarray()
            assert np.array_equal(matrix, matrix.conj().T)


@pytest.mark.parametrize("k", CORNERS)
@pytest.mark.parametrize("spin", SpinMode)
def test_is_real_where_k_and_minus_k_are_one(spin, k):
    material = random_material(spin)
    operators = bloch_operators(material)
    assert operators.overlap.at_k(k).dtype == np.float64
    for operator, matrix in zip(operators.hamiltonian, material.hamiltonian, strict=True):
        found = operator.at_k(k)
        assert found.dtype == (np.complex128 if spin is SpinMode.NONCOLLINEAR else np.float64)
        np.testing.assert_allclose(found.toarray(), dense_at_k(matrix, k), rtol=0, atol=1e-12)


@pytest.mark.parametrize("spin", SpinMode)
def test_single_precision(spin):
    operators = bloch_operators(random_material(spin))
    for operator in (*operators.hamiltonian, operators.overlap):
        for k, dtype in ((K, np.complex64), (CORNERS[0], operator.at_k(CORNERS[0]).dtype)):
            found = operator.at_k(k, single=True)
            assert found.dtype == {"complex128": np.complex64, "float64": np.float32}.get(str(dtype), dtype)
            np.testing.assert_allclose(found.toarray(), operator.at_k(k).toarray(), rtol=1e-6, atol=1e-6)


def test_all_matrices_share_one_pattern_at_all_k():
    operators = bloch_operators(random_material(SpinMode.COLLINEAR))
    first, second = operators.hamiltonian[0].at_k(K), operators.overlap.at_k((0, 0, 0))
    assert np.shares_memory(first.indices, second.indices)
    assert first.has_canonical_format


def test_pattern_holds_blocks_that_only_one_matrix_has():
    material = random_material(SpinMode.NONE)
    here = (material.overlap.pairs[:, :3] == 0).all(axis=1)
    short = material.overlap.on_pairs(material.overlap.pairs[here])
    operators = bloch_operators(replace(material, overlap=short))
    np.testing.assert_allclose(operators.overlap.at_k(K).toarray(), dense_at_k(short, K), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        operators.hamiltonian[0].at_k(K).toarray(), dense_at_k(material.hamiltonian[0], K), rtol=0, atol=1e-12
    )


def test_a_block_above_the_diagonal_alone_is_mirrored():
    matrix = BlockMatrix.of(
        np.array([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [1, 0, 0, 0, 1]]), np.array([1.0, 2.0, 3.0]), np.array([1, 1])
    )
    pattern = BlochPattern.of([matrix.pairs], matrix.sizes)
    found = SparseOperator.of(matrix, pattern).at_k(np.array([0.25, 0, 0])).toarray()
    np.testing.assert_allclose(found, [[1, 3j], [-3j, 2]], atol=1e-15)


def test_missing_matrices_are_named():
    material = random_material(SpinMode.NONE)
    with pytest.raises(SolverError, match="Hamiltonian"):
        bloch_operators(material.with_hamiltonian(()))


@pytest.mark.parametrize("spin", SpinMode)
def test_a_sum_written_over_another(spin):
    operators = bloch_operators(random_material(spin))
    for operator in (*operators.hamiltonian, operators.overlap):
        for other in (K, CORNERS[0]):  # there the type may differ, so that nothing is written over
            expected = operator.at_k((0.3, 0.1, 0.2)).toarray()
            kept = operator.at_k(other)
            found = operator.at_k((0.3, 0.1, 0.2), out=kept)
            assert np.array_equal(found.toarray(), expected)
            assert np.shares_memory(found.data, kept.data) == (kept.dtype == np.complex128)
