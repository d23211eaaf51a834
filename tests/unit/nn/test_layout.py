import pytest
import torch

from deeph_tracegrad.errors import ConfigError
from deeph_tracegrad.nn.layout import Irrep, Layout


def test_by_irrep_and_back():
    layout = Layout.parse("3x0e+1x0o+2x1o+2x1e+1x2e")
    features = torch.randn(4, layout.dim)
    assert torch.equal(layout.from_irreps(layout.by_irrep(features)), features)


def test_positions_agree_with_by_irrep():
    layout = Layout.parse("3x0e+2x1o+2x1e+1x2e")
    features = torch.randn(4, layout.dim)
    pseudo = dict(zip(layout.groups, layout.by_irrep(features), strict=True))[Irrep(1, natural=False)]
    for row, order in enumerate((0, 1, -1)):
        for channel in (0, 1):
            place = layout.position(Irrep(1, natural=False), channel, order)
            assert torch.equal(features[:, place], pseudo[:, row, channel])


def test_text_round_trip_and_merging():
    assert str(Layout.parse("2x1o+3x0e+1x1o")) == "3x0e+3x1o"


def test_nonsense_is_a_config_error():
    with pytest.raises(ConfigError, match="no list of irreps"):
        Layout.parse("64 scalars")
