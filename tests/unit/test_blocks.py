"""Atom-pair blocks: every operation against a plain loop or an identity of matrices."""

import numpy as np
import pytest

from deeph_tracegrad.blocks import BlockMatrix, dense_at_k, find_pairs, reversed_pairs, union_pairs
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.orbitals import ElementBasis, OrbitalConvention

SIZES = np.array([1, 4, 4, 9])
K = np.array([0.17, -0.31, 0.44])


def random_pairs(rng, count=40):
    pairs = np.concatenate([rng.integers(-2, 3, (4 * count, 3)), rng.integers(0, len(SIZES), (4 * count, 2))], axis=1)
    return rng.permutation(np.unique(pairs, axis=0))[:count].astype(np.int32)


def random_matrix(rng, pairs, *, spinor=False):
    sizes = SIZES * (2 if spinor else 1)
    length = (sizes[pairs[:, 3]] * sizes[pairs[:, 4]]).sum()
    entries = rng.normal(size=length)
    return BlockMatrix.of(pairs, entries + 1j * rng.normal(size=length) if spinor else entries, sizes)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture(params=[False, True], ids=["real", "spinor"])
def matrix(request, rng):
    return random_matrix(rng, random_pairs(rng), spinor=request.param)


def looked_up(matrix, pair):
    places = [place for place, own in enumerate(matrix.pairs.tolist()) if own == list(pair)]
    return matrix.block(places[0]) if places else None


def test_offsets_and_blocks(matrix):
    assert matrix.offsets[0] == 0
    for place, (_, _, _, i, j) in enumerate(matrix.pairs.tolist()):
        assert matrix.block(place).shape == (matrix.sizes[i], matrix.sizes[j])
    together = np.concatenate([matrix.block(place).ravel() for place in range(len(matrix))])
    np.testing.assert_array_equal(together, matrix.entries)


def test_entries_of_a_wrong_length_are_refused(matrix):
    with pytest.raises(MismatchError, match="need"):
        BlockMatrix.of(matrix.pairs, matrix.entries[:-1], matrix.sizes)


def test_stacks_hold_every_block_once(matrix):
    seen = []
    for (rows, columns), members, places in matrix.stacks():
        assert places.shape == (len(members), rows * columns)
        for member, place in zip(members, places, strict=True):
            np.testing.assert_array_equal(matrix.entries[place], matrix.block(member).ravel())
        seen += members.tolist()
    assert sorted(seen) == list(range(len(matrix)))


def test_scattered_entries_make_the_blocks_that_they_came_from(matrix, rng):
    starts = np.cumsum(matrix.sizes) - matrix.sizes
    entries = []
    for place, (*cell, i, j) in enumerate(matrix.pairs.tolist()):
        for (row, column), value in np.ndenumerate(matrix.block(place)):
            entries.append((*cell, starts[i] + row, starts[j] + column, value))
    chosen = [entries[place] for place in rng.permutation(len(entries))[: len(entries) * 2 // 3]]
    cells, rows, columns = (np.array([entry[part] for entry in chosen]) for part in (slice(3), 3, 4))
    values = np.array([entry[5] for entry in chosen])
    found = BlockMatrix.scattered(cells, rows, columns, values, matrix.sizes)
    assert np.count_nonzero(found.entries) == len(chosen)
    assert (find_pairs(matrix.pairs, found.pairs) >= 0).all()
    given = {entry[:5] for entry in chosen}
    expected = np.array([entry[5] if entry[:5] in given else 0 for entry in entries])
    np.testing.assert_array_equal(found.on_pairs(matrix.pairs).entries, expected)
    twice = [np.concatenate([part, part[:1]]) for part in (cells, rows, columns, values)]
    with pytest.raises(MismatchError, match="twice"):
        BlockMatrix.scattered(*twice, matrix.sizes)


def test_adjoint(matrix):
    adjoint = matrix.adjoint()
    for place, (x, y, z, i, j) in enumerate(matrix.pairs.tolist()):
        assert adjoint.pairs[place].tolist() == [-x, -y, -z, j, i]
        np.testing.assert_array_equal(adjoint.block(place), matrix.block(place).conj().T)


def test_reverse_finds_partners_and_marks_missing_ones(matrix):
    pairs = matrix.pairs.tolist()
    expected = [pairs.index([-x, -y, -z, j, i]) if [-x, -y, -z, j, i] in pairs else -1 for x, y, z, i, j in pairs]
    assert matrix.reverse.tolist() == expected
    assert -1 in expected


def test_on_pairs_fills_zeros_and_leaves_out(matrix, rng):
    wanted = rng.permutation(np.concatenate([matrix.pairs[::2], reversed_pairs(matrix.pairs[matrix.reverse < 0])]))
    result = matrix.on_pairs(wanted)
    assert result.entries.dtype == matrix.entries.dtype
    np.testing.assert_array_equal(result.pairs, wanted)
    for place, pair in enumerate(wanted.tolist()):
        block = looked_up(matrix, pair)
        np.testing.assert_array_equal(result.block(place), 0 if block is None else block)


def test_on_pairs_of_an_empty_matrix(rng):
    empty = BlockMatrix.of(np.zeros((0, 5)), np.zeros(0), SIZES)
    assert not empty.on_pairs(random_pairs(rng)).entries.any()
    assert len(empty.adjoint()) == 0
    assert empty.symmetrised()[1] == 0


def test_symmetrised_with_missing_partners(matrix):
    symmetric, violation = matrix.symmetrised()
    worst = 0.0
    np.testing.assert_array_equal(symmetric.pairs[: len(matrix)], matrix.pairs)
    for place, (x, y, z, i, j) in enumerate(symmetric.pairs.tolist()):
        own, other = looked_up(matrix, [x, y, z, i, j]), looked_up(matrix, [-x, -y, -z, j, i])
        if own is None:
            expected = other.conj().T
        elif other is None:
            expected = own
        else:
            expected = (own + other.conj().T) / 2
            worst = max(worst, abs(own - other.conj().T).max())
        np.testing.assert_array_equal(symmetric.block(place), expected)
    assert violation == worst
    assert (symmetric.reverse >= 0).all()
    again, violation = symmetric.symmetrised()
    assert violation == 0
    np.testing.assert_array_equal(again.entries, symmetric.entries)


def test_reordered_against_one_block_at_a_time(rng):
    bases = [ElementBasis((0,)), ElementBasis((0, 1)), ElementBasis((0, 1, 2))]
    sizes = np.array([1, 4, 4, 9])
    kinds = np.array([0, 1, 1, 2])
    pairs = random_pairs(rng)
    matrix = random_matrix(rng, pairs)
    np.testing.assert_array_equal(matrix.sizes, sizes)
    orders = [basis.order(OrbitalConvention.ABACUS, OrbitalConvention.DEEPH) for basis in bases]
    result = matrix.reordered(orders, kinds)
    for place, (i, j) in enumerate(pairs[:, 3:].tolist()):
        rows, columns = orders[kinds[i]], orders[kinds[j]]
        expected = matrix.block(place)[rows.index][:, columns.index] * rows.sign[:, None] * columns.sign
        np.testing.assert_array_equal(result.block(place), expected)
    back = [basis.order(OrbitalConvention.DEEPH, OrbitalConvention.ABACUS) for basis in bases]
    np.testing.assert_array_equal(result.reordered(back, kinds).entries, matrix.entries)


def test_find_pairs(rng):
    pairs = random_pairs(rng)
    shuffle = rng.permutation(len(pairs))
    np.testing.assert_array_equal(pairs[find_pairs(pairs, pairs[shuffle])], pairs[shuffle])
    assert find_pairs(pairs, np.array([[9, 9, 9, 0, 0]])).tolist() == [-1]
    assert find_pairs(pairs[:0], pairs[:2]).tolist() == [-1, -1]
    assert len(find_pairs(pairs, pairs[:0])) == 0


def test_a_pair_listed_twice_is_refused(rng):
    pairs = random_pairs(rng)
    twice = np.concatenate([pairs, pairs[3:4]])
    with pytest.raises(MismatchError, match="twice") as error:
        find_pairs(twice, pairs)
    assert str(pairs[3].tolist()) in str(error.value)


def test_impossible_spans_are_refused():
    far = np.array([[2**30, 2**30, 2**30, 0, 0], [-(2**30), -(2**30), -(2**30), 0, 0]])
    with pytest.raises(MismatchError, match="too wide"):
        find_pairs(far, far)


def test_union_keeps_the_first_order(rng):
    pairs = random_pairs(rng)
    first, second = pairs[:25], rng.permutation(pairs[15:])
    union = union_pairs(first, second)
    np.testing.assert_array_equal(union[:25], first)
    assert sorted(union.tolist()) == sorted(pairs.tolist())
    np.testing.assert_array_equal(union_pairs(first), first)


def test_dense_at_k_against_a_plain_sum(matrix):
    starts = np.concatenate([[0], np.cumsum(matrix.sizes)])
    expected = np.zeros((starts[-1], starts[-1]), dtype=complex)
    for place, (*cell, i, j) in enumerate(matrix.pairs.tolist()):
        phase = np.exp(2j * np.pi * K @ cell)
        expected[starts[i] : starts[i + 1], starts[j] : starts[j + 1]] += phase * matrix.block(place)
    np.testing.assert_allclose(dense_at_k(matrix, K), expected, atol=1e-13)


def test_symmetrised_is_hermitian_at_every_k(matrix):
    dense = dense_at_k(matrix.symmetrised()[0], K)
    np.testing.assert_allclose(dense, dense.conj().T, atol=1e-13)
    np.testing.assert_allclose(dense_at_k(matrix.adjoint(), K), dense_at_k(matrix, K).conj().T, atol=1e-13)
