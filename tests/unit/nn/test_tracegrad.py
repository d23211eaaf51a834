import torch

from deeph_tracegrad.nn.layout import Layout
from deeph_tracegrad.nn.tracegrad import TraceGrad


def test_the_closed_form_gradient_and_all_its_gradients_equal_autograds():
    torch.manual_seed(0)
    layout = Layout.parse("5x0e+2x0o+4x1o+3x1e+2x2e+1x3o")
    module = TraceGrad(layout, width=12, targets=7).double()
    for norm in (module.hidden_norm, module.out_norm):  # neither ones nor zeros
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    features = torch.randn(9, layout.dim, dtype=torch.float64, requires_grad=True)
    z, v = module(features)
    (oracle,) = torch.autograd.grad(z.sum(), features, create_graph=True)
    assert (v - oracle).abs().max() < 1e-10 * oracle.abs().max()

    probe_z, probe_v = torch.randn_like(z), torch.randn_like(v)
    wanted = [features, *module.parameters()]
    ours = torch.autograd.grad((z * probe_z).sum() + (v * probe_v).sum(), wanted, retain_graph=True)
    theirs = torch.autograd.grad((z * probe_z).sum() + (oracle * probe_v).sum(), wanted)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-10 * b.abs().max().clamp(min=1e-3)


def test_it_works_without_autograd():
    layout = Layout.parse("4x0e+2x1o")
    module = TraceGrad(layout, width=4, targets=3)
    with torch.inference_mode():
        _, v = module(torch.randn(5, layout.dim))
    assert v.shape == (5, layout.dim)
