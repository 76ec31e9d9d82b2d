"""Files of weights: safetensors, and what `torch.save` wrote."""

from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from mmfusion_jax.errors import WeightsError
from mmfusion_jax.weights.torch_checkpoint import InvalidTensorFile, read_torch


def read(path: Path, export: str) -> dict[str, np.ndarray]:
    """The named arrays of a file of weights.

    Args:
        path: a `.safetensors` file; any other ending is taken for a PyTorch file.
        export: a shell command that writes such a file.

    Raises:
        WeightsError: the file is not there, or is no file of weights.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise WeightsError("W01", f"the weights {path}: the file {what}.", export)
    try:
        if path.suffix == ".safetensors":
            return safetensors.numpy.load_file(path)
        return read_torch(path)
    except (InvalidTensorFile, safetensors.SafetensorError, TypeError, KeyError) as e:
        raise WeightsError(
            "W02",
            f"{path} is no file of weights that can be read here: {e}",
            f"a .safetensors file, or torch.save of a state dict; {export}",
        ) from e
