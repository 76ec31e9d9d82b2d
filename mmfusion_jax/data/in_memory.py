"""Examples held in memory."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmfusion_jax.data.array_hashes import hash_mappings
from mmfusion_jax.data.dataset import Example
from mmfusion_jax.errors import DataError, shown


@dataclasses.dataclass(frozen=True)
class InMemory:
    """Examples held as one array per entry.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> mask = np.ones((2, 4), bool)
        >>> source = mmf.data.InMemory(
        ...     {"audio": np.ones((2, 4, 3))},
        ...     {"audio": mask},
        ...     {"pitch": np.array([0, 1])},
        ... )
        >>> len(source), source[1]["labels"]["pitch"].item()
        (2, 1)

    Attributes:
        inputs: Modality -> (n t ...).
        masks: Modality -> (n t) bool.
        labels: Name -> (n ...).

    Raises:
        DataError: An array has another number of examples.
    """

    inputs: Mapping[str, np.ndarray]
    masks: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]

    def __post_init__(self):
        if missing := sorted({*self.inputs}.difference(self.masks)):
            raise DataError(
                "D25",
                f"InMemory has the input {shown(missing[0])} without a mask.",
                "np.ones((n, t), bool) for an input (n, t, ...) that is never padded",
            )
        if not self.masks:
            raise DataError("D25", "InMemory has no input.", "give at least one")
        arrays = {**self.inputs, **self.labels}
        for name, array in [*arrays.items(), *self.masks.items()]:
            if len(array) != len(self):
                raise DataError(
                    "D25",
                    f"{shown(name)} has {len(array)} examples, but the first mask has "
                    f"{len(self)}.",
                    "all arrays of InMemory have the same first axis",
                )

    def __len__(self) -> int:
        return len(next(iter(self.masks.values())))

    def __getitem__(self, index: int) -> Example:
        return {
            "inputs": {
                name: _row(values, index) for name, values in self.inputs.items()
            },
            "masks": {name: _row(mask, index) for name, mask in self.masks.items()},
            "labels": {name: value[index] for name, value in self.labels.items()},
            "weight": np.float32(1),  # rows that only pad a batch have 0
        }

    def content_digest(self) -> str:
        """Returns the SHA-256 of all inputs and masks."""
        return hash_mappings(self.inputs, self.masks)

    def rows(self, chosen: np.ndarray) -> "InMemory":
        """Returns some of the examples.

        Args:
            chosen: Their indices, (m) int, or which of them, (n) bool.
        """
        select = lambda arrays: {name: x[chosen] for name, x in arrays.items()}
        return InMemory(*map(select, (self.inputs, self.masks, self.labels)))


def _row(values: np.ndarray, index: int) -> np.ndarray:
    """Returns a row as a view that cannot change the array."""
    row = values[index]
    # Lists, of a dataset of the user, are an error of a later check.
    if isinstance(row, np.ndarray) and row.base is values:
        row.flags.writeable = False
    return row
