"""The training loop.

All ranks run it in step: each computes its share of every batch, errors and gradients are summed, and each then makes
the same update. Only the main rank writes.
"""

import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from deeph_tracegrad.config import Config
from deeph_tracegrad.console import count
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.devices import device_name, enough_memory
from deeph_tracegrad.errors import TrainingError
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.parallel import world
from deeph_tracegrad.training.batches import GraphLoader, pack, share, shuffled
from deeph_tracegrad.training.checkpoint import Checkpoint, library_versions, load_checkpoint
from deeph_tracegrad.training.distributed import Ranks, joined_ranks
from deeph_tracegrad.training.gradients import GradientSum
from deeph_tracegrad.training.interruption import Interruption, interruption
from deeph_tracegrad.training.losses import NUM_SUMS, error_sums, training_loss
from deeph_tracegrad.training.metrics import HEADER, EpochMetrics, MetricsWriter, duration
from deeph_tracegrad.training.run_folder import RunFolder
from deeph_tracegrad.training.split import split_samples
from deeph_tracegrad.training.state import TrainingState


def train(config: Config, *, resume: bool) -> None:
    """Train a network as configured; write everything into the run folder.

    Raises:
        ConfigError: a device, split or network that cannot be.
        TrainingError: the run folder is taken, there is nothing to resume, or the loss is no longer finite.
        MismatchError: what is resumed is another training.
        DeviceError: a batch needs more memory than there is.
        KeyboardInterrupt: the training was asked to stop; last.pt has its state.
    """
    advice = f"lower data.max_edges, now {config.data.max_edges}, or use more ranks or a smaller network"
    with joined_ranks(config.training) as ranks, interruption() as request, enough_memory(advice):
        Training(config, ranks, request, resume=resume).run()


class Training:
    """One training: what its steps share."""

    def __init__(self, config: Config, ranks: Ranks, request: Interruption, *, resume: bool) -> None:
        self.config, self.settings, self.ranks, self.request = config, config.training, ranks, request
        self.dataset = GraphDataset(config.data.dataset)
        self.edge_counts = self.dataset.edge_counts
        self.split = split_samples(self.dataset.labels, config.data)
        self.state = TrainingState(config, self.dataset.basis, self.dataset.spin, ranks.device)
        self.parameters = list(self.state.network.parameters())
        self.gradients = GradientSum(self.parameters, ranks)
        dtype = getattr(torch, self.settings.dtype)
        self.loader = GraphLoader(self.dataset, ranks.device, dtype, in_memory=config.data.in_memory)
        self.folder = RunFolder(self.settings.run)
        labels = self.split.labels(self.dataset.labels)
        facts = {**library_versions(), "device": device_name(ranks.device), "ranks": str(ranks.size)}
        if resume:
            self.state.resume(self.folder.resume(config, self.dataset.fingerprint, labels, facts))
        else:
            self.folder.begin(config, labels, facts)
            self.state.fit(self._training_graphs, self.dataset.reach, ranks.sum)

    def run(self) -> None:
        """All epochs that are left."""
        state, settings = self.state, self.settings
        self._introduce()
        start, first = time.perf_counter(), state.epoch
        with MetricsWriter(self.folder.metrics, self.folder.tensorboard, state.epoch) as writer:
            while state.epoch < settings.epochs and not state.schedule.finished:
                complete = self.train_epoch()
                if complete and (state.epoch % settings.validation_interval == 0 or state.epoch == settings.epochs):
                    metrics = self.validate()
                    pace = (time.perf_counter() - start) / (state.epoch - first)
                    self.folder.say(metrics.line(pace * (settings.epochs - state.epoch)))
                    writer.write(metrics)
                    self.conclude(metrics)
                if self.request.on_any_rank():
                    self._stop()
        self._summarise(time.perf_counter() - start)

    def train_epoch(self) -> bool:
        """One pass over the training samples, or what is left of it; False if it was asked to stop before the end."""
        state, start = self.state, time.perf_counter()
        order = shuffled(self.split.train, self.settings.seed, state.epoch)
        batches = pack(order, self.edge_counts, self.config.data.max_edges)
        for graph in self.loader.batches(self._shares(batches)[state.batch :]):
            state.learning_rate = state.schedule.rate(state.epoch + (state.batch + 1) / len(batches))
            self.step(graph)
            state.edges += int(self.edge_counts[batches[state.batch]].sum())
            state.batch += 1
            if self.request.on_any_rank():
                break
        self._require_finite("training", state.sums[0].item())  # this also waits for the device
        state.seconds += time.perf_counter() - start
        if state.batch < len(batches):
            return False
        state.epoch += 1
        state.batch = 0
        return True

    def step(self, graph: HamiltonianGraph | None) -> None:
        """One update of the weights from this rank's share of a batch, which may be empty."""
        state = self.state
        errors = torch.zeros_like(state.sums)
        if graph is not None:
            errors = error_sums(state.network(graph), graph, state.network.layout)
        total = self.ranks.sum(errors.detach().clone())
        state.optimizer.zero_grad()
        if graph is not None:
            training_loss(errors, total, self.config.model.tracegrad.loss_weight).backward()
        self.gradients.finish()
        if self.settings.optimizer.gradient_clip:
            clip_grad_norm_(self.parameters, self.settings.optimizer.gradient_clip)
        state.optimizer.step()
        if state.average:
            state.average.update(state.network)
        state.sums += total

    def validate(self) -> EpochMetrics:
        """The errors since the last validation, and those on the validation samples."""
        state = self.state
        train_loss, train_trace = _means(state.sums)
        loss = trace = mae = None
        if self.split.validation:
            sums = self._validation_sums()
            loss, trace = _means(sums)
            mae = 1e3 * (sums[NUM_SUMS] / sums[1]).item()
        return EpochMetrics(
            epoch=state.epoch,
            train_loss=train_loss,
            train_trace_error=train_trace,
            validation_loss=loss,
            validation_trace_error=trace,
            validation_mae_mev=mae,
            learning_rate=state.learning_rate,
            edges_per_second=state.edges / state.seconds,
        )

    @torch.inference_mode()
    def _validation_sums(self) -> Tensor:
        """(NUM_SUMS + 1,) float64: the error sums, then the absolute errors of H's elements in eV."""
        network = self.state.predictor
        sums = torch.zeros(NUM_SUMS + 1, dtype=torch.float64, device=self.ranks.device)
        batches = pack(self.split.validation, self.edge_counts, self.config.data.max_edges)
        for graph in self.loader.batches(self._shares(batches)):
            if graph is not None:
                prediction = network(graph)
                sums[:NUM_SUMS] += error_sums(prediction, graph, network.layout)
                errors = network.layout.element_errors(prediction.coefficients - graph.target, graph)
                sums[NUM_SUMS] += (errors * network.layout.element_mask(graph)).sum()
        return self.ranks.sum(sums)

    def conclude(self, metrics: EpochMetrics) -> None:
        """Keep the state, also as the best if it is; let the schedule draw its conclusions."""
        state = self.state
        self._require_finite("validation", metrics.decisive)
        state.start_interval()
        if metrics.decisive < state.best:
            state.best, state.best_epoch = metrics.decisive, metrics.epoch
            self._save("best", metrics)
        if state.schedule.validated(metrics.decisive):
            world().barrier()  # the other ranks read what the main rank wrote
            state.take_weights(load_checkpoint(self.folder.best).training)
            self.folder.say(f"the error stayed above twice the best: back to the weights of epoch {state.best_epoch}")
        self._save("last", metrics)

    def _training_graphs(self) -> Iterator[HamiltonianGraph]:
        """What this rank computes of one pass over the training samples."""
        batches = pack(self.split.train, self.edge_counts, self.config.data.max_edges)
        return (graph for graph in self.loader.batches(self._shares(batches)) if graph is not None)

    def _shares(self, batches: list[list[int]]) -> list[list[int]]:
        """What this rank computes of each batch."""
        return [share(batch, self.edge_counts, self.ranks.rank, self.ranks.size) for batch in batches]

    def _save(self, name: str, metrics: EpochMetrics | None) -> None:
        if world().is_main:
            Checkpoint(
                config=self.config,
                basis=self.dataset.basis,
                spin=self.dataset.spin,
                reach=self.dataset.reach,
                fingerprint=self.dataset.fingerprint,
                split=self.split.labels(self.dataset.labels),
                versions=library_versions(),
                metrics=metrics.known() if metrics else {},
                training=self.state.content(),
            ).save(getattr(self.folder, name))

    def _stop(self) -> None:
        """Keep the state between two batches, and leave."""
        self._save("last", None)
        world().barrier()
        self.folder.say(
            f"stopped in epoch {self.state.epoch + 1}; the same command with --resume goes on from {self.folder.last}"
        )
        raise KeyboardInterrupt

    def _require_finite(self, which: str, loss: float) -> None:
        if not math.isfinite(loss):
            last = self.folder.last
            advice = (
                f"the last good checkpoint is {last}: go on from it with --resume and a lower "
                "training.optimizer.learning_rate"
                if last.is_file()
                else "no checkpoint was written before: start again with a lower training.optimizer.learning_rate"
            )
            raise TrainingError(f"the {which} loss is {loss} in epoch {self.state.epoch + 1}; {advice}")

    def _introduce(self) -> None:
        split, ranks = self.split, self.ranks
        weights = sum(parameter.numel() for parameter in self.parameters)
        edges = self.edge_counts[list(split.train)].sum()
        self.folder.say(
            f"{device_name(ranks.device)}, {count(ranks.size, 'rank')}; {weights} weights in {self.settings.dtype}; "
            f"{count(len(split.train), 'sample')} of {edges} edges to train on, {len(split.validation)} to validate, "
            f"{len(split.test)} to test; {self.dataset.basis.describe()}, spin {self.dataset.spin}"
        )
        self.folder.say(HEADER)

    def _summarise(self, seconds: float) -> None:
        state, folder = self.state, self.folder
        reason = "; the learning rate reached its end" if state.schedule.finished else ""
        self.folder.say(
            f"{state.epoch} epochs done, {duration(seconds)} in this run{reason}; lowest error {state.best:.4e} eV² "
            f"after epoch {state.best_epoch}: {folder.best}; also {folder.last}, {folder.metrics}"
        )


def _means(sums: Tensor) -> tuple[float, float | None]:
    """L_H in eV² and L_T from error sums; None without trace labels."""
    squared, elements, deviation, labels = sums[:NUM_SUMS].tolist()
    return squared / elements, deviation / labels if labels else None
