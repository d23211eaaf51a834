import pytest
import torch
from e3nn import o3

from deeph_tracegrad.frames import edge_frames
from deeph_tracegrad.nn.layout import Irrep, Layout
from deeph_tracegrad.nn.rotations import EdgeRotations
from deeph_tracegrad.nn.tensor_product import EdgeFrameProduct, _degrees

NATURAL = "5x0e+4x1o+3x2e+2x3o"
BOTH = "3x0e+2x0o+4x1o+2x1e+3x2e+2x2o+2x3o+1x3e"
ON_SITE = 4
EDGES = 60


def to_e3nn(features: torch.Tensor, layout: Layout, matrices: dict[Irrep, torch.Tensor]) -> torch.Tensor:
    """Our features in the frames -> e3nn's rows in global coordinates: irreps in order, channel before component."""
    parts = []
    for irrep, part in zip(layout.groups, layout.by_irrep(features), strict=True):
        turned = matrices[irrep].mT @ part  # components 0, +1, -1, ...
        order = [0, *(sign * m for m in range(1, irrep.degree + 1) for sign in (1, -1))]
        places = [order.index(m) for m in range(-irrep.degree, irrep.degree + 1)]
        parts.append(turned[:, places].transpose(1, 2).flatten(1))
    return torch.cat(parts, dim=1)


def oracle(
    product: EdgeFrameProduct, sources: list[Layout], copies: list[int], degree: int
) -> tuple[o3.TensorProduct, torch.Tensor]:
    """The same function as one e3nn tensor product, path by path, with our weights."""
    irreps = "+".join(str(source) for source, count in zip(sources, copies, strict=True) for _ in range(count))
    inputs = o3.Irreps(irreps)
    outputs = o3.Irreps(str(product.target))
    instructions, weights = [], []
    slot = 0
    for source, count, groups in zip(sources, copies, product.groups, strict=True):
        group_slots = {
            (copy, irrep): slot + copy * len(source.groups) + place
            for copy in range(count)
            for place, irrep in enumerate(source.groups)
        }
        for group in groups:
            columns = product.target.groups[group.target]
            weight = product.weight[group.weights].view(group.paths, count, -1, columns)
            scale = product.scale[group.scales].view(group.paths, count, 1, columns)
            for path, l2 in enumerate(_degrees(group.source, group.target, degree)):
                for copy in range(count):
                    last = list(product.target.groups).index(group.target)
                    instructions.append((group_slots[copy, group.source], l2, last, "uvw", True))
                    weights.append((weight * scale)[path, copy].unsqueeze(1).flatten())
        slot += count * len(source.groups)
    tensor_product = o3.TensorProduct(
        inputs,
        o3.Irreps.spherical_harmonics(degree),
        outputs,
        instructions,
        path_normalization="path",
        irrep_normalization="component",
        internal_weights=False,
        shared_weights=True,
    )
    return tensor_product, torch.cat(weights)


@pytest.fixture(autouse=True)
def double_precision():
    """e3nn keeps its coupling tables in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("irreps", [NATURAL, BOTH])
def test_the_kernel_is_e3nns_tensor_product_with_gradients(irreps):
    torch.manual_seed(0)
    layout, degree = Layout.parse(irreps), 4
    product = EdgeFrameProduct([layout.doubled, layout], [2, 1], layout, degree).double()
    vectors = torch.randn(EDGES, 3, dtype=torch.float64)
    vectors[:ON_SITE] = 0
    vectors[ON_SITE], vectors[ON_SITE + 1] = torch.tensor([0, 0, 1.3]), torch.tensor([0, 0, -0.7])  # the frames' poles
    rotations = EdgeRotations(torch.from_numpy(edge_frames(vectors.numpy())), set(layout.groups), torch.float64)
    nodes = torch.randn(EDGES, layout.dim, dtype=torch.float64, requires_grad=True)
    edges = torch.randn(EDGES, layout.dim, dtype=torch.float64, requires_grad=True)
    # every edge joins atoms of its own: i is its row, j the row after
    ends = torch.stack([torch.arange(EDGES), torch.arange(1, EDGES + 1) % EDGES])
    gathered = rotations.gather_ends(nodes, layout, ends)
    ours = product([gathered, edges], ON_SITE)

    def halves(doubled: torch.Tensor) -> list[torch.Tensor]:
        parts = layout.doubled.by_irrep(doubled)
        return [layout.from_irreps([part.chunk(2, dim=2)[end] for part in parts]) for end in (0, 1)]

    inputs = [to_e3nn(part, layout, rotations.matrices) for part in (*halves(gathered), edges)]
    # e3nn's axes are (y, z, x)
    harmonics = o3.spherical_harmonics(
        o3.Irreps.spherical_harmonics(degree), vectors[:, [1, 2, 0]], normalize=True, normalization="component"
    )
    tensor_product, weights = oracle(product, [layout, layout], [2, 1], degree)
    theirs = tensor_product(torch.cat(inputs, dim=1), harmonics, weights)
    result = to_e3nn(ours, layout, rotations.matrices)
    assert (result - theirs).abs().max() < 1e-12 * theirs.abs().max()

    probe = torch.randn_like(theirs)
    parameters = [nodes, edges, product.weight, product.scale]
    mine = torch.autograd.grad((result * probe).sum(), parameters, retain_graph=True)
    others = torch.autograd.grad((theirs * probe).sum(), parameters)
    for a, b in zip(mine, others, strict=True):
        assert (a - b).abs().max() < 1e-12 * b.abs().max()
