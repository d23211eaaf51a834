"""A model of the official DeepH-E3 as a checkpoint of this program."""

from pathlib import Path

import torch
from torch import Tensor

from deeph_tracegrad.atomic import check_writable
from deeph_tracegrad.config import PRESETS, Config, DataSettings, ModelSettings
from deeph_tracegrad.console import say
from deeph_tracegrad.deeph_e3.conventions import detect_convention
from deeph_tracegrad.deeph_e3.folder import ARGUMENTS, SETTINGS, WEIGHTS, OfficialModel, read_model
from deeph_tracegrad.deeph_e3.layers import total
from deeph_tracegrad.deeph_e3.weights import RADIAL_FUNCTIONS, our_weights
from deeph_tracegrad.errors import ConfigError, MismatchError, ReadError, WriteError
from deeph_tracegrad.nn.layout import Layout
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.nn.radial import GaussianBasis
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.training.checkpoint import Checkpoint, library_versions

# DeepH-E3 keeps none of its datasets
_FINGERPRINT = "unknown (imported from DeepH-E3)"

_GRID_TOLERANCE = 1e-5  # Å; grids may be in single precision


def import_model(folder: Path, out: Path) -> None:
    """Write the model in a folder that DeepH-E3 wrote as a checkpoint.

    Raises:
        ReadError: the folder cannot be read, or its model is one that this program does not have.
        WriteError: the checkpoint cannot be written, or something stands there.
    """
    if out.suffix != ".pt":
        raise WriteError(f"{out}: a checkpoint's name should end in .pt")
    if out.exists():
        raise WriteError(f"{out}: exists; give another name")
    check_writable(out)
    checkpoint = as_checkpoint(read_model(folder))
    checkpoint.save(out)
    parameters = sum(tensor.numel() for tensor in checkpoint.weights.values())
    say(
        f"{out}: {checkpoint.basis.describe()}, spin {checkpoint.spin}; {parameters} weights in "
        f"{checkpoint.config.training.dtype}, {checkpoint.versions['DeepH-E3']}"
    )


def as_checkpoint(model: OfficialModel) -> Checkpoint:
    """The same network with our weights; a training cannot be resumed from it.

    Its edges are the pairs of the overlap, as in DeepH-E3, so it has no reach.

    Raises:
        ReadError: the tensors are not those of the network that the folder describes, or this program lacks a layer.
    """
    try:
        convention = detect_convention(model.state)
        weights = our_weights(model.state, model.network, TargetLayout(model.basis, model.spin), convention)
    except MismatchError as error:
        raise ReadError(model.path / WEIGHTS, str(error)) from error
    config = _config(model)
    try:
        network = HamiltonianNetwork(config.model, model.basis, model.spin)
    except ConfigError as error:
        raise ReadError(model.path / ARGUMENTS, str(error)) from error
    _check_weights(model, weights, network)
    for name, basis in (("basis", network.radial), ("distance_expansion", network.edge_embedding)):
        _check_grid(model, name, basis)
    return Checkpoint(
        config=config,
        basis=model.basis,
        spin=model.spin,
        reach={},
        fingerprint=_FINGERPRINT,
        split={},
        versions=library_versions()
        | {"DeepH-E3": f"model {model.path.resolve()} with the conventions of e3nn {convention.e3nn}"},
        metrics={"epoch": model.epochs, "validation_loss": model.validation_loss},
        training={"network": weights, "average": None, "epoch": model.epochs},
    )


def _config(model: OfficialModel) -> Config:
    """The settings that make the network."""
    network, faithful = model.network, PRESETS["deeph-e3"]
    settings = {
        "blocks": network.blocks,
        "trunk": str(Layout(network.mid_node)),
        "edge_trunk": str(Layout(network.mid_edge)),
        "node_channels": total(network.embed_node),
        "edge_channels": total(network.edge_init),
        "harmonics_degree": network.harmonics_degree,
        "cutoff_radius": model.cutoff_radius,
        "radial_basis": RADIAL_FUNCTIONS,
    }
    return Config(
        data=DataSettings(dataset=Path(model.dataset)),
        model=ModelSettings.model_validate(faithful.model.model_dump() | settings),
        training=faithful.training.model_copy(update={"dtype": str(model.dtype).removeprefix("torch.")}),
    )


def _check_weights(model: OfficialModel, weights: dict[str, Tensor], network: HamiltonianNetwork) -> None:
    """Refuse weights of another precision, or that do not fit our network."""
    for tensor in weights.values():
        if tensor.dtype != model.dtype:
            raise ReadError(
                model.path / WEIGHTS, f"the weights are in {tensor.dtype}, but {SETTINGS} says {model.dtype}"
            )
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    if shapes != {name: tensor.shape for name, tensor in network.state_dict().items()}:
        raise ReadError(
            model.path / ARGUMENTS,
            f"irreps_post_node is {Layout(model.network.post_node)}; this program only has the least that H needs, "
            f"{network.node_updates[-1].layout}",
        )


def _check_grid(model: OfficialModel, name: str, basis: GaussianBasis) -> None:
    """Refuse Gaussians other than ours."""
    spacing = (basis.centres[1] - basis.centres[0]).expand(len(basis.centres))
    for part, expected in (("offsets", basis.centres), ("width", spacing)):
        found = model.state.get(f"{name}.{part}")
        if found is None or found.shape != expected.shape:
            raise ReadError(model.path / WEIGHTS, f"there is no tensor {name}.{part} of {len(expected)} numbers")
        if not torch.allclose(found.to(expected), expected, rtol=0.0, atol=_GRID_TOLERANCE):
            raise ReadError(
                model.path / WEIGHTS,
                f"the Gaussians {name}.{part} are not on an even grid from 0 to {basis.centres[-1]:.4g} Å",
            )
