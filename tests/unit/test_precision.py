"""Matrix products of lower precision in training, what they leave as it is, and trainings that repeat to the bit."""

import os
from pathlib import Path

import pytest
import torch

from deeph_tracegrad.config import Config, ModelSettings, TraceGradSettings, TrainingSettings
from deeph_tracegrad.errors import TrainingError
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.nn.linear import IrrepLinear
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.nn.tracegrad import TraceGrad
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.samples import build_sample
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.training.checkpoint import load_checkpoint
from deeph_tracegrad.training.labels import trace_labels
from deeph_tracegrad.training.loop import Training
from deeph_tracegrad.training.losses import error_sums, training_loss
from deeph_tracegrad.training.metrics import read_metrics
from deeph_tracegrad.training.state import TrainingState
from materials import random_material

ROUNDING = 2**-8  # of a bfloat16, relative


def state_and_graph(preset: str, norm: str = "graph", products: str = "bf16") -> tuple[TrainingState, HamiltonianGraph]:
    """Two elements, so that linear maps have kinds; TraceGrad after both blocks with the paper's preset."""
    material = random_material(SpinMode.NONE)
    tracegrad = TraceGradSettings(preset=preset, width=None if preset == "compact" else 96, decoder_width=16)
    config = Config(
        model=ModelSettings(blocks=2, trunk="8x0e+8x1o+4x2e", norm=norm, tracegrad=tracegrad),
        training=TrainingSettings(matrix_products=products, seed=2),
    )
    layout = TargetLayout(material.basis, material.spin)
    graph = HamiltonianGraph.from_sample(build_sample(material, "random"), material.basis, layout)
    graph.trace_labels = trace_labels(graph.target, layout, tracegrad).float()
    graph.target = graph.target.float()
    return TrainingState(config, material.basis, material.spin, torch.device("cpu")), graph


def backward(network: HamiltonianNetwork, graph: HamiltonianGraph) -> float:
    """The loss; leaves its gradients at the weights."""
    errors = error_sums(network(graph), graph, network.layout)
    loss = training_loss(errors, errors.detach(), 0.3)
    network.zero_grad()
    loss.backward()
    return loss.item()


def gradient(network: HamiltonianNetwork) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("norm", ["graph", "local"])
@pytest.mark.parametrize("preset", ["compact", "paper"])
def test_gradients_in_bfloat16_are_those_of_full_precision_but_for_its_rounding(
    preset: str, norm: str, recompute: bool
) -> None:
    state, graph = state_and_graph(preset, norm)
    network = state.network
    network.recompute = recompute
    rounded_loss = backward(network, graph)
    rounded = gradient(network)
    network.bf16_products = False
    assert rounded_loss == pytest.approx(backward(network, graph), rel=ROUNDING)
    exact = gradient(network)
    assert ROUNDING / 10 < (rounded - exact).norm() / exact.norm() < 20 * ROUNDING


def test_norms_rotations_tracegrad_and_the_last_layer_are_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    state, graph = state_and_graph("paper")
    linear, traced = IrrepLinear.forward, TraceGrad.forward
    seen: list[tuple[str, bool]] = []

    def watched_linear(self: IrrepLinear, *arguments: object, **named: object) -> torch.Tensor:
        seen.append(("head" if self is state.network.head else "block", torch.is_autocast_enabled("cpu")))
        return linear(self, *arguments, **named)

    def watched_traced(self: TraceGrad, features: torch.Tensor) -> object:
        z, moved = traced(self, features)
        assert z.dtype == moved.dtype == torch.float32
        return z, moved

    monkeypatch.setattr(IrrepLinear, "forward", watched_linear)
    monkeypatch.setattr(TraceGrad, "forward", watched_traced)
    prediction = state.network(graph)
    assert set(seen) == {("block", True), ("head", False)}
    seen.clear()
    with torch.no_grad():
        exact = state.network(graph)
    assert set(seen) == {("block", False), ("head", False)}
    assert prediction.coefficients.dtype == prediction.traces.dtype == torch.float32
    assert not torch.equal(prediction.coefficients, exact.coefficients)


@pytest.mark.parametrize("preset", ["compact", "paper"])
def test_the_loss_falls_and_weights_stay_in_single_precision(preset: str) -> None:
    state, graph = state_and_graph(preset)
    losses = []
    for _ in range(30):
        losses.append(backward(state.network, graph))
        state.optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    moments = [value for each in state.optimizer.state.values() for value in each.values()]
    assert {tensor.dtype for tensor in [*state.network.parameters(), *moments]} == {torch.float32}


def test_validation_of_a_bfloat16_training_is_in_full_precision(command, tiny_training: Path, tmp_path: Path) -> None:
    settings = ("--set", "training.dtype=float32", "--set", "training.matrix_products=bf16")
    assert command("train", tiny_training, *settings) == 0
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    trained = load_checkpoint(tmp_path / "run" / "last.pt")
    assert not trained.network(torch.device("cpu")).bf16_products
    again = ("train", tiny_training, "--set", "training.dtype=float32", "--resume")
    assert command(*again, "--set", "training.epochs=5") == 0  # and goes on in full precision


def test_tf32_is_on_in_steps_alone(command, tiny_training: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU knows no TF32, but the switch is there."""
    seen: dict[str, set[bool]] = {"step": set(), "validate": set()}
    for name, found in seen.items():
        original = getattr(Training, name)

        def watched(self, *arguments, original=original, found=found):
            found.add(torch.backends.cuda.matmul.allow_tf32)
            return original(self, *arguments)

        monkeypatch.setattr(Training, name, watched)
    settings = ("--set", "training.dtype=float32", "--set", "training.matrix_products=tf32")
    assert command("train", tiny_training, *settings) == 0
    assert seen == {"step": {True}, "validate": {False}}
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("products", ["tf32", "bf16"])
def test_double_precision_with_rounded_products_is_refused(command, tiny_training: Path, capsys, products: str) -> None:
    assert command("train", tiny_training, "--set", f"training.matrix_products={products}") == 2
    message = capsys.readouterr().err
    assert f'training.matrix_products = "{products}" is for training.dtype = "float32"' in message
    assert not (tiny_training.parent / "run").exists()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "last.pt").training["network"]


@pytest.mark.parametrize("deterministic", ["false", "true"])
@pytest.mark.parametrize("threads", [1, 2])
def test_trainings_repeat_to_the_bit(command, tiny_training: Path, tmp_path: Path, threads: int, deterministic: str):
    before = torch.get_num_threads()
    settings = ["training.dtype=float32", f"training.threads={threads}", f"training.deterministic={deterministic}"]
    try:
        for run in ("one", "other"):
            chosen = [*settings, f"training.run={tmp_path / run}"]
            assert command("train", tiny_training, *(word for each in chosen for word in ("--set", each))) == 0
    finally:
        torch.set_num_threads(before)
    one, other = weights(tmp_path / "one"), weights(tmp_path / "other")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
def test_the_deterministic_switch_is_on_while_it_trains(
    command, tiny_training: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool, fails: bool
) -> None:
    seen = []
    step = Training.step

    def watched(self, graph):
        seen.append((torch.are_deterministic_algorithms_enabled(), "CUBLAS_WORKSPACE_CONFIG" in os.environ))
        if fails:
            raise TrainingError("cannot go on")
        step(self, graph)

    monkeypatch.setattr(Training, "step", watched)
    code = command("train", tiny_training, "--set", f"training.deterministic={str(enabled).lower()}")
    assert code == (2 if fails else 0)
    assert set(seen) == {(enabled, enabled)}
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
