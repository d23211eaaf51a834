import pytest
import torch
from torch.nn.functional import silu

from deeph_tracegrad.nn import pairs
from deeph_tracegrad.nn.layout import Layout
from deeph_tracegrad.nn.tracegrad import TraceGrad

BOTH_PARITIES = "5x0e+2x0o+4x1o+3x1e+2x2e+1x3o"


def module_and_features():
    torch.manual_seed(0)
    layout = Layout.parse(BOTH_PARITIES)
    module = TraceGrad(layout, width=12, targets=7).double()
    for norm in (module.hidden_norm, module.out_norm):  # neither ones nor zeros
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    return module, torch.randn(41, layout.dim, dtype=torch.float64, requires_grad=True)


def invariants(module, features):
    """z by its definition."""
    q, start = 0, 0
    for part in module.layout.by_irrep(features):
        count = part.shape[2]
        for u in range(count):
            for v in range(u, count):
                product = (part[:, :, u] * part[:, :, v]).sum(dim=1, keepdim=True)
                q = q + (1 if u == v else 2) * product * module.quadratic[start]
                start += 1
    hidden = silu(module.hidden_norm(module.hidden(q)))
    return silu(module.out_norm(module.out(hidden)))


def gradient_of(module, features):
    """z and v."""
    z, corrected = module(features)
    return z, corrected - features


@pytest.fixture(params=["compiled", "torch"])
def kernels(request, monkeypatch):
    """Both ways to the products of channels, some rows at a time."""
    monkeypatch.setattr(pairs, "_ROWS_OF_THREAD", 4)
    if request.param == "torch":
        monkeypatch.setattr(pairs, "compiled", lambda _: False)


@pytest.mark.usefixtures("kernels")
def test_the_closed_form_gradient_and_all_its_gradients_equal_autograds():
    module, features = module_and_features()
    z, v = gradient_of(module, features)
    wanted_z = invariants(module, features)
    (oracle,) = torch.autograd.grad(wanted_z.sum(), features, create_graph=True)
    assert (z - wanted_z).abs().max() < 1e-12
    assert (v - oracle).abs().max() < 1e-10 * oracle.abs().max()

    probe_z, probe_v = torch.randn_like(z), torch.randn_like(v)
    wanted = [features, *module.parameters()]
    ours = torch.autograd.grad((z * probe_z).sum() + (v * probe_v).sum(), wanted, retain_graph=True)
    theirs = torch.autograd.grad((wanted_z * probe_z).sum() + (oracle * probe_v).sum(), wanted)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-10 * b.abs().max().clamp(min=1e-3)


def test_z_stays_and_v_turns_with_the_components():
    module, features = module_and_features()
    turns = {irrep: torch.linalg.qr(torch.randn(irrep.size, irrep.size).double())[0] for irrep in module.layout.groups}

    def turned(rows):
        parts = zip(module.layout.by_irrep(rows), turns.values(), strict=True)
        return module.layout.from_irreps([turn @ part for part, turn in parts])

    z, v = gradient_of(module, features)
    z_turned, v_turned = gradient_of(module, turned(features))
    assert (z_turned - z).abs().max() < 1e-10 * z.abs().max()
    assert (v_turned - turned(v)).abs().max() < 1e-10 * v.abs().max()


def test_channels_beyond_the_vectors_of_the_processor(monkeypatch):
    """Irreps with fewer and with more channels than fit a vector, degrees without a loop of their own."""
    layout = Layout.parse("35x0e+17x1o+1x2e+3x5o+2x6e")
    torch.manual_seed(0)
    channel_pairs = pairs.ChannelPairs(layout)
    inputs = [torch.randn(5, layout.dim), torch.randn(5, 3), torch.randn(sum(channel_pairs.sizes.values()), 3)]

    def results(features, slope, weight):
        leaves = [tensor.double().requires_grad_() for tensor in (features, slope, weight)]
        q = channel_pairs.forms(leaves[0], leaves[2])
        v = channel_pairs.gradient(*leaves)
        return [q, v, *torch.autograd.grad(q.sin().sum() + v.sin().sum(), leaves)]

    ours = results(*inputs)
    monkeypatch.setattr(pairs, "compiled", lambda _: False)
    for one, other in zip(ours, results(*inputs), strict=True):
        assert (one - other).abs().max() < 1e-10 * other.abs().max()


def test_weights_of_another_type_are_refused():
    module, features = module_and_features()
    module.quadratic.data = module.quadratic.data.float()
    with pytest.raises((TypeError, RuntimeError), match=r"(?i)float|dtype|Double"):
        module(features)


def test_it_works_without_autograd():
    layout = Layout.parse("4x0e+2x1o")
    module = TraceGrad(layout, width=4, targets=3)
    with torch.inference_mode():
        _, v = module(torch.randn(5, layout.dim))
    assert v.shape == (5, layout.dim)
