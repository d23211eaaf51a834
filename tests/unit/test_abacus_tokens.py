import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeph_tracegrad.preprocess.abacus.tokens import CHUNK, Tokens

normal = st.floats(min_value=1e-10, max_value=1e9).map(lambda x: round(x, 14)) | st.just(0.0)


@given(st.lists(st.tuples(st.booleans(), normal), min_size=1), st.integers(min_value=1, max_value=16))
def test_numbers_of_one_format_are_parsed_exactly(values, digits):
    words = [f"{-value if negative else value:.{digits}e}" for negative, value in values]
    tokens = Tokens(" ".join(words).encode())
    assert tokens.decimals(np.arange(len(words))).tolist() == [float(word) for word in words]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_of_any_format_are_parsed_to_the_last_bit_or_two(values):
    words = [repr(value) for value in values]
    tokens = Tokens("\n".join(words).encode())
    np.testing.assert_allclose(tokens.decimals(np.arange(len(words))), values, rtol=5e-16, atol=0)


@given(st.lists(st.integers(min_value=0, max_value=10**15 - 1)))
def test_integers_are_parsed_exactly(values):
    tokens = Tokens("  ".join(map(str, values)).encode())
    assert tokens.integers(np.arange(len(values))).tolist() == values


def test_more_numbers_than_are_taken_at_once():
    values = np.arange(2 * CHUNK + 17)
    tokens = Tokens(" ".join(map(str, values)).encode())
    np.testing.assert_array_equal(tokens.integers(values), values)
    np.testing.assert_array_equal(tokens.decimals(values), values)


def test_tiny_numbers_are_parsed_to_the_last_bit_or_two():
    words = ["9.08112143e-26", "-3.49575064e-23", "1.20149909e-99"]
    values = Tokens(" ".join(words).encode()).decimals(np.arange(3))
    np.testing.assert_allclose(values, [float(word) for word in words], rtol=5e-16)


@pytest.mark.parametrize("text", [b"1.0 nan", b"1_0", b"0x10", b"inf", b"1.0 \xff", b"1.0d+00", b"9" * 50])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError):
        Tokens(text)


@pytest.mark.parametrize("text", [b"1.2.3", b"--1", b"1e", b"e5", b"1.2e-0-", b"1e999", b"+-1.0", b"1.23-e01"])
def test_what_only_looks_like_a_number_is_refused(text):
    tokens = Tokens(b"1.0 " + text)
    with pytest.raises(ValueError):
        tokens.decimals(np.arange(2))
    with pytest.raises(ValueError, match="where an index should"):
        tokens.integers(np.array([1]))
