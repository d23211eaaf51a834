"""A configuration that trains a very small network in seconds."""

from pathlib import Path


def write_training(folder: Path, data: str) -> Path:
    """training.toml in this folder, to train into the folder run beside it. data: the keys of its section [data]."""
    path = folder / "training.toml"
    path.write_text(
        f"""
[data]
{data}
[model]
blocks = 2
trunk = "4x0e+4x1o+2x2e"
node_channels = 8
edge_channels = 8
harmonics_degree = 2
radial_basis = 16
tracegrad = {{ width = 8, decoder_width = 8 }}
[training]
run = "{folder / "run"}"
epochs = 4
dtype = "float64"
device = "cpu"
threads = 1
optimizer = {{ learning_rate = 5e-3 }}
schedule = {{ warmup_epochs = 1 }}
"""
    )
    return path
