"""An example as a model reads it, or why it cannot be read."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from mmfusion_jax.errors import (
    UserError,
)


@dataclasses.dataclass(frozen=True)
class RawExample:
    """One example, scaled and padded as in the training.

    Attributes:
        id: Its name.
        inputs: Modality -> values (t ...).
        masks: Modality -> valid steps (t) bool; all False for a missing modality.
        remarks: What was found when it was read.
        labels: Name -> label, as the file has it; {} without any.
        speaker: Name of the speaker; "" if it is unknown.
        split: Its split, of a file with splits; "" without.
    """

    id: str
    inputs: Mapping[str, np.ndarray]
    masks: Mapping[str, np.ndarray]
    remarks: tuple[str, ...] = ()
    labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    speaker: str = ""
    split: str = ""


@dataclasses.dataclass(frozen=True)
class UnusableInput:
    """An input that could not be read; the others can be predicted.

    Attributes:
        id: Its name.
        error: The reason.
        split: Its split, of a file with splits; "" without.
    """

    id: str
    error: UserError
    split: str = ""


ReadInput: TypeAlias = RawExample | UnusableInput
