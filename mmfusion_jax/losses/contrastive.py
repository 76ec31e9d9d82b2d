"""Contrast between two views of the same example."""

import dataclasses

import chex
import jax.numpy as jnp

from mmfusion_jax.losses.model_outputs import check_choice, model_output
from mmfusion_jax.ops.contrastive import POSITIVES, info_nce
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class InfoNCE:
    """Loss term: the sum over pairs of views of the loss of finding one in the other.

    Attributes:
        pairs: each has its views in `Outputs.aux["<pair>/x"]` and `["<pair>/y"]`,
            (b d), projected and normalized, and may have `["<pair>/valid"]`, (b) bool:
            the rows that have both; without it all real rows have.
        scale: what the inner products are multiplied by, 1 / tau. A scale that is
            learned belongs to the model: multiply x by it and take 1 here.
        symmetric: False: only x looks for y.
        positives: which rows belong together, "A", "B" or "C"; see `ops.info_nce`.
        label: name in `Batch.labels`, for designs "B" and "C": (b) int classes, or (b)
            float numbers, of which the sign is the class.

    Reference:
        MCL-MCF, Algorithm 1, Eq. 5, 12 and 18; designs: Tables 7 and 8.
    Deviation:
        A row that is not valid, or has no partner, adds 0 to the mean over the batch,
        and is no negative of others. The classes of numbers are negative, zero and
        positive; the paper does not say.
    """

    pairs: tuple[str, ...]
    scale: float = 1 / 0.07
    symmetric: bool = True
    positives: str = "A"
    label: str = ""

    def __post_init__(self):
        check_choice("design", self.positives, POSITIVES)

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        total = jnp.zeros(batch.weight.shape, jnp.float32)
        for pair in self.pairs:
            valid = batch.weight > 0
            if f"{pair}/valid" in outputs.aux:
                valid &= outputs.aux[f"{pair}/valid"]
            total = total + info_nce(
                model_output(outputs, f"{pair}/x"),
                model_output(outputs, f"{pair}/y"),
                valid,
                scale=self.scale,
                symmetric=self.symmetric,
                positives=self.positives,
                groups=self._groups(batch),
            )
        return total

    def _groups(self, batch: Batch) -> Array | None:
        """The class of every row, (b); None where the design has no use for it."""
        if self.positives == "A":
            return None
        label = batch.labels[self.label]
        chex.assert_rank(label, 1)
        return jnp.sign(label) if jnp.issubdtype(label.dtype, jnp.floating) else label
