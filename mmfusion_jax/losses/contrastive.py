"""InfoNCE between two views of the same example."""

import dataclasses
from typing import Literal

import jax.numpy as jnp

from mmfusion_jax.losses.model_outputs import check_choice, check_fit, model_output
from mmfusion_jax.ops.contrastive import POSITIVES, info_nce
from mmfusion_jax.option_types import Names, Scale
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class InfoNCE:
    """Sum of the InfoNCE losses of several pairs of views.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> batch = mmf.Batch({}, {"audio": jnp.ones((2, 5), bool)})
        >>> views = {"text_audio/x": jnp.eye(2), "text_audio/y": jnp.eye(2)}
        >>> outputs = mmf.Outputs(jnp.zeros((2, 3)), views)
        >>> loss = mmf.losses.InfoNCE(("text_audio",), scale=1.0)(outputs, batch)
        >>> print(np.asarray(loss).round(2))
        [0.31 0.31]

    Attributes:
        pairs: Names of the pairs; each has its views in `Outputs.aux["<pair>/x"]` and
            `["<pair>/y"]`, (b d), projected and normalized, and optionally
            `["<pair>/valid"]`, (b) bool, the rows that have both views; the default
            is all non-padding rows.
        scale: Factor of the inner products, 1 / tau. A learned scale belongs to the
            model: multiply x by it and use 1 here.
        symmetric: Use x and y as anchors; if False, only x.
        positives: "pair", "pair_other_class" or "same_class"; see
            `ops.contrastive.info_nce`. They are the paper's designs A, B and C.
        label: Name in `Batch.labels`, for "pair_other_class" and "same_class": (b) int
            classes, or (b) float numbers, whose sign is the class.

    Reference:
        MCL-MCF, Algorithm 1, Eq. 5, 12 and 18; positives: Tables 7 and 8.
    Deviation:
        A row that is not valid, or has no positive, contributes 0 to the mean over the
        batch, and is not a negative of others. The classes of numbers are negative,
        zero and positive; the paper does not specify them.
    """

    pairs: Names
    scale: Scale = 1 / 0.07
    symmetric: bool = True
    positives: Literal["pair", "pair_other_class", "same_class"] = "pair"
    label: str = ""

    def __post_init__(self):
        check_choice("positives", self.positives, POSITIVES)

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        total = jnp.zeros(batch.weight.shape, jnp.float32)
        for pair in self.pairs:
            x, y = (model_output(outputs, f"{pair}/{side}") for side in "xy")
            total = total + self._compare(pair, x, y, outputs, batch)
        return total

    def chance_level(self, outputs: Outputs, batch: Batch) -> Array:
        """Returns the loss if all candidates were equally similar, (b).

        It is the sum over the pairs of the logarithm of the number of candidates.
        """
        blank = jnp.zeros((*batch.weight.shape, 1), jnp.float32)
        values = [self._compare(p, blank, blank, outputs, batch) for p in self.pairs]
        return sum(values, jnp.zeros(batch.weight.shape, jnp.float32))

    def _compare(
        self, pair: str, x: Array, y: Array, outputs: Outputs, batch: Batch
    ) -> Array:
        """Loss between the views x and y (b d) of a pair, (b)."""
        valid = batch.weight > 0
        if f"{pair}/valid" in outputs.aux:
            valid &= outputs.aux[f"{pair}/valid"]
        return info_nce(
            x,
            y,
            valid,
            scale=self.scale,
            symmetric=self.symmetric,
            positives=self.positives,
            groups=self._groups(outputs, batch),
        )

    def _groups(self, outputs: Outputs, batch: Batch) -> Array | None:
        """Class of every row, (b); None if the positives do not depend on it."""
        if self.positives == "pair":
            return None
        label = batch.label(self.label)
        check_fit("info_nce", outputs.prediction, label, label.ndim == 1)
        return jnp.sign(label) if jnp.issubdtype(label.dtype, jnp.floating) else label
