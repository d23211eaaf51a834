"""The compiled kernels compute what the torch code beside them computes, with all gradients."""

import numpy as np
import pytest
import torch

from deeph_tracegrad.config import ModelSettings
from deeph_tracegrad.edges import edge_pairs
from deeph_tracegrad.graph import build_graph
from deeph_tracegrad.nn.arrangement import Members
from deeph_tracegrad.nn.kernels import convolution, library
from deeph_tracegrad.nn.kernels.squares import weighted_squares
from deeph_tracegrad.nn.layout import Irrep, Layout
from deeph_tracegrad.nn.linear import IrrepLinear
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.nn.norm import Rows, alone
from deeph_tracegrad.nn.rotations import EdgeRotations
from deeph_tracegrad.nn.updates import EdgeConvolution, Geometry, Sizes
from deeph_tracegrad.orbitals import SpinMode
from materials import random_material

pytestmark = pytest.mark.skipif(not library.compiled(torch.empty(0)), reason="needs a C++ compiler")

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


@pytest.mark.parametrize("compiled", [True, False])
def test_the_order_of_the_edges_does_not_matter(compiled, torch_only):
    network, graph = case(SpinMode.NONE, torch.float64, trunk=BOTH)
    if not compiled:
        torch_only()
    order = torch.randperm(graph.num_edges)
    shuffled = graph.clone()
    for name in ("edge_index", "edge_shift", "edge_vec", "edge_frame"):
        shuffled[name] = graph[name].index_select(graph.__cat_dim__(name, None), order)
    shuffled.reverse_edge = torch.argsort(order)[graph.reverse_edge[order]]
    assert_alike([network(shuffled).coefficients], [network(graph).coefficients[order]], 1e-12)


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


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_is_kept(mode, monkeypatch):
    network, graph = case(SpinMode.NONE, torch.float64, trunk=NATURAL)
    called = []
    monkeypatch.setattr(convolution, "kernel", lambda name, dtype: called.append(name) or library.kernel(name, dtype))
    network(graph)
    assert "convolution_saved" in called
    called.clear()
    with mode():
        network(graph)
    assert "convolution_forward" in called
    assert "convolution_saved" not in called


def test_strange_numbers_stay_visible(torch_only):
    network, graph = case(SpinMode.NONE, torch.float32, trunk=BOTH)
    with torch.no_grad():
        network.species[:] = float("nan")
    ours = results(network, graph)
    torch_only()
    theirs = results(network, graph)
    assert all(one.isnan().any() == other.isnan().any() for one, other in zip(ours, theirs, strict=True))
    assert ours[0].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activations_over_the_whole_range(dtype, torch_only):
    layout = Layout.parse("40x0e+40x0o+3x1o")
    torch.manual_seed(0)
    module = EdgeConvolution(Layout.parse("4x0e"), Layout.parse("30x0e+30x0o"), layout, Sizes(2, 3, 1, "graph"))
    module = module.to(dtype)
    rotations = EdgeRotations(
        torch.eye(3, dtype=torch.float64).expand(4, 3, 3), {Irrep(0, True), Irrep(1, True), Irrep(0, False)}, dtype
    )
    none, index = torch.zeros(4, dtype=torch.int64), torch.arange(4).expand(2, 4).contiguous()
    bonds, length_of = torch.empty(2, 0, dtype=torch.int64), torch.arange(4)
    radial = torch.ones(4, 3, dtype=dtype)
    rows = Rows.of(none, 1)
    geometry = Geometry(4, 4, index, bonds, rotations, radial, None, length_of, rows, rows, alone, None, None)
    sizes = torch.tensor([1e-30, 1e-3, 1.0, 300.0], dtype=dtype)[:, None]
    node, edge = torch.zeros(4, 4, dtype=dtype), (torch.randn(4, 60) * sizes).to(dtype)
    ours = module(node, edge, geometry, summed=False)
    torch_only()
    theirs = module(node, edge, geometry, summed=False)
    assert ((ours - theirs).abs() <= 1e3 * torch.finfo(dtype).eps * theirs.abs().amax(1, keepdim=True)).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("weight_rows", [1, 70])
def test_weighted_squares(weight_rows, dtype, threads):
    prediction, target = torch.randn(2, 70, 37, dtype=dtype).unbind()
    weight = torch.rand(weight_rows, 37, dtype=dtype)
    prediction.requires_grad_()
    for count in (1, 3):
        threads(count)
        ours = weighted_squares(prediction, target, weight)
        (gradient,) = torch.autograd.grad(3 * ours, prediction)
        theirs = (weight * (prediction - target).square()).sum()
        assert torch.allclose(ours, theirs)
        assert torch.allclose(gradient, torch.autograd.grad(3 * theirs, prediction)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_left_to_torch(dtype, torch_only):
    network, graph = case(SpinMode.NONE, dtype, trunk=NATURAL)
    ours = network(graph).coefficients
    assert ours.dtype == dtype
    torch_only()
    theirs = network(graph).coefficients
    assert (ours - theirs).abs().max() <= 0.1 * theirs.abs().max()


def test_a_norm_alone_can_be_trained():
    network, graph = case(SpinMode.NONE, torch.float64, trunk=NATURAL)
    everything = dict(zip([name for name, _ in network.named_parameters()], results(network, graph)[1:], strict=True))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name == "edge_updates.2.norm.weight")
    network.zero_grad()
    coefficients, traces = network(graph)
    # what the forward pass has given back is written over
    noise = [torch.full((graph.num_edges, size, size), torch.nan) for size in (1, 3, 5, 7, 9) for _ in range(9)]
    noise += [array.double() for array in noise]
    (coefficients.sin().sum() + traces.square().sum()).backward()
    ours = network.get_parameter("edge_updates.2.norm.weight").grad
    assert_alike([ours], [everything["edge_updates.2.norm.weight"]], 1e-12)


def test_weights_of_another_type_are_refused():
    network, graph = case(SpinMode.NONE, torch.float64, trunk=NATURAL)
    network.head.float()
    with pytest.raises(TypeError, match="float32"):
        network(graph)


def test_rows_of_more_kinds_than_weights_are_refused():
    linear = IrrepLinear(Layout.parse(NARROW), Layout.parse(NARROW), bias=False, kinds=2)
    features = torch.zeros(2, linear.source.dim)
    for members in (None, Members(torch.arange(2), np.array([0, 1, 1, 2]))):
        with pytest.raises(ValueError, match="weights of 2"):
            linear(features, members)


@pytest.mark.parametrize(("channels", "rows"), [(1, 1), (8, 64), (15, 65), (16, 200), (17, 3), (33, 129)])
def test_linear_maps_of_any_size(channels, rows, torch_only):
    source = Layout.parse(f"{channels}x0e+{channels + 1}x0o+2x2e+{channels}x6o")
    target = Layout.parse(f"3x0e+{channels}x0o+{channels}x1o+5x6o")
    torch.manual_seed(0)
    linear = IrrepLinear(source, target, bias=True, kinds=50).double()
    kinds = 7 * torch.randint(0, 3, (rows,))  # most species are absent
    bounds = np.concatenate([[0], torch.bincount(kinds, minlength=50).cumsum(0).numpy()])
    members = Members(torch.argsort(kinds, stable=True), bounds)
    inputs = torch.randn(rows, source.dim, dtype=torch.float64, requires_grad=True)

    def outputs():
        result = linear(inputs, members)
        return [result.detach(), *torch.autograd.grad(result.sin().sum(), [inputs, linear.weight, linear.bias])]

    ours = outputs()
    torch_only()
    assert_alike(ours, outputs(), 1e-12)


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
