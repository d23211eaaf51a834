"""The weights of an official DeepH-E3 network as those of ours.

Each number of ours is one of theirs times a constant: the order differs, and where their e3nn gives a w3j the other
sign or normalises a path otherwise, that is folded into the weights of the path or output. So gradients map as well:
if y = map(x), then ∂L/∂y = map(∂L/∂x) / map(1)².

Their channels stand in the order in which a layer lists its irreps, ours are sorted by degree (`nn/layout.py`).
Source of their tensors' order: `model.py` and `e3modules.py` of DeepH-E3, commit f011d5f, and e3nn.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deeph_tracegrad.deeph_e3.conventions import Convention
from deeph_tracegrad.deeph_e3.layers import Channels, Convolution, channel_order, our_outputs, their_outputs, total
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.nn.layout import Irrep, Layout
from deeph_tracegrad.nn.linear import SCALAR
from deeph_tracegrad.targets import Target, TargetLayout

RADIAL_FUNCTIONS = 128  # on the grid up to r_max
_HIDDEN = 64  # width of the perceptron of the radial weights


@dataclass(frozen=True)
class OfficialNetwork:
    """What shapes the tensors of DeepH-E3's network; each layer lists an irrep once.

    harmonics_degree: largest l of Y. targets: the shell pairs of the outputs, in its order.
    """

    species: int
    blocks: int
    harmonics_degree: int
    embed_node: Channels
    edge_init: Channels
    mid_node: Channels
    post_node: Channels
    mid_edge: Channels
    post_edge: Channels
    targets: Sequence[Target]


def our_weights(
    official: Mapping[str, Tensor], network: OfficialNetwork, layout: TargetLayout, convention: Convention
) -> dict[str, Tensor]:
    """The parameters of a `HamiltonianNetwork` that computes what the official network computes.

    official: its state dict; tables, masks and grids may be missing. layout: with the same targets.

    Raises:
        MismatchError: a tensor is missing, unknown or of another shape.
    """
    taken = _Taken(official)
    species, degree = network.species, network.harmonics_degree
    node, edge = network.embed_node, network.edge_init
    ours = {"species": taken.take("embedding.weight", species, total(node)) * species**-0.5}
    for block in range(network.blocks):
        last = block == network.blocks - 1
        convolution = Convolution([node, node, edge], network.post_node if last else network.mid_node, degree)
        update = _update(taken, f"node_update_blocks.{block}", node, convolution, species, convention)
        ours |= {f"node_updates.{block}.{name}": tensor for name, tensor in update.items()}
        node = convolution.after
        convolution = Convolution([node, node, edge], network.post_edge if last else network.mid_edge, degree)
        update = _update(taken, f"edge_update_blocks.{block}", edge, convolution, species**2, convention)
        ours |= {f"edge_updates.{block}.{name}": tensor for name, tensor in update.items()}
        edge = convolution.after
    ours |= {f"head.{name}": tensor for name, tensor in _head(taken, edge, network, layout, convention).items()}
    taken.require_all()
    return ours


class _Taken:
    """The official tensors, less those that have been used."""

    # an output that the program drops, and what this program makes itself
    _UNUSED = ("lin_node.", "basis.", "distance_expansion.")
    _UNUSED_PARTS = ("._w3j_", ".output_mask")

    def __init__(self, official: Mapping[str, Tensor]) -> None:
        self._left = dict(official)

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor in this shape; e3nn keeps many flat."""
        tensor = self._left.pop(name, None)
        if tensor is None:
            raise MismatchError(f"there is no tensor {name}, which a network of these irreps has")
        if tensor.shape not in (shape, (torch.Size(shape).numel(),)):
            raise MismatchError(f"the tensor {name} has the shape {list(tensor.shape)} instead of {list(shape)}")
        return tensor.reshape(shape)

    def require_all(self) -> None:
        """Refuse a tensor that nothing has used."""
        for name, tensor in self._left.items():
            known = name.startswith(self._UNUSED) or any(part in name for part in self._UNUSED_PARTS)
            if tensor.numel() and not known:
                raise MismatchError(f"there is a tensor {name}, which no network of these irreps has")


def _update(
    taken: _Taken, name: str, own: Channels, convolution: Convolution, kinds: int, convention: Convention
) -> dict[str, Tensor]:
    """The parameters of one update. own: the irreps of what is updated; kinds: how many kinds of it there are."""
    after = convolution.after
    scalars = dict(after).get(SCALAR, 0)
    ours = {
        "before.weight": _linear(taken, f"{name}.lin_pre", own, own),
        "before.bias": taken.take(f"{name}.lin_pre.bias", dict(own).get(SCALAR, 0)),
        **_convolution(taken, name, convolution, convention),
        "after.weight": _linear(taken, f"{name}.lin_post", after, after),
        "after.bias": taken.take(f"{name}.lin_post.bias", scalars),
        "self_connection.weight": _linear(taken, f"{name}.sc", own, after, kinds),
        "norm.weight": taken.take(f"{name}.norm.weight", total(after))[channel_order(after)],
        "norm.bias": taken.take(f"{name}.norm.bias", scalars),
    }
    if own != after:
        ours["skip.weight"] = _linear(taken, f"{name}.skip_connect.sc", own, after)
    return ours


def _convolution(taken: _Taken, name: str, convolution: Convolution, convention: Convention) -> dict[str, Tensor]:
    """The parameters of the tensor product and of its radial weights."""
    rows, columns = [dict(source) for source in convolution.sources], dict(convolution.before)
    paths_into = Counter(path.last for path in convolution.paths)
    rows_into: Counter[Irrep] = Counter()
    for path in convolution.paths:
        rows_into[path.last] += rows[path.slot][path.first]
    weights, scales = {}, {}
    for number, path in enumerate(convolution.paths):
        height, width = rows[path.slot][path.first], columns[path.last]
        factor = convention.sign(path.first.degree, path.harmonic, path.last.degree)
        if not convention.equal_paths:
            factor *= (paths_into[path.last] * height / rows_into[path.last]) ** 0.5
        order = convolution.scalar_order if path.last == SCALAR else torch.arange(width)
        weights[path] = factor * taken.take(f"{name}.conv.tp.weights1.{number}", height, width)[:, order].flatten()
        scales[path] = taken.take(f"{name}.conv.tp.weights2.{number}", 1, width)[0, order]
    ours = {
        "convolution.product.weight": torch.cat([weights[path] for path in convolution.our_paths()]),
        "convolution.product.scale": torch.cat([scales[path] for path in convolution.our_paths()]),
    }
    after = convolution.after
    shapes = {0: (_HIDDEN, RADIAL_FUNCTIONS), 2: (_HIDDEN, _HIDDEN), 4: (total(after), _HIDDEN)}
    for layer, shape in shapes.items():
        order = channel_order(after) if layer == 4 else torch.arange(shape[0])
        ours[f"convolution.weights.layers.{layer}.weight"] = taken.take(f"{name}.conv.fc.{layer}.weight", *shape)[order]
        ours[f"convolution.weights.layers.{layer}.bias"] = taken.take(f"{name}.conv.fc.{layer}.bias", shape[0])[order]
    return ours


def _linear(taken: _Taken, name: str, source: Channels, target: Channels, kinds: int = 1) -> Tensor:
    """The weights of a linear map, (k, all u·w); with several kinds a product with one-hot scalars in DeepH-E3."""
    columns = dict(target)
    shapes = {irrep: (rows, kinds, columns[irrep]) for irrep, rows in source if irrep in columns}
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    flat = taken.take(f"{name}.weight", sum(sizes))
    parts = {
        irrep: part.view(shape).movedim(1, 0).reshape(kinds, -1)
        for (irrep, shape), part in zip(shapes.items(), flat.split(sizes), strict=True)
    }
    ordered = [parts[irrep] for irrep in Layout(target).groups if irrep in parts]
    return torch.cat([flat.new_empty(kinds, 0), *ordered], dim=1)


def _head(
    taken: _Taken, edge: Channels, network: OfficialNetwork, layout: TargetLayout, convention: Convention
) -> dict[str, Tensor]:
    """The parameters of the last linear map."""
    theirs, ours = their_outputs(network.targets, layout.spin), our_outputs(layout.targets, layout.spin)
    rows = dict(edge)
    if missing := {str(output.irrep) for output in theirs} - {str(irrep) for irrep in rows}:
        raise MismatchError(f"H needs the irrep {min(missing)}, which no path of the last convolution leads to")
    grouped = [output for irrep in rows for output in theirs if output.irrep == irrep]
    sizes = [rows[output.irrep] for output in grouped]
    columns = dict(zip(grouped, taken.take("lin_edge.weight", sum(sizes)).split(sizes), strict=True))
    scalars = [output for output in theirs if output.irrep == SCALAR]
    biases = dict(zip(scalars, taken.take("lin_edge.bias", len(scalars)), strict=True))
    weight = [
        torch.stack([columns[output] * output.sign(convention) for output in ours if output.irrep == irrep], dim=1)
        for irrep in Layout((output.irrep, 1) for output in ours).groups
    ]
    bias = [biases[output] * output.sign(convention) for output in ours if output.irrep == SCALAR]
    return {"weight": torch.cat([part.flatten() for part in weight])[None], "bias": torch.stack(bias)}
