"""What the parts of the importer make of official DeepH-E3 models; what they predict is in tests/physics."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from e3nn import o3
from torch import Tensor

from deeph_tracegrad.deeph_e3 import conventions, weights
from deeph_tracegrad.deeph_e3.conventions import E3NN_03, E3NN_04, E3NN_05, detect_convention
from deeph_tracegrad.deeph_e3.folder import OfficialModel, read_model
from deeph_tracegrad.deeph_e3.importer import as_checkpoint
from deeph_tracegrad.deeph_e3.layers import parse_channels
from deeph_tracegrad.deeph_e3.weights import our_weights
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.targets import TargetLayout

Unpack = Callable[[str], Path]
MODELS = [f"{name}_{version}" for name in ("graphene", "mos2", "soc") for version in ("e3nn035", "e3nn060")]
TABLE = "edge_update_blocks.0.conv.tp.tp._compiled_main_left_right._w3j_"


@pytest.fixture(scope="module")
def models(unpacked: Unpack) -> dict[str, OfficialModel]:
    return {name: read_model(unpacked("deeph_e3") / "models" / name) for name in MODELS}


def table(*degrees: int, sign: float = 1.0) -> dict[str, Tensor]:
    """One coupling table as e3nn keeps it from 0.4.2 on."""
    return {TABLE + "_".join(map(str, degrees)): sign * o3.wigner_3j(*degrees)}


def test_the_folder_tells_what_was_trained(models: dict[str, OfficialModel]) -> None:
    model = models["mos2_e3nn060"]
    assert model.basis.describe() == "S s2p2d1, Mo s3p2d2"
    assert (model.spin, model.dtype, model.cutoff_radius) == (SpinMode.NONE, torch.float32, 8.0)
    assert (model.dataset, model.epochs) == ("mos2", 6)
    assert model.validation_loss == pytest.approx(1.47780, abs=1e-5)
    assert (model.network.blocks, model.network.harmonics_degree, len(model.network.targets)) == (2, 4, 49)
    assert models["soc_e3nn035"].spin is SpinMode.NONCOLLINEAR


def test_convention_is_told_from_the_coupling_tables(models: dict[str, OfficialModel]) -> None:
    for name, model in models.items():
        assert detect_convention(model.state) == (E3NN_03 if name.endswith("035") else E3NN_05)
    assert detect_convention(table(1, 2, 2, sign=-1.0) | table(1, 1, 1)) == E3NN_04


def test_earlier_signs_are_those_of_70_ordered_triples() -> None:
    flipped = {order for triple in conventions._FLIPPED for order in permutations(triple)}
    assert len(flipped) == 70
    assert all(sum(triple) % 2 for triple in flipped)
    assert (E3NN_03.sign(2, 1, 2), E3NN_03.sign(1, 1, 1), E3NN_05.sign(2, 1, 2)) == (-1.0, 1.0, 1.0)
    with pytest.raises(MismatchError, match="known up to 8"):
        E3NN_03.sign(4, 5, 9)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "no coupling tables"),
        (table(1, 1, 2), "too few to tell"),
        (table(1, 2, 2) | table(1, 3, 3, sign=-1.0), "no version of e3nn"),
        ({name: 2 * values for name, values in table(1, 2, 2).items()}, "no version of e3nn"),
        ({TABLE + "1_1_9": torch.zeros(3, 3, 19)}, "no version of e3nn"),
        ({TABLE + "9_9_1": torch.zeros(19, 19, 3)}, "no version of e3nn"),
    ],
)
def test_unknown_conventions_are_refused(state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        detect_convention(state)


@pytest.mark.parametrize("name", ["mos2_e3nn060", "soc_e3nn035"])
def test_each_weight_is_one_of_theirs_times_a_constant(models: dict[str, OfficialModel], name: str) -> None:
    model = models[name]
    layout = TargetLayout(model.basis, model.spin)
    convention = detect_convention(model.state)

    def mapped(state: dict[str, Tensor]) -> Tensor:
        ours = our_weights(state, model.network, layout, convention)
        return torch.cat([tensor.flatten() for tensor in ours.values()])

    unused = ("_w3j_", "output_mask", "lin_node", "basis.", "distance_expansion.")
    parameters = {
        name: tensor.double() for name, tensor in model.state.items() if not any(part in name for part in unused)
    }
    start, numbers = 0, {}
    for key, tensor in parameters.items():
        numbers[key] = torch.arange(start, start + tensor.numel(), dtype=torch.float64).view(tensor.shape)
        start += tensor.numel()
    constants = mapped({key: torch.ones_like(tensor) for key, tensor in parameters.items()})
    places = mapped(numbers) / constants
    assert (places.round() - places).abs().max() < 1e-6
    assert torch.equal(places.round().long().sort().values, torch.arange(start))
    values = torch.cat([tensor.flatten() for tensor in parameters.values()])
    assert torch.allclose(mapped(parameters), constants * values[places.round().long()], rtol=1e-14, atol=0)


@pytest.mark.parametrize("text", ["", "8x0e+", "8x0e 4x1o", "8x0i", "-1x0e", "1x²e", "8x0e+" * 3, "9" * 5000 + "x0e"])
def test_no_list_of_irreps(text: str) -> None:
    with pytest.raises(MismatchError, match="is no list of irreps"):
        parse_channels(text)


def changed(model: OfficialModel, **tensors: Tensor | None) -> OfficialModel:
    """The model with other tensors, without those that are None; `__` in a name stands for a dot."""
    replaced = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    state = {name: tensor for name, tensor in {**model.state, **replaced}.items() if tensor is not None}
    return replace(model, state=state)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lin_edge__bias": None}, r"there is no tensor lin_edge\.bias"),
        ({"lin_edge__bias": torch.zeros(8)}, r"lin_edge\.bias has the shape \[8\] instead of \[9\]"),
        ({"node_update_blocks__1__self_tp__weights1__0": torch.zeros(8)}, r"self_tp\.weights1\.0, which no network"),
        ({"node_update_blocks__3__lin_pre__weight": torch.zeros(8)}, r"node_update_blocks\.3\.lin_pre"),
        ({"embedding__weight": torch.zeros(8)}, r"the weights are in torch\.float32, but src/train\.ini says"),
        ({"basis__offsets": torch.linspace(0, 6.0, 128)}, r"basis\.offsets are not on an even grid from 0 to 7\.2"),
        ({"basis__width": torch.ones(128)}, r"basis\.width are not on an even grid"),
        ({"distance_expansion__offsets": torch.linspace(0, 7.2, 8)}, "not on an even grid from 0 to 6 Å"),
        ({"distance_expansion__offsets": None}, r"there is no tensor distance_expansion\.offsets of 8 numbers"),
    ],
)
def test_tensors_of_another_network_are_refused(
    models: dict[str, OfficialModel], tensors: dict[str, Tensor | None], message: str
) -> None:
    model = changed(models["graphene_e3nn060"], **tensors)
    with pytest.raises(ReadError, match=message) as caught:
        as_checkpoint(model)
    assert caught.value.path == model.path / "best_model.pkl"


def test_other_last_node_features_are_refused(
    models: dict[str, OfficialModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models["graphene_e3nn060"]
    network = replace(model.network, post_node=[*model.network.post_node, *parse_channels("4x1e")])
    # a model with all the tensors of that network
    monkeypatch.setattr(weights._Taken, "take", lambda self, name, *shape: torch.zeros(shape, dtype=torch.float64))
    monkeypatch.setattr(weights._Taken, "require_all", lambda self: None)
    with pytest.raises(ReadError, match=r"irreps_post_node is .*4x1e.*; this program only has") as caught:
        as_checkpoint(replace(model, network=network))
    assert caught.value.path == model.path / "src" / "build_model.py"


def test_checkpoint_is_of_the_faithful_network(models: dict[str, OfficialModel]) -> None:
    checkpoint = as_checkpoint(models["soc_e3nn060"])
    settings = checkpoint.config.model
    assert not settings.hermitian
    assert not settings.tracegrad.enabled
    assert (settings.node_channels, settings.edge_channels, settings.cutoff_radius) == (8, 8, 9.0)
    assert checkpoint.dtype is torch.float32
    assert "e3nn 0.5 or newer" in checkpoint.versions["DeepH-E3"]
    assert dict(checkpoint.summary())["epochs"] == "6"
