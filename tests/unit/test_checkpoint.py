"""Checkpoints: what goes in comes out, and nothing else is let in."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from deeph_tracegrad.config import (
    Config,
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    TraceGradSettings,
    TrainingSettings,
)
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.training.checkpoint import Checkpoint, library_versions, load_checkpoint
from deeph_tracegrad.training.state import TrainingState

CPU = torch.device("cpu")
BASIS = Basis.of({"C": ElementBasis((0, 0, 1), 2.6, "C5.0-s2p1")})


def tiny_config(ema_decay: float = 0.9) -> Config:
    return Config(
        data=DataSettings(train=["a_*"]),
        model=ModelSettings(blocks=1, trunk="4x0e+2x1o", node_channels=4, edge_channels=4, harmonics_degree=2),
        training=TrainingSettings(dtype="float64", optimizer=OptimizerSettings(ema_decay=ema_decay)),
    )


def trained(config: Config) -> TrainingState:
    """A state after three updates with made-up gradients."""
    state = TrainingState(config, BASIS, SpinMode.NONE, CPU)
    for _ in range(3):
        for parameter in state.network.parameters():
            parameter.grad = torch.randn_like(parameter)
        state.optimizer.step()
        if state.average:
            state.average.update(state.network)
    state.epoch, state.batch, state.best = 5, 2, 0.25
    return state


def checkpoint_of(state: TrainingState, config: Config) -> Checkpoint:
    return Checkpoint(
        config=config,
        basis=BASIS,
        spin=SpinMode.NONE,
        reach={"C-C": 5.3},
        fingerprint="f" * 32,
        split={"train": ["a_0"], "validation": [], "test": ["ä 1"]},
        versions=library_versions(),
        metrics={"epoch": 5, "train_loss": 0.125},
        training=state.content(),
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    config = tiny_config()
    path = tmp_path / "best.pt"
    checkpoint_of(trained(config), config).save(path)
    return path


def test_everything_comes_back(tmp_path: Path) -> None:
    config = tiny_config()
    state = trained(config)
    written = checkpoint_of(state, config)
    written.save(tmp_path / "a.pt")
    read = load_checkpoint(tmp_path / "a.pt")
    for name in ("config", "basis", "spin", "fingerprint", "split", "versions", "metrics"):
        assert getattr(read, name) == getattr(written, name)
    again = TrainingState(config, BASIS, SpinMode.NONE, CPU)
    torch.rand(7)  # leave the random generator somewhere else
    again.resume(read)
    assert_equal(again.content(), state.content())
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def assert_equal(one: object, other: object) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    else:
        assert one == other


@pytest.mark.parametrize("ema_decay", [0.9, 0.0])
def test_predicts_with_the_averaged_weights(tmp_path: Path, graphene_dataset: Path, ema_decay: float) -> None:
    config = tiny_config(ema_decay)
    state = trained(config)
    checkpoint_of(state, config).save(tmp_path / "a.pt")
    network = load_checkpoint(tmp_path / "a.pt").network(CPU)
    graph = GraphDataset(graphene_dataset)[0]
    predicted = network(graph).coefficients
    assert torch.equal(predicted, state.predictor(graph).coefficients)
    assert torch.equal(predicted, state.network(graph).coefficients) == (ema_decay == 0.0)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_baseline_and_scale_come_back_without_a_fit(tmp_path: Path, graphene_dataset: Path) -> None:
    dataset = GraphDataset(graphene_dataset)
    config = tiny_config()
    switches = {"two_centre_baseline": True, "target_scaling": True}
    config = config.model_copy(update={"model": config.model.model_copy(update=switches)})
    state = TrainingState(config, BASIS, SpinMode.NONE, CPU)
    state.fit(lambda: [dataset[0], dataset[1]], dataset.reach, lambda tensor: tensor)
    checkpoint_of(state, config).save(tmp_path / "a.pt")
    read = load_checkpoint(tmp_path / "a.pt").network(CPU)
    graph = dataset[2]
    assert (read.hamiltonian.baseline(graph) - graph.target).square().mean() < 0.5 * graph.target.square().mean()
    for network in (read, state.predictor):
        assert torch.equal(network.hamiltonian.baseline(graph), state.network.hamiltonian.baseline(graph))
        assert torch.equal(network.hamiltonian.scaling.scale, state.network.hamiltonian.scaling.scale)
        assert torch.equal(network(graph).coefficients, state.network(graph).coefficients)


def test_average_follows_its_formula() -> None:
    state = TrainingState(tiny_config(0.2), BASIS, SpinMode.NONE, CPU)
    expected = [parameter.detach().clone() for parameter in state.network.parameters()]
    for step in range(1, 6):
        with torch.no_grad():
            for parameter in state.network.parameters():
                parameter.add_(1.0)
        state.average.update(state.network)
        decay = min(0.2, (1 + step) / (10 + step))
        current = list(state.network.parameters())
        expected = [decay * mean + (1 - decay) * now for mean, now in zip(expected, current, strict=True)]
    for mean, now in zip(expected, state.average.network.parameters(), strict=True):
        assert torch.allclose(mean, now, rtol=1e-12)


def test_summary(saved: Path) -> None:
    summary = dict(load_checkpoint(saved).summary())
    assert summary["basis"] == "C s2p1"
    assert summary["train loss"] == "0.125 eV²"
    assert summary["epochs"] == "5"


def test_checkpoints_of_before_the_choices_have_what_there_was(tmp_path: Path) -> None:
    model = ModelSettings(
        blocks=1,
        two_centre_baseline=False,
        target_scaling=False,
        tracegrad=TraceGradSettings(preset="paper", width=8, decoder_width=8),
    )
    config = Config(model=model, training=TrainingSettings(dtype="float64", loss="mse"))
    checkpoint_of(trained(config), config).save(tmp_path / "old.pt")
    content = torch.load(tmp_path / "old.pt", weights_only=True)
    del content["config"]["model"]["tracegrad"]["preset"]
    del content["config"]["model"]["two_centre_baseline"], content["config"]["model"]["target_scaling"]
    del content["config"]["training"]["loss"]
    torch.save(content, tmp_path / "old.pt")
    assert load_checkpoint(tmp_path / "old.pt").config == config


def test_checkpoints_of_before_a_key_have_its_default(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    for key in ("gradient", "signal", "labels"):
        del content["config"]["model"]["tracegrad"][key]
    for key in ("huber_delta", "block_weights"):
        del content["config"]["training"][key]
    del content["config"]["data"]["memory_limit"]
    content["config"]["data"]["in_memory"] = True
    torch.save(content, saved)
    assert load_checkpoint(saved).config == tiny_config()


def test_a_training_goes_on_from_the_four_sums_of_earlier_checkpoints() -> None:
    config = tiny_config()
    checkpoint = checkpoint_of(trained(config), config)
    checkpoint.training["sums"] = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    state = TrainingState(config, BASIS, SpinMode.NONE, CPU)
    state.resume(checkpoint)
    assert state.sums.tolist() == [1.0, 2.0, 3.0, 4.0, 0.0]


def test_truncated_anywhere(saved: Path) -> None:
    content = saved.read_bytes()
    for length in np.random.default_rng(0).integers(0, len(content), 100):
        saved.write_bytes(content[:length])
        with pytest.raises(ReadError, match=r"best\.pt"):
            load_checkpoint(saved)


def test_flipped_bytes_end_in_its_own_error_or_pass(saved: Path) -> None:
    content = saved.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(content)
        damaged[random.integers(len(content))] ^= 1 << int(random.integers(8))
        saved.write_bytes(damaged)
        try:
            load_checkpoint(saved).network(CPU)
        except ReadError:
            refused += 1
    assert refused > 90  # the rest are bits of the archive that nothing reads


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    with pytest.raises(ReadError, match="no such checkpoint"):
        load_checkpoint(path)
    with pytest.raises(ReadError, match="a folder"):
        load_checkpoint(tmp_path)
    path.write_text(json.dumps({"format": "deeph-tracegrad checkpoint"}))
    with pytest.raises(ReadError, match="no checkpoint"):
        load_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(ReadError, match="no checkpoint"):
        load_checkpoint(path)
    torch.save({"state_dict": torch.zeros(3)}, path)
    with pytest.raises(ReadError, match="no checkpoint of deeph-tracegrad"):
        load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(ReadError, match="no checkpoint of deeph-tracegrad"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format_version", 99, "format version 99; this program reads up to 2: update it"),
        ("config", {"model": {"layers": 3}}, "unknown key layers"),
        ("spin", "up", "damaged"),
        ("basis", {"C": {"shells": [0, 5], "cutoff_radius": None, "label": None}}, "beyond the supported degrees"),
        ("basis", {"C": {}}, "damaged"),
        ("training", {"epoch": 3}, "damaged"),
        ("split", None, None),
    ],
)
def test_changed_content(saved: Path, key: str, value: object, message: str | None) -> None:
    content = torch.load(saved, weights_only=True)
    if message is None:
        del content[key]
    else:
        content[key] = value
    torch.save(content, saved)
    with pytest.raises(ReadError, match=message or "damaged"):
        load_checkpoint(saved)


def test_weights_of_another_network(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    content["config"]["model"]["trunk"] = "5x0e+2x1o"
    torch.save(content, saved)
    with pytest.raises(ReadError, match="its weights do not fit"):
        load_checkpoint(saved).network(CPU)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path, witness = tmp_path / "evil.pt", tmp_path / "witness"

    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (witness,)

    torch.save({"format": "deeph-tracegrad checkpoint", "format_version": 1, "x": Evil()}, path)
    with pytest.raises(ReadError, match="no checkpoint of deeph-tracegrad: it holds objects that could run code"):
        load_checkpoint(path)
    assert not witness.exists()
    torch.load(path, weights_only=False)
    assert witness.exists()  # it would have run


def test_plain_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.pt"
    buffer = io.BytesIO()
    pickle.dump({"format": "deeph-tracegrad checkpoint"}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ReadError, match="no checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("basis", "spin", "message"),
    [
        ({"C": (0, 0, 1), "N": (0,)}, SpinMode.NONE, "knows C s2p1, but not N"),
        ({"C": (0, 1)}, SpinMode.NONE, "C has the shells s1p1, but the network was trained for s2p1"),
        ({"C": (0, 0, 1)}, SpinMode.COLLINEAR, "spin is collinear, but the network was trained for spin none"),
    ],
)
def test_what_does_not_fit(saved: Path, basis: dict[str, tuple[int, ...]], spin: SpinMode, message: str) -> None:
    other = Basis.of({element: ElementBasis(shells) for element, shells in basis.items()})
    with pytest.raises(MismatchError, match=message):
        load_checkpoint(saved).require_fit(other, spin, list(basis))


def test_what_fits(saved: Path) -> None:
    for label in (None, "C5.0-s2p1"):  # DeepH folders do not tell the name
        other = Basis.of({"N": ElementBasis((0,)), "C": ElementBasis((0, 0, 1), None, label)})
        load_checkpoint(saved).require_fit(other, SpinMode.NONE, ["C", "C"])


def test_other_radial_functions_do_not_fit(saved: Path) -> None:
    other = Basis.of({"C": ElementBasis((0, 0, 1), None, "C6.0-s2p1")})
    with pytest.raises(MismatchError, match=r"C has the basis C6\.0-s2p1, but the network was trained for C5\.0-s2p1"):
        load_checkpoint(saved).require_fit(other, SpinMode.NONE, ["C"])


@pytest.mark.parametrize(("before", "after"), [(5.0, 5.2), (5.3, 5.3)])
def test_edges_of_the_first_format_reach_as_far_as_orbitals_do(saved: Path, before, after, capsys) -> None:
    """A checkpoint of the first format had the longest edge of its data; two cutoff radii make 5.2 Å here."""
    content = torch.load(saved, weights_only=True)
    torch.save(content | {"format_version": 1, "reach": {"C-C": before}}, saved)
    assert load_checkpoint(saved).reach == pytest.approx({"C-C": after})
    warned = capsys.readouterr().err.replace("\n", " ")
    assert ("C-C 5.000 -> 5.200 Å" in warned) == (after > before)


def test_the_reach_of_an_imported_model_stays_empty(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    torch.save(content | {"format_version": 1, "reach": {}}, saved)
    assert load_checkpoint(saved).reach == {}
