"""Whitespace-separated numbers of a large text, parsed in bulk.

One `float` a token would dominate the reading of a matrix; here the digits of thousands of tokens are taken together
as rows of one byte array.

Shape letters: T tokens, W characters of one format.
"""

from functools import cached_property

import numpy as np

CHUNK = 1 << 13  # tokens at a time: their digits stay in the cache
MAX_WIDTH = 40
EXACT_DIGITS = 15  # decimal digits that double precision holds exactly
ZERO = np.uint8(ord("0"))
POWERS_OF_TEN = np.array([float(f"1e{power}") for power in range(128)])


class Tokens:
    """The tokens of a text that holds nothing but numbers and whitespace.

    Raises:
        ValueError: another character occurs, or a token longer than any number.
    """

    def __init__(self, text: bytes) -> None:
        stray = text.translate(None, b"0123456789+-.eE \t\r\n")
        if stray:
            raise ValueError(f"unexpected character {stray[:1]!r} among the numbers")
        self._text = np.frombuffer(b" " * MAX_WIDTH + text + b" ", dtype=np.uint8)
        edges = np.flatnonzero(np.diff(self._text > ord(" "))) + 1
        self._starts, self._ends = edges[::2], edges[1::2]
        if self.lengths.max(initial=0) > MAX_WIDTH:
            raise ValueError(f"more than {MAX_WIDTH} characters without a space")

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self._starts)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Characters of each token, (T,) int64."""
        return self._ends - self._starts

    def word(self, place: int) -> bytes:
        """One token."""
        return self._text[self._starts[place] : self._ends[place]].tobytes()

    def are_zero(self, begin: int, end: int) -> bool:
        """Whether the tokens of this range all exist and are a lone 0."""
        tokens = slice(begin, end)
        lone = (self.lengths[tokens] == 1) & (self._text[self._starts[tokens]] == ord("0"))
        return len(lone) == end - begin and bool(lone.all())

    def integers(self, places: np.ndarray) -> np.ndarray:
        """The tokens at these places, (T,) int, as non-negative integers, int64.

        Raises:
            ValueError: one of them is not such a number.
        """
        result = np.zeros(len(places), dtype=np.int64)
        for begin in range(0, len(places), CHUNK):
            chunk = places[begin : begin + CHUNK]
            length = self.lengths[chunk]
            if length.max() > EXACT_DIGITS:
                raise ValueError(f"{self.word(chunk[length.argmax()]).decode()} stands where an index should")
            for place in range(length.max()):  # counted from the last digit
                digit = (self._text[self._ends[chunk] - 1 - place] - ZERO) * (length > place)
                if digit.max() > 9:
                    raise ValueError(f"{self.word(chunk[digit.argmax()]).decode()} stands where an index should")
                result[begin : begin + CHUNK] += digit.astype(np.int64) * 10**place
        return result

    def decimals(self, places: np.ndarray) -> np.ndarray:
        """The tokens at these places, (T,) int, as float64.

        Raises:
            ValueError: one of them is not a finite number.
        """
        result = np.empty(len(places))
        for begin in range(0, len(places), CHUNK):
            chunk = places[begin : begin + CHUNK]
            values = self._scientific(chunk)
            if values is None:
                values = np.array([float(self.word(place)) for place in chunk])
            result[begin : begin + CHUNK] = values
        if not np.isfinite(result).all():
            raise ValueError("a number beyond the range of double precision")
        return result

    def _scientific(self, places: np.ndarray) -> np.ndarray | None:
        """Tokens such as -1.23456789e-02, all with the digits of the first; None where one is not like that.

        An integer below 2**53 over a power of ten up to 10**22 is rounded once, so that the result equals `float`
        for all but numbers smaller than about 1e-14, which may differ in the last bit.
        """
        fraction = self.word(places[0]).lstrip(b"+-").find(b"e") - 2
        width = fraction + 7  # sign, digit, point, fraction, e, sign, two digits
        length = self.lengths[places]
        if not 0 < fraction < EXACT_DIGITS or length.max() > width or length.min() < width - 1:
            return None
        text = self._text[self._ends[places] - width + np.arange(width)[:, None]]  # (W, T), aligned at the ends
        negative = (length == width) & (text[0] == ord("-"))
        small = text[-3] == ord("-")
        regular = (
            (negative | (length < width))
            & (text[2] == ord("."))
            & (text[-4] == ord("e"))
            & (small | (text[-3] == ord("+")))
        )
        digits = text - ZERO
        mantissa = np.concatenate([digits[1:2], digits[3:-4]])
        if not regular.all() or mantissa.max() > 9 or digits[-2:].max() > 9:
            return None
        exponent = digits[-2:].T @ np.array([10, 1])
        power = np.where(small, -exponent, exponent) - fraction
        scale = POWERS_OF_TEN[np.abs(power)]
        value = POWERS_OF_TEN[fraction::-1].copy() @ mantissa.astype(np.float64)
        value = np.where(power < 0, value / scale, value * scale)
        return np.where(negative, -value, value)
