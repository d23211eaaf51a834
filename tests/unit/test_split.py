"""Which samples are trained on, validated on and tested on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeph_tracegrad.config import DataSettings
from deeph_tracegrad.errors import ConfigError
from deeph_tracegrad.training.split import split_samples

LABELS = [f"a_{number:02d}" for number in range(8)] + [f"b_{number:02d}" for number in range(8)]


@given(st.integers(1, 60), st.integers(0, 5), st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_fractions_divide_without_overlap(total: int, seed: int, train: float, share: float) -> None:
    rest = 1.0 - train
    settings = DataSettings(train=train, validation=rest * share, test=rest * (1.0 - share), split_seed=seed)
    labels = [str(number) for number in range(total)]
    split = split_samples(labels, settings)
    everything = split.train + split.validation + split.test
    assert sorted(everything) == list(range(total))
    for part, fraction in ((split.train, train), (split.validation, settings.validation), (split.test, settings.test)):
        assert abs(len(part) - fraction * total) < 2
    assert split == split_samples(labels, settings)


@pytest.mark.parametrize(("total", "counts"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (2, 1, 0)), (10, (8, 1, 1))])
def test_few_samples(total: int, counts: tuple[int, int, int]) -> None:
    split = split_samples([str(number) for number in range(total)], DataSettings())
    assert (len(split.train), len(split.validation), len(split.test)) == counts


def test_names_and_wildcards() -> None:
    split = split_samples(LABELS, DataSettings(train=["a_*", "b_00"], validation=[], test=["b_07"]))
    assert split.labels(LABELS) == {"train": [*LABELS[:8], "b_00"], "validation": [], "test": ["b_07"]}


def test_fractions_are_of_what_no_list_names() -> None:
    split = split_samples(LABELS, DataSettings(train=0.5, validation=["b_*"], test=0.5))
    assert len(split.train) == len(split.test) == 4
    assert split.labels(LABELS)["validation"] == LABELS[8:]


def test_brackets_in_a_label_are_no_wildcards() -> None:
    split = split_samples(["x[1]", "x1"], DataSettings(train=["x[1]"], validation=["x1"], test=0.0))
    assert (split.train, split.validation) == ((0,), (1,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DataSettings(train=["c_*"]), r"data\.train names c_\*, .* the nearest is"),
        (DataSettings(train=["a_*"], test=["a_03"]), "data.train and data.test both name the sample a_03"),
        (DataSettings(train=0.8, validation=0.3, test=0.0), "sum to more than 1"),
        (DataSettings(train=0.0, validation=0.5), "leaves none of the 16 samples to train on"),
        (DataSettings(train=0.5, validation=["*"]), "leaves none"),
    ],
)
def test_mistakes(settings: DataSettings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_samples(LABELS, settings)
