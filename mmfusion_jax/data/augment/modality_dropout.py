"""Takes modalities away from training examples, and joins transforms."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmfusion_jax.data.dataset import Augment, Example
from mmfusion_jax.errors import ConfigError, suggest


@dataclasses.dataclass(frozen=True)
class Compose:
    """One transform after the other, all with one generator.

    Attributes:
        steps: the transforms.
    """

    steps: tuple[Augment, ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        for step in self.steps:
            example = step(example, rng)
        return example


@dataclasses.dataclass(frozen=True)
class ModalityDropout:
    """Hides modalities of an example at random, but never all that it has.

    A hidden modality is masked and 0. If the draw hides all, the one of the highest
    draw stays.

    Attributes:
        rates: modality -> chance that it is hidden, 0..1.

    Deviation:
        Hetero-Fusion-Net, Sec. 7, names modality dropout as future work.
    """

    rates: Mapping[str, float]

    def __post_init__(self):
        for name, rate in self.rates.items():
            if not 0 <= rate <= 1:
                raise ConfigError(
                    "C10",
                    f"config.data.modality_dropout.{name}={rate} is not from 0 to 1.",
                )

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        masks = example["masks"]
        if unknown := self.rates.keys() - masks.keys():
            name = min(unknown)
            raise ConfigError(
                "C03",
                f"config.data.modality_dropout.{name}: the data has no such modality; "
                f"{suggest(name, masks)}",
            )
        names = [name for name in sorted(masks) if masks[name].any()]
        draws = dict(zip(names, rng.random(len(names)), strict=True))
        hidden = {name for name in names if draws[name] < self.rates.get(name, 0.0)}
        if names and len(hidden) == len(names):
            hidden.remove(max(names, key=lambda name: draws[name]))
        blank = lambda part: {
            name: np.zeros_like(x) if name in hidden else x
            for name, x in example[part].items()
        }
        return {**example, "inputs": blank("inputs"), "masks": blank("masks")}
