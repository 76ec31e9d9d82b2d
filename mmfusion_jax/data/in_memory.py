"""Examples held in memory."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmfusion_jax.data.dataset import Example


@dataclasses.dataclass(frozen=True)
class InMemory:
    """Examples held as one array per entry.

    Attributes:
        inputs: modality -> (n t ...).
        masks: modality -> (n t) bool.
        labels: name -> (n ...).
    """

    inputs: Mapping[str, np.ndarray]
    masks: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.masks.values())))

    def __getitem__(self, index: int) -> Example:
        return {
            "inputs": {name: values[index] for name, values in self.inputs.items()},
            "masks": {name: mask[index] for name, mask in self.masks.items()},
            "labels": {name: value[index] for name, value in self.labels.items()},
            "weight": np.float32(1),
        }
