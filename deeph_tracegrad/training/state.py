"""Everything that changes while training, and that a resumed training takes up again."""

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from deeph_tracegrad.config import Config, OptimizerSettings
from deeph_tracegrad.edges import Reach
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.orbitals import Basis, SpinMode
from deeph_tracegrad.training.checkpoint import Checkpoint
from deeph_tracegrad.training.losses import NUM_SUMS
from deeph_tracegrad.training.schedules import Schedule


class TrainingState:
    """Network, optimiser, schedule, and where the training stands.

    epoch: complete passes over the samples. batch: batches done in the pass under way.
    sums: (5,) float64, error sums since the last validation, see `losses.error_sums`.
    edges, seconds: trained on since the last validation, and the time that took.
    best, best_epoch: lowest validation error and where it was reached.
    """

    def __init__(self, config: Config, basis: Basis, spin: SpinMode, device: torch.device) -> None:
        torch.manual_seed(config.training.seed)
        self._settings = settings = config.training.optimizer
        dtype = getattr(torch, config.training.dtype)
        self.network = HamiltonianNetwork(config.model, basis, spin).to(device, dtype)
        self.network.recompute = config.training.recompute
        self.network.bf16_products = config.training.matrix_products == "bf16"
        self.average = WeightAverage(self.network, settings.ema_decay) if settings.ema_decay else None
        self.optimizer = _optimizer(self.network, settings)
        self.schedule = Schedule(config.training.schedule, settings.learning_rate, config.training.epochs)
        self.epoch = 0
        self.batch = 0
        self.best = math.inf
        self.best_epoch = 0
        self.sums = torch.zeros(NUM_SUMS, dtype=torch.float64, device=device)
        self.start_interval()

    def fit(
        self, graphs: Callable[[], Iterable[HamiltonianGraph]], reach: Reach, total: Callable[[Tensor], Tensor]
    ) -> None:
        """Take from the training samples what is not learnt by steps; before the first step. See `nn.output`."""
        self.network.hamiltonian.fit(graphs, reach, total)
        if self.average:
            self.average.network.load_state_dict(self.network.state_dict())

    def start_interval(self) -> None:
        """Begin to sum anew, after a validation."""
        self.sums.zero_()
        self.edges = 0
        self.seconds = 0.0

    @property
    def predictor(self) -> HamiltonianNetwork:
        """The network that validates and predicts."""
        return self.average.network if self.average else self.network

    @property
    def learning_rate(self) -> float:
        """The optimiser's present rate."""
        return self.optimizer.param_groups[0]["lr"]

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def content(self) -> dict[str, Any]:
        """What a checkpoint keeps: numbers, strings and tensors."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict() if self.average else None,
            "average_updates": self.average.updates if self.average else 0,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": self.sums.cpu(),
            "edges": self.edges,
            "seconds": self.seconds,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state(self.sums.device) if self.sums.is_cuda else None,
        }

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on where a checkpoint was written.

        Raises:
            ReadError: it lacks something, or does not fit the network.
        """
        content = checkpoint.training
        try:
            self.take_weights(content)
            self.schedule.load_state_dict(content["schedule"])
            self.epoch, self.batch = content["epoch"], content["batch"]
            self.sums[: len(content["sums"])] = content["sums"]  # four in checkpoints of before other losses
            self.edges, self.seconds = content["edges"], content["seconds"]
            self.best, self.best_epoch = content["best"], content["best_epoch"]
            torch.set_rng_state(content["random"])
            if self.sums.is_cuda and content["random_gpu"] is not None:
                torch.cuda.set_rng_state(content["random_gpu"], self.sums.device)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ReadError(checkpoint.path or "checkpoint", f"cannot go on from it: {error}") from error

    def take_weights(self, content: dict[str, Any]) -> None:
        """Weights, their average and the optimiser's moments as a checkpoint has them; nothing else."""
        self.network.load_state_dict(content["network"])
        settings = {"betas": self._settings.betas, "weight_decay": self._settings.weight_decay}
        self.optimizer.load_state_dict(content["optimizer"])
        for group in self.optimizer.param_groups:  # these may have been changed for a resumed training
            group.update(settings)
        if self.average:
            self.average.network.load_state_dict(content["average"] or content["network"])
            self.average.updates = content["average_updates"]


class WeightAverage:
    """Exponential running average of a network's weights, over fewer steps at first.

    After n steps the decay is (1 + n) / (10 + n), up to `decay`: else the random initial weights would stay in the
    average for thousands of steps.
    """

    def __init__(self, network: HamiltonianNetwork, decay: float) -> None:
        self.network = deepcopy(network).requires_grad_(requires_grad=False)
        self.updates = 0
        self._decay = decay

    def update(self, network: HamiltonianNetwork) -> None:
        """Move towards the network's present weights."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        average = get_ema_multi_avg_fn(decay)
        average(list(self.network.parameters()), list(network.parameters()), self.updates)


def _optimizer(network: HamiltonianNetwork, settings: OptimizerSettings) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(
        network.parameters(),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )
