"""The compiled convolution: what `nn/updates.py` describes, forward and backward, in one pass over the edges.

Shape letters: N atoms, R edges, B bonds, F features of a row, C channels.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deeph_tracegrad.nn.gate import Gate
from deeph_tracegrad.nn.kernels.library import kernel, lanes, require_alike
from deeph_tracegrad.nn.layout import Irrep, Layout

if TYPE_CHECKING:
    from deeph_tracegrad.nn.tensor_product import EdgeFrameProduct
    from deeph_tracegrad.nn.updates import Geometry


class _Plans(NamedTuple):
    """For one precision: plans of convolution and product, the product's coefficients, numbers in all matrices."""

    convolution: np.ndarray
    product: np.ndarray
    table: np.ndarray
    size: int


class ConvolutionKernel:
    """One convolution of the network."""

    def __init__(self, node: Layout, edge: Layout, gate: Gate, product: "EdgeFrameProduct") -> None:
        self.node, self.edge, self.gate, self.product = node, edge, gate, product
        self._plans: dict[torch.dtype, _Plans] = {}

    def __call__(self, node: Tensor, edge: Tensor, radial: Tensor, geometry: "Geometry", *, summed: bool) -> Tensor:
        """(N, F), (R, F), (N + B, C) -> (R, F) in the edges' frames; or (N, F), summed over the edges of each atom."""
        product = self.product
        inputs = (node, edge, radial, product.weight, product.scale)
        require_alike(*inputs)
        return _Convolution.apply(*inputs, self, geometry, summed, torch.is_grad_enabled())

    def plans(self, dtype: torch.dtype) -> _Plans:
        """What the kernels of this precision are told."""
        if dtype not in self._plans:
            self._plans[dtype] = self._planned(dtype)
        return self._plans[dtype]

    def _planned(self, dtype: torch.dtype) -> _Plans:
        target, copies = self.gate.before, self.product.copies
        offsets: dict[tuple[int, int, int], int] = {}
        size = 0
        for on_site in range(2):
            for number, source in enumerate((self.node, self.edge)):
                for order in range(target.degree + 1):
                    offsets[on_site, number, order] = size
                    # on site both atoms are one
                    size += (1 if on_site else copies[number]) * self._block(source, order, dtype)
        gate = self.gate
        layouts = [self.node, self.edge, gate.before, gate.after]
        counts = [gate.scalars, gate.pseudoscalars, gate.gated]
        convolution = np.concatenate([*(layout.plan for layout in layouts), counts, list(offsets.values())])
        product: list[int] = []
        tables: list[np.ndarray] = []
        for number, (source, groups) in enumerate(zip((self.node, self.edge), self.product.groups, strict=True)):
            for group in groups:
                orders = range(min(group.source.degree, group.target.degree) + 1)
                places = [
                    [
                        offsets[on_site, number, order]
                        + (source.starts[group.source] - source.first_channel(order)) * self._width(order, dtype)
                        + target.starts[group.target]
                        - target.first_channel(order)
                        for order in orders
                    ]
                    for on_site in range(2)
                ]
                product += [
                    self.product.sources[number].groups[group.source],
                    target.groups[group.target],
                    group.paths,
                    copies[number],
                    group.weights.start,
                    group.scales.start,
                    len(orders),
                    sum(map(len, tables)),
                    *places[0],
                    *(places[1] if group.on_site else [-1] * len(orders)),
                    *(self._width(order, dtype) for order in orders),
                    *(self._block(source, order, dtype) for order in orders),
                    *(_half_turn(group.source, order) for order in orders),
                ]
                tables += [self.product.coefficients(group).ravel(), np.array([group.on_site])]
        count = sum(map(len, self.product.groups))
        number_type = np.float32 if dtype == torch.float32 else np.float64
        table = np.concatenate(tables).astype(number_type)
        return _Plans(convolution, np.array([count, *product]), table, size)

    def _width(self, order: int, dtype: torch.dtype) -> int:
        """Columns of the matrices of one |m|, padded."""
        columns = self.gate.before.channels - self.gate.before.first_channel(order)
        return -(-columns // lanes(dtype)) * lanes(dtype)

    def _block(self, source: Layout, order: int, dtype: torch.dtype) -> int:
        """Numbers in the matrix of one |m| for one input."""
        return (source.channels - source.first_channel(order)) * self._width(order, dtype)


def _half_turn(irrep: Irrep, order: int) -> int:
    """The sign of an irrep's channels in the other frame of a bond; see bonds.hpp."""
    turned = not irrep.natural and order > 0
    return -1 if (irrep.degree + turned) % 2 else 1


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        node: Tensor,
        edge: Tensor,
        radial: Tensor,
        weight: Tensor,
        scale: Tensor,
        convolution: ConvolutionKernel,
        geometry: "Geometry",
        summed: bool,
        recorded: bool,
    ) -> Tensor:
        dtype, after = node.dtype, convolution.gate.after
        plans = convolution.plans(dtype)
        node, edge, radial = node.contiguous(), edge.contiguous(), radial.contiguous()
        matrices = node.new_zeros(plans.size)
        kernel("product_forward", dtype)(plans.product, plans.table, weight, scale, matrices)
        edges = len(edge)
        kept = None
        if recorded and any(ctx.needs_input_grad):  # which weights say without gradients too
            kept = node.new_empty(kernel("convolution_saved", dtype)(plans.convolution, geometry.atoms, edges))
        out = node.new_zeros(geometry.atoms, after.dim) if summed else node.new_empty(edges, after.dim)
        inputs = (node, edge, geometry.edge_index, geometry.bonds, geometry.rotations.addresses, radial, matrices)
        kernel("convolution_forward", dtype)(
            plans.convolution, *inputs, geometry.atoms, edges, kept, out, summed, torch.get_num_threads()
        )
        if kept is not None:
            ctx.save_for_backward(node, edge, radial, weight, scale, matrices, kept)
        ctx.convolution, ctx.geometry, ctx.summed = convolution, geometry, summed
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        node, edge, radial, weight, scale, matrices, kept = ctx.saved_tensors
        geometry, dtype = ctx.geometry, node.dtype
        plans = ctx.convolution.plans(dtype)
        gradient = gradient.contiguous()
        node_gradient = torch.zeros_like(node)
        edge_gradient = torch.empty_like(edge) if ctx.needs_input_grad[1] else None
        radial_gradient = torch.empty_like(radial)
        matrices_gradient = torch.zeros_like(matrices)
        inputs = (node, edge, geometry.edge_index, geometry.bonds, geometry.rotations.addresses, radial, matrices)
        outputs = (node_gradient, edge_gradient, radial_gradient, matrices_gradient)
        kernel("convolution_backward", dtype)(
            plans.convolution,
            *inputs,
            geometry.atoms,
            len(edge),
            kept,
            gradient,
            ctx.summed,
            *outputs,
            plans.size,
            torch.get_num_threads(),
        )
        weight_gradient, scale_gradient = torch.empty_like(weight), torch.zeros_like(scale)
        kernel("product_backward", dtype)(
            plans.product, plans.table, weight, scale, matrices_gradient, weight_gradient, scale_gradient
        )
        return node_gradient, edge_gradient, radial_gradient, weight_gradient, scale_gradient, None, None, None, None
