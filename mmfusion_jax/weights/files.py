"""Reads weights files: safetensors, and files of `torch.save`."""

from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from mmfusion_jax.errors import DataError, WeightsError, shorten
from mmfusion_jax.safe_load.regular_file import why_not_regular
from mmfusion_jax.weights.torch_checkpoint import InvalidTensorFile, read_torch

_INVALID = (
    InvalidTensorFile,
    safetensors.SafetensorError,
    OSError,
    TypeError,
    KeyError,
    ValueError,
)


def read(path: Path, export: str) -> dict[str, np.ndarray]:
    """Returns the named arrays of a weights file.

    Args:
        path: A `.safetensors` file; any other extension is read as a PyTorch file.
        export: Shell command that writes such a file.

    Raises:
        WeightsError: The file does not exist, or is not a weights file.
    """
    if reason := why_not_regular(path):
        raise WeightsError("W01", f"weights file {path} {reason}.", export)
    try:
        if path.suffix == ".safetensors":
            return safetensors.numpy.load_file(path)
        return read_torch(path)
    except DataError as e:
        raise WeightsError("W01", f"weights file {e.args[0]}", export) from e
    except _INVALID as e:
        raise WeightsError(
            "W02",
            f"{path} is not a supported weights file: {shorten(str(e))}",
            f"use a .safetensors file, or a state dict of torch.save; {export}",
        ) from e
