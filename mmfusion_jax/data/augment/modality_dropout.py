"""Modality dropout, and composition of augmentations."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmfusion_jax.data.dataset import Augment, Example
from mmfusion_jax.errors import ConfigError, shown, shown_name, suggest


@dataclasses.dataclass(frozen=True)
class Compose:
    """Applies augmentations in order, with the same generator.

    Attributes:
        steps: The augmentations.
    """

    steps: tuple[Augment, ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        for step in self.steps:
            example = step(example, rng)
        return example


@dataclasses.dataclass(frozen=True)
class ModalityDropout:
    """Drops modalities of an example at random, but never all of them.

    A dropped modality is masked and 0. If all would be dropped, the one with the
    highest draw remains.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> mask = np.ones(4, bool)
        >>> example = {"inputs": {}, "masks": {"audio": mask, "video": mask}}
        >>> drop = mmf.data.ModalityDropout({"audio": 1.0})
        >>> drop(example, np.random.default_rng(0))["masks"]["audio"].tolist()
        [False, False, False, False]

    Attributes:
        rates: Modality -> probability of dropping it, 0..1.

    Reference:
        Hetero-Fusion-Net, Sec. 7, as future work.
    """

    rates: Mapping[str, float]

    def __post_init__(self):
        for name, rate in self.rates.items():
            if not 0 <= rate <= 1:
                raise ConfigError(
                    "C10",
                    f"config.data.modality_dropout.{shown_name(name)}={shown(rate)} "
                    "is out of range.",
                    "0 to 1",
                )

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        masks = example["masks"]
        if unknown := self.rates.keys() - masks.keys():
            name = min(unknown)
            raise ConfigError(
                "C03",
                f"config.data.modality_dropout.{shown_name(name)} is not a modality "
                f"of the data; {suggest(name, masks)}",
            )
        names = [name for name in sorted(masks) if masks[name].any()]
        # Sorted names: the draws do not depend on the order of a dictionary.
        draws = dict(zip(names, rng.random(len(names)), strict=True))
        dropped = {name for name in names if draws[name] < self.rates.get(name, 0.0)}
        if names and len(dropped) == len(names):
            dropped.remove(max(names, key=lambda name: draws[name]))
        zeroed = lambda part: {
            name: np.zeros_like(x) if name in dropped else x
            for name, x in example[part].items()
        }
        return {**example, "inputs": zeroed("inputs"), "masks": zeroed("masks")}
