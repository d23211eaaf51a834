"""The compiled kernels compute what the torch code beside them computes, with all gradients."""

import pytest
import torch

from deeph_tracegrad.config import ModelSettings
from deeph_tracegrad.edges import edge_pairs
from deeph_tracegrad.graph import build_graph
from deeph_tracegrad.nn.kernels import library
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.orbitals import SpinMode
from materials import random_material

NATURAL = "9x0e+17x1o+4x2e+3x3o"
BOTH = "6x0e+2x0o+4x1o+2x1e+3x2e+1x2o+2x3o+1x4e"
NARROW = "5x0e+3x1o"
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-4}


@pytest.fixture
def torch_only(monkeypatch):
    """A function that leaves the compiled kernels aside from then on."""
    return lambda: monkeypatch.setattr(library, "_library", lambda: None)


@pytest.fixture
def threads():
    """A function that sets the number of threads, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def results(network, graph):
    """The prediction, and every gradient of a function of it."""
    network.zero_grad()
    coefficients, traces = network(graph)
    loss = coefficients.sin().sum()
    if traces is not None:
        loss = loss + traces.square().sum()
    loss.backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    return [coefficients.detach(), *(gradient for gradient in gradients if gradient is not None)]


def assert_alike(ours, theirs, tolerance):
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max().clamp(min=1e-6)


def case(spin, dtype, **settings):
    torch.manual_seed(0)
    material = random_material(spin)
    graph = build_graph(material, edge_pairs(material), material.basis)
    sizes = {"node_channels": 7, "edge_channels": 9, "radial_basis": 12, **settings}
    return HamiltonianNetwork(ModelSettings(**sizes), material.basis, material.spin).to(dtype), graph


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("trunk", [NATURAL, BOTH])
@pytest.mark.parametrize("spin", SpinMode)
def test_kernels_are_the_torch_code(spin, trunk, dtype, torch_only):
    network, graph = case(spin, dtype, trunk=trunk)
    assert library.compiled(network.species)
    ours = results(network, graph)
    torch_only()
    assert_alike(ours, results(network, graph), TOLERANCE[dtype])


@pytest.mark.parametrize(
    "settings",
    [
        {"trunk": NATURAL, "edge_trunk": NARROW, "blocks": 4},
        {"trunk": NARROW, "edge_trunk": NATURAL, "blocks": 4},
        {"trunk": NATURAL, "norm": "local", "smooth_cutoff": True},
        {"trunk": NATURAL, "tracegrad": {"enabled": False}, "harmonics_degree": 3},
    ],
)
def test_kernels_are_the_torch_code_for_other_settings(settings, torch_only):
    network, graph = case(SpinMode.NONE, torch.float64, **settings)
    ours = results(network, graph)
    torch_only()
    assert_alike(ours, results(network, graph), TOLERANCE[torch.float64])


def test_threads_change_nothing_but_rounding(threads):
    network, graph = case(SpinMode.NONE, torch.float64, trunk=BOTH)
    threads(1)
    one = results(network, graph)
    threads(3)
    three, again = results(network, graph), results(network, graph)
    assert_alike(three, one, 1e-12)
    assert all(torch.equal(first, second) for first, second in zip(three, again, strict=True))


def test_recomputed_blocks_give_the_same_gradients():
    network, graph = case(SpinMode.NONE, torch.float64, trunk=NATURAL)
    kept = results(network, graph)
    network.recompute = True
    assert_alike(results(network, graph), kept, 1e-13)


def test_a_machine_without_compiler_is_told_and_served(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CXX", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library._library.cache_clear()
    try:
        network, graph = case(SpinMode.NONE, torch.float64, trunk=NARROW)
        assert not library.compiled(network.species)
        assert len(results(network, graph)) > 1
        assert "slower ones are used" in " ".join(capsys.readouterr().err.split())
    finally:
        library._library.cache_clear()


def test_the_switch_leaves_them_aside(monkeypatch):
    monkeypatch.setenv(library.SWITCH, "0")
    library._library.cache_clear()
    try:
        assert not library.compiled(torch.zeros(1))
    finally:
        library._library.cache_clear()
