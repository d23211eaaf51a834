"""The training loop.

All ranks run it in step: each computes its share of every batch, errors and gradients are summed, and each then makes
the same update. The main rank writes, and each rank its own log. Ranks of a group have the same structures, and each
some of their edges.
"""

import math
import os
import signal
import socket
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from deeph_tracegrad.config import Config
from deeph_tracegrad.console import count
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.devices import device_name, enough_memory
from deeph_tracegrad.errors import PreemptionError, TrainingError
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.parallel import world
from deeph_tracegrad.training.batches import GraphLoader, pack, shuffled
from deeph_tracegrad.training.checkpoint import Checkpoint, library_versions, load_checkpoint
from deeph_tracegrad.training.distributed import Ranks, joined_ranks, lost_ranks_named
from deeph_tracegrad.training.gradients import GradientSum
from deeph_tracegrad.training.interruption import Interruption, interruption
from deeph_tracegrad.training.losses import NUM_SUMS, BlockLoss, error_sums, training_loss
from deeph_tracegrad.training.metrics import HEADER, EpochMetrics, MetricsWriter, duration
from deeph_tracegrad.training.precision import deterministic, require_fitting_products, tf32
from deeph_tracegrad.training.rank_log import Interval
from deeph_tracegrad.training.run_folder import Event, Resume, RunFolder
from deeph_tracegrad.training.schedules import MAX_FRUITLESS_REVERTS
from deeph_tracegrad.training.split import split_samples
from deeph_tracegrad.training.state import TrainingState


def train(config: Config, *, resume: Resume) -> None:
    """Train a network as configured; write everything into the run folder.

    Raises:
        ConfigError: a device, split, network or precision that cannot be.
        LaunchError: the ranks do not find each other.
        LostRankError: another rank ended.
        TrainingError: the run folder is taken, there is nothing to resume, or the loss does not stay finite.
        MismatchError: what is resumed is another training.
        DeviceError: a batch needs more memory than there is.
        KeyboardInterrupt: the user asked it to stop; last.pt has its state.
        PreemptionError: the queue asked it to stop; last.pt has its state.
    """
    advice = (
        f"lower data.max_edges, now {config.data.max_edges}, use more ranks (with parallel.graph, now "
        f"{config.parallel.graph}, for one large structure), training.recompute or a smaller network"
    )
    require_fitting_products(config.training)
    folder = RunFolder(config.training.run)
    with (
        folder.faults(),
        deterministic(enabled=config.training.deterministic),
        joined_ranks(config) as ranks,
        interruption() as request,  # around the next: a launcher that sees a rank lost signals those that tell of it
        lost_ranks_named(ranks),
        enough_memory(advice),
    ):
        Training(config, ranks, request, folder, resume=folder.goes_on(resume)).run()


FINITE_INTERVAL = 50  # steps: looking at a loss makes the CPU wait for the GPU


class Training:
    """One training: what its steps share."""

    def __init__(self, config: Config, ranks: Ranks, request: Interruption, folder: RunFolder, *, resume: bool) -> None:
        self.config, self.settings, self.ranks, self.request = config, config.training, ranks, request
        self.dataset = GraphDataset(config.data.dataset)
        self.edge_counts = self.dataset.edge_counts
        self.split = split_samples(self.dataset.labels, config.data)
        self.state = TrainingState(config, self.dataset.basis, self.dataset.spin, ranks.device)
        self.loss = BlockLoss.of(config.training, self.state.network)
        self.parameters = list(self.state.network.parameters())
        self.gradients = GradientSum(self.parameters, ranks)
        dtype = getattr(torch, self.settings.dtype)
        self.loader = GraphLoader(
            self.dataset,
            ranks.device,
            dtype,
            config.model.tracegrad,
            memory_limit=config.data.memory_limit,
            part=ranks.part,
            parts=ranks.parts,
        )
        self._told_what_is_kept = False
        self.folder = folder
        self.interval = Interval()
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
            while not self._done():
                if not self._validation_is_due():
                    self.train_epoch()
                elif metrics := self.validate():
                    pace = (time.perf_counter() - start) / max(1, state.epoch - first)
                    self.folder.say(metrics.line(pace * (settings.epochs - state.epoch)))
                    writer.write(metrics)
                    self.folder.rank_log.say(f"epoch {state.epoch}: {self.interval.describe()}")
                    self.interval = Interval()
                    self.conclude(metrics)
                if number := self.request.on_any_rank():
                    self._stop(number)
        self._summarise(time.perf_counter() - start)

    def _done(self) -> bool:
        ended = self.state.epoch >= self.settings.epochs or self.state.schedule.finished
        return ended and not self._validation_is_due()

    def _validation_is_due(self) -> bool:
        """Whether an epoch is complete that ends with a validation; a stop may have come before it."""
        state, settings = self.state, self.settings
        whole = state.edges > 0 and state.batch == 0
        return whole and (state.epoch % settings.validation_interval == 0 or state.epoch == settings.epochs)

    def train_epoch(self) -> None:
        """One pass over the training samples, or what is left of it; it ends early where it is asked to stop."""
        state, start = self.state, time.perf_counter()
        order = shuffled(self.split.train, self.settings.seed, state.epoch)
        batches = pack(order, self.edge_counts, self.config.data.max_edges)
        for graph in self.interval.awaited(self.loader.batches(self._shares(batches)[state.batch :])):
            state.learning_rate = state.schedule.rate(state.epoch + (state.batch + 1) / len(batches))
            with tf32(enabled=self.settings.matrix_products == "tf32"):
                self.step(graph)
            state.edges += int(self.edge_counts[batches[state.batch]].sum())
            self.interval.edges += 0 if graph is None else graph.num_edges
            state.batch += 1
            if self.request.on_any_rank() or (state.batch % FINITE_INTERVAL == 0 and not state.sums[0].isfinite()):
                break
        loss = state.sums[0].item()  # this also waits for the device
        seconds = time.perf_counter() - start
        state.seconds += seconds
        self.interval.seconds += seconds
        if not math.isfinite(loss):
            self._go_back(f"the training loss is {loss} in epoch {state.epoch + 1}")
        elif state.batch == len(batches):
            state.epoch += 1
            state.batch = 0
        self._tell_what_is_kept()

    def step(self, graph: HamiltonianGraph | None) -> None:
        """One update of the weights from this rank's share of a batch, which may be empty."""
        state = self.state
        errors = torch.zeros_like(state.sums)
        if graph is not None:
            prediction = state.network(graph, self.ranks.group_sum)
            errors = error_sums(prediction, graph, state.network.layout, self.loss)
        with self.interval.meeting():
            total = self.ranks.sum(errors.detach().clone())
        state.optimizer.zero_grad()
        if graph is not None:
            training_loss(errors, total, self.config.model.tracegrad.form.loss_weight).backward()
        with self.interval.meeting():
            self.gradients.finish()
        if self.settings.optimizer.gradient_clip:
            clip_grad_norm_(self.parameters, self.settings.optimizer.gradient_clip)
        state.optimizer.step()
        if state.average:
            state.average.update(state.network)
        state.sums += total

    def validate(self) -> EpochMetrics | None:
        """The errors since the last validation, and those on the validation samples; None if asked to stop."""
        state = self.state
        train_loss, train_trace = _means(state.sums)
        loss = trace = mae = None
        if self.split.validation:
            sums = self._validation_sums()
            if sums is None:
                return None
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
            rollbacks=state.schedule.reverts,
        )

    @torch.inference_mode()
    def _validation_sums(self) -> Tensor | None:
        """(NUM_SUMS + 1,) float64: the error sums, then the absolute errors of H's elements in eV; None if stopped."""
        network = self.state.predictor
        sums = torch.zeros(NUM_SUMS + 1, dtype=torch.float64, device=self.ranks.device)
        batches = pack(self.split.validation, self.edge_counts, self.config.data.max_edges)
        for graph in self.loader.batches(self._shares(batches)):
            if graph is not None:
                prediction = network(graph, self.ranks.group_sum)
                sums[:NUM_SUMS] += error_sums(prediction, graph, network.layout)
                errors = network.layout.element_errors(prediction.coefficients - graph.target, graph)
                sums[NUM_SUMS] += (errors * network.layout.element_mask(graph)).sum()
            if self.request.on_any_rank():
                return None
        return self.ranks.sum(sums)

    def conclude(self, metrics: EpochMetrics) -> None:
        """Keep the state, also as the best if it is; let the schedule draw its conclusions."""
        state = self.state
        if not math.isfinite(metrics.decisive):
            self._go_back(f"the validation loss is {metrics.decisive} in epoch {state.epoch}")
            return
        state.start_interval()
        if metrics.decisive < state.best:
            state.best, state.best_epoch = metrics.decisive, metrics.epoch
            self._save("best", metrics)
        if state.schedule.validated(metrics.decisive):
            self._go_back(f"the error stayed above twice the best until epoch {state.epoch}")
        self._save("last", metrics)

    def _go_back(self, reason: str) -> None:
        """Take up the best weights again, with a lower learning rate.

        Raises:
            TrainingError: there are none, or that has not helped often enough.
        """
        state, folder = self.state, self.folder
        rate = "training.optimizer.learning_rate"
        if not state.best_epoch:
            raise TrainingError(f"{reason}; no checkpoint was written before: start again with a lower {rate}")
        if state.schedule.hopeless:
            raise TrainingError(
                f"{reason}, and {MAX_FRUITLESS_REVERTS} returns to the weights of epoch {state.best_epoch} have not "
                f"helped; the last good checkpoint is {folder.last}: go on from it with --resume and a lower {rate}, "
                "and see whether deeph-tracegrad check finds the training samples sound"
            )
        world().barrier()  # the other ranks read what the main rank wrote
        state.take_weights(load_checkpoint(folder.best).training)
        state.schedule.reverted()
        state.start_interval()
        state.batch = 0
        factor = self.settings.schedule.revert_factor
        text = f"{reason}: back to the weights of epoch {state.best_epoch}, the learning rate times {factor:g}"
        folder.say(text)
        folder.note(Event.ROLLBACK, state.epoch, text)

    def _training_graphs(self) -> Iterator[HamiltonianGraph]:
        """What this rank computes of one pass over the training samples."""
        batches = pack(self.split.train, self.edge_counts, self.config.data.max_edges)
        return (graph for graph in self.loader.batches(self._shares(batches)) if graph is not None)

    def _shares(self, batches: list[list[int]]) -> list[list[int]]:
        """What this rank computes of each batch."""
        return [self.ranks.share(batch, self.edge_counts) for batch in batches]

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

    def _stop(self, number: int) -> None:
        """Keep the state between two batches, and leave."""
        self._save("last", None)
        world().barrier()
        text = (
            f"stopped in epoch {self.state.epoch + 1} by {signal.Signals(number).name}; the same command with --resume "
            f"goes on from {self.folder.last}"
        )
        self.folder.say(text)
        self.folder.note(Event.STOPPED, self.state.epoch, text)
        self.folder.rank_log.say(text)
        if number == signal.SIGTERM:
            raise PreemptionError(text)
        raise KeyboardInterrupt

    def _tell_what_is_kept(self) -> None:
        """Once, where not all samples have room in memory."""
        limit, kept = self.config.data.memory_limit, self.loader.kept
        if kept.full and limit and not self._told_what_is_kept:
            self._told_what_is_kept = True
            text = (
                f"data.memory_limit = {limit:g} GiB keeps {count(len(kept.graphs), 'sample')} in memory; the others "
                "are read again for each epoch"
            )
            self.folder.say(text)
            self.folder.rank_log.say(text)

    def _introduce(self) -> None:
        split, ranks = self.split, self.ranks
        weights = sum(parameter.numel() for parameter in self.parameters)
        edges = self.edge_counts[list(split.train)].sum()
        self.folder.say(
            f"{device_name(ranks.device)}, {ranks.describe()}; {weights} weights in {self.settings.dtype}; "
            f"{count(len(split.train), 'sample')} of {edges} edges to train on, {len(split.validation)} to validate, "
            f"{len(split.test)} to test; {self.dataset.basis.describe()}, spin {self.dataset.spin}"
        )
        self.folder.rank_log.started(
            f"rank {ranks.rank} of {ranks.size} on {socket.gethostname()}, process {os.getpid()}, "
            f"{device_name(ranks.device)}, {count(torch.get_num_threads(), 'thread')}; after epoch {self.state.epoch}"
        )
        self.folder.note(Event.STARTED, self.state.epoch, f"{device_name(ranks.device)}, {ranks.describe()}")
        self.folder.say(HEADER)

    def _summarise(self, seconds: float) -> None:
        state, folder = self.state, self.folder
        reason = "; the learning rate reached its end" if state.schedule.finished else ""
        self.folder.say(
            f"{state.epoch} epochs done, {duration(seconds)} in this run{reason}; lowest error {state.best:.4e} eV² "
            f"after epoch {state.best_epoch}: {folder.best}; also {folder.last}, {folder.metrics}"
        )
        folder.note(Event.FINISHED, state.epoch, f"{state.epoch} epochs{reason}")
        folder.rank_log.say(f"finished: {state.epoch} epochs")


def _means(sums: Tensor) -> tuple[float, float | None]:
    """Mean squared error of H in eV² and L_T from error sums; None without trace labels."""
    squared, elements, deviation, labels, *_ = sums.tolist()
    return squared / elements, deviation / labels if labels else None
