import pytest
import torch

from deeph_tracegrad.nn.layout import Layout
from deeph_tracegrad.nn.tracegrad import CompactTraceGrad, PaperTraceGrad

FORMS = [CompactTraceGrad, PaperTraceGrad]
BOTH_PARITIES = "5x0e+2x0o+4x1o+3x1e+2x2e+1x3o"


def module_and_features(form):
    torch.manual_seed(0)
    layout = Layout.parse(BOTH_PARITIES)
    module = form(layout, width=12, targets=7).double()
    for norm in (module.hidden_norm, module.out_norm):  # neither ones nor zeros
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    return module, torch.randn(9, layout.dim, dtype=torch.float64, requires_grad=True)


def gradient_of(module, features):
    """z and v."""
    z, corrected = module(features)
    return z, corrected - features


@pytest.mark.parametrize("form", FORMS)
def test_the_closed_form_gradient_and_all_its_gradients_equal_autograds(form):
    module, features = module_and_features(form)
    z, v = gradient_of(module, features)
    (oracle,) = torch.autograd.grad(z.sum(), features, create_graph=True)
    assert (v - oracle).abs().max() < 1e-10 * oracle.abs().max()

    probe_z, probe_v = torch.randn_like(z), torch.randn_like(v)
    wanted = [features, *module.parameters()]
    ours = torch.autograd.grad((z * probe_z).sum() + (v * probe_v).sum(), wanted, retain_graph=True)
    theirs = torch.autograd.grad((z * probe_z).sum() + (oracle * probe_v).sum(), wanted)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-10 * b.abs().max().clamp(min=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_z_stays_and_v_turns_with_the_components(form):
    module, features = module_and_features(form)
    turns = {irrep: torch.linalg.qr(torch.randn(irrep.size, irrep.size).double())[0] for irrep in module.layout.groups}

    def turned(rows):
        parts = zip(module.layout.by_irrep(rows), turns.values(), strict=True)
        return module.layout.from_irreps([turn @ part for part, turn in parts])

    z, v = gradient_of(module, features)
    z_turned, v_turned = gradient_of(module, turned(features))
    assert (z_turned - z).abs().max() < 1e-10 * z.abs().max()
    assert (v_turned - turned(v)).abs().max() < 1e-10 * v.abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_it_works_without_autograd(form):
    layout = Layout.parse("4x0e+2x1o")
    module = form(layout, width=4, targets=3)
    with torch.inference_mode():
        _, v = module(torch.randn(5, layout.dim))
    assert v.shape == (5, layout.dim)
