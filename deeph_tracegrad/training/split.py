"""Which samples of a dataset are trained on, validated on and kept aside."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import numpy as np

from deeph_tracegrad.config import DataSettings
from deeph_tracegrad.errors import ConfigError

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Places in the dataset, ascending."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def labels(self, labels: Sequence[str]) -> dict[str, list[str]]:
        """The same in names."""
        return {part: [labels[place] for place in getattr(self, part)] for part in PARTS}


def split_samples(labels: Sequence[str], settings: DataSettings) -> Split:
    """Divide a dataset: named samples first, the rest by fractions in a seeded random order.

    Raises:
        ConfigError: a name fits no sample, a sample is named for two parts, fractions sum to more than 1, or nothing
            is left to train on.
    """
    wishes = {part: getattr(settings, part) for part in PARTS}
    chosen = {part: _named(labels, part, wish) for part, wish in wishes.items() if isinstance(wish, list)}
    for place, label in enumerate(labels):
        claims = [part for part, places in chosen.items() if place in places]
        if len(claims) > 1:
            raise ConfigError(f"data.{claims[0]} and data.{claims[1]} both name the sample {label}")
    fractions = {part: wish for part, wish in wishes.items() if not isinstance(wish, list)}
    if sum(fractions.values()) > 1 + 1e-9:
        raise ConfigError(
            f"the fractions {', '.join(f'data.{part} = {wish}' for part, wish in fractions.items())} sum to more than 1"
        )
    taken = set().union(*chosen.values())
    rest = [place for place in range(len(labels)) if place not in taken]
    shuffled = np.random.default_rng(settings.split_seed).permutation(rest).tolist()
    start = 0
    for part, count in zip(fractions, _counts(list(fractions.values()), len(rest)), strict=True):
        chosen[part] = set(shuffled[start : start + count])
        start += count
    if not chosen["train"]:
        raise ConfigError(f"data.train leaves none of the {len(labels)} samples to train on")
    return Split(*(tuple(sorted(chosen[part])) for part in PARTS))


def _named(labels: Sequence[str], part: str, patterns: Sequence[str]) -> set[int]:
    """The samples that fit any of the patterns."""
    places: set[int] = set()
    for pattern in patterns:
        # fnmatch knows [ranges] too; labels may hold brackets
        found = {place for place, label in enumerate(labels) if fnmatchcase(label, pattern.replace("[", "[[]"))}
        if not found:
            nearest = get_close_matches(pattern, labels, n=1, cutoff=0.0)
            raise ConfigError(f"data.{part} names {pattern}, but no sample is called so; the nearest is {nearest[0]}")
        places |= found
    return places


def _counts(fractions: Sequence[float], total: int) -> list[int]:
    """How many of `total` each fraction gets: rounded so that few samples still give some to every part."""
    exact = np.array(fractions) * total
    counts = np.floor(exact + 1e-9).astype(int)
    missing = round(exact.sum()) - counts.sum()
    empty = [part for part in range(len(fractions)) if counts[part] == 0]
    filled = sorted(set(range(len(fractions))) - set(empty), key=lambda part: counts[part] - exact[part])
    for part in empty + filled:
        if missing > 0 and fractions[part] > 0:
            counts[part] += 1
            missing -= 1
    return counts.tolist()
