"""Gradients summed over the ranks while the backward pass still runs.

Shape letters: W weights of a bucket.
"""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed import Work
from torch.nn import Parameter

from deeph_tracegrad.parallel import world
from deeph_tracegrad.training.distributed import Ranks


class GradientSum:
    """Gives every parameter the sum of all ranks' gradients; a rank without a gradient counts as zero.

    Gradients travel in buckets. One is sent as soon as the backward pass has filled it and those before it, so that all
    ranks send in the same order, also one that has no edges and sends zeros. The first step makes a single bucket; the
    others follow the order in which gradients came on the main rank, which has edges of every batch.

    bucket_bytes: what a bucket holds at least.
    """

    def __init__(self, parameters: Sequence[Parameter], ranks: Ranks) -> None:
        self._parameters, self._ranks = parameters, ranks
        self.bucket_bytes = _bucket_bytes(ranks)
        self._came: list[Parameter] = []
        self._ordered = False
        self._under_way: list[Work] = []
        if ranks.size > 1:
            self._take_buckets([_Bucket(parameters)])
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(self._take)

    def finish(self) -> None:
        """To be called by all ranks after the backward pass, or instead of it."""
        if self._ranks.size == 1:
            for parameter in self._parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            return
        for bucket in self._buckets[len(self._under_way) :]:
            bucket.fill()
            self._send(bucket)
        for work in self._under_way:
            work.wait()
        self._under_way.clear()
        if not self._ordered:
            self._order()

    def _take(self, parameter: Parameter) -> None:
        """Called when the gradient of a parameter is complete."""
        if not self._ordered:
            self._came.append(parameter)
        self._bucket_of[parameter].take(parameter)
        while len(self._under_way) < len(self._buckets) and self._buckets[len(self._under_way)].full:
            self._send(self._buckets[len(self._under_way)])

    def _send(self, bucket: "_Bucket") -> None:
        self._under_way.append(self._ranks.begin_sum(bucket.flat))
        bucket.missing = set(bucket.parts)

    def _order(self) -> None:
        """Divide the parameters into buckets in the order in which their gradients came on the main rank."""
        place = {parameter: place for place, parameter in enumerate(self._came)}
        places = [place.get(parameter, len(place)) for parameter in self._parameters]
        places = self._ranks.of_main(torch.tensor(places, device=self._ranks.device)).tolist()
        buckets: list[list[Parameter]] = [[]]
        for number in sorted(range(len(places)), key=places.__getitem__):
            if sum(parameter.nbytes for parameter in buckets[-1]) >= self.bucket_bytes:
                buckets.append([])
            buckets[-1].append(self._parameters[number])
        self._take_buckets([_Bucket(parameters) for parameters in buckets])
        self._ordered = True
        self._came.clear()

    def _take_buckets(self, buckets: "list[_Bucket]") -> None:
        self._buckets = buckets
        self._bucket_of = {parameter: bucket for bucket in buckets for parameter in bucket.parts}


def _bucket_bytes(ranks: Ranks) -> int:
    """Small enough that most are sent before the backward pass ends, large enough that their delays do not count.

    Between processes of one machine a message is a copy, which takes from the backward pass what it would gain: there
    is one bucket.
    """
    copied = ranks.device.type == "cpu" and world().local_size == world().size
    return sys.maxsize if copied else 1 << 20


class _Bucket:
    """Parameters whose gradients are parts of one array.

    flat: (W,), their gradients. parts: those of each, in the shape of the parameter. missing: those yet to come.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        sizes = [parameter.numel() for parameter in parameters]
        self.flat = torch.zeros(sum(sizes), dtype=parameters[0].dtype, device=parameters[0].device)
        self.parts: dict[Parameter, Tensor] = {
            parameter: part.view_as(parameter)
            for parameter, part in zip(parameters, self.flat.split(sizes), strict=True)
        }
        self.missing = set(parameters)

    @property
    def full(self) -> bool:
        """Whether no gradient is missing."""
        return not self.missing

    def take(self, parameter: Parameter) -> None:
        """The gradient that the backward pass left at the parameter."""
        if parameter.grad is not None:
            parameter.grad = self.parts[parameter].copy_(parameter.grad)
        self.missing.remove(parameter)

    def fill(self) -> None:
        """Zeros where this rank has no gradient."""
        for parameter in self.missing:
            parameter.grad = self.parts[parameter].zero_()
