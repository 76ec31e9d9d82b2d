"""Reads weights files: safetensors, and files of `torch.save`."""

from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from mmfusion_jax.errors import WeightsError
from mmfusion_jax.weights.torch_checkpoint import InvalidTensorFile, read_torch


def read(path: Path, export: str) -> dict[str, np.ndarray]:
    """Returns the named arrays of a weights file.

    Args:
        path: A `.safetensors` file; any other extension is read as a PyTorch file.
        export: Shell command that writes such a file.

    Raises:
        WeightsError: The file does not exist, or is not a weights file.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsError("W01", f"weights file {path} {what}.", export)
    try:
        if path.suffix == ".safetensors":
            return safetensors.numpy.load_file(path)
        return read_torch(path)
    except (InvalidTensorFile, safetensors.SafetensorError, TypeError, KeyError) as e:
        raise WeightsError(
            "W02",
            f"{path} is not a supported weights file: {e}",
            f"use a .safetensors file, or a state dict of torch.save; {export}",
        ) from e
