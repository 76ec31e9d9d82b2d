"""Contrastive loss between the modalities of an example (OF-CMAER-CAT)."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal

import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, join_names
from mmfusion_jax.losses.candidates import CANDIDATES, EXAMPLE, Candidates
from mmfusion_jax.losses.model_outputs import check_choice, model_output
from mmfusion_jax.ops.contrastive import contrast, l2_normalize
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Modalities, Scale
from mmfusion_jax.types import Array, Batch, Outputs

NEGATIVES = ("batch", "same_sample")


@dataclasses.dataclass(frozen=True)
class ModalityContrast:
    """InfoNCE with the other modalities of the same example as positives.

        L_con = -sum_i mean_j log(exp(s_ij / tau) / sum_q exp(s_iq / tau))     (15-17)

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> names = ("audio", "video")
        >>> mask = jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch({}, {"audio": mask, "video": mask})
        >>> outputs = mmf.Outputs(
        ...     jnp.zeros((2, 3)), {f"pooled/{m}": jnp.eye(2) for m in names}
        ... )
        >>> loss = mmf.losses.ModalityContrast(names, temperature=1.0)(outputs, batch)
        >>> print(np.asarray(loss).round(2))
        [0.63 0.63]

    Attributes:
        modalities: Names; each has `Outputs.aux["pooled/<m>"]`, (b d).
        temperature: tau.
        negatives: "batch" or "same_sample", see below; "same_sample" requires three
            modalities.

    With "batch", for an example n and a modality i that it has:

    - anchor: the vector of i of example n.
    - partners: the vectors of all other modalities j that example n has; the loss is
      the mean over them, 0 without any. Each is the positive of its own softmax.
    - negatives for partner j: the vectors of j of all other examples that have j,
      whether or not they have i.

    With "same_sample":

    - anchor: the vector of i of example n.
    - partner: the vector of the next modality of `modalities`, the first after the
      last, of example n. If n does not have it, the anchor contributes 0; the
      modality after it does not take its place.
    - negatives: the vectors of the remaining modalities that example n has; without
      any, the anchor contributes 0.

    A missing modality and a padding row are neither anchor, partner nor negative, and
    an anchor that contributes 0 still counts in the mean over the batch.

    Reference:
        OF-CMAER-CAT, Eq. 15-17.
    Deviation:
        All indices n of Eq. 15-16 are those of one example, which "same_sample"
        follows literally; the text sums over the batch. j(i) is not defined: all
        partners with "batch", the next modality with "same_sample". With two
        modalities the only candidate of "same_sample" is the partner itself, and the
        loss is 0 for any vectors.

    Raises:
        ConfigError: `negatives` is unknown, there are fewer than two modalities, or
            "same_sample" has fewer than three.
    """

    compares_modalities: ClassVar[bool] = True

    modalities: Modalities
    temperature: Scale = 0.1
    negatives: Literal["batch", "same_sample"] = "batch"

    def __post_init__(self):
        check_choice("negatives", self.negatives, NEGATIVES)
        if len(self.modalities) < 2:
            raise ConfigError(
                "C10",
                "the loss modality_contrast requires at least two modalities, got "
                f"{join_names(self.modalities)}: with one, the loss is 0 for any "
                "vectors.",
                "add a modality, or set the weight of the term to 0",
            )
        if self.negatives == "same_sample" and len(self.modalities) < 3:
            raise ConfigError(
                "C10",
                "negatives='same_sample' of the loss modality_contrast requires at "
                f"least three modalities, got {join_names(self.modalities)}: with two, "
                "the loss is 0 for any vectors.",
                "negatives='batch'",
            )

    @property
    def scope(self) -> str:
        """What the anchors are compared with, see `losses.candidates`."""
        return CANDIDATES if self.negatives == "batch" else EXAMPLE

    def __call__(
        self, outputs: Outputs, batch: Batch, candidates: Candidates | None = None
    ) -> Array:
        """Returns the sum of the losses of all anchors of an example, (b).

        Args:
            outputs: Outputs with the vectors.
            batch: Their batch.
            candidates: The rows that are partners and negatives; None for those of
                `outputs`. Only for negatives="batch".
        """
        return self._compare(self._views, outputs, batch, candidates)

    def chance_level(
        self, outputs: Outputs, batch: Batch, candidates: Candidates | None = None
    ) -> Array:
        """Returns the loss if all candidates were equally similar, (b).

        It is the sum over the anchors of the logarithm of the number of candidates,
        m ln b with "batch" if no modality is missing.
        """
        return self._compare(self._blank, outputs, batch, candidates)

    def _compare(
        self,
        views: Callable[[Outputs, Batch], tuple[Array, Array]],
        outputs: Outputs,
        batch: Batch,
        candidates: Candidates | None,
    ) -> Array:
        """Loss of the views (m b d) of outputs and a batch, and their masks, (b)."""
        x, present = views(outputs, batch)
        scale = 1 / self.temperature
        if self.negatives == "same_sample":
            return _in_sample(x, present, scale)
        if candidates is None:
            index = jnp.arange(x.shape[1])
            return _in_batch(x, present, x, present, index, scale)
        others = views(candidates.outputs, candidates.batch)
        return _in_batch(x, present, *others, candidates.index, scale)

    def _views(self, outputs: Outputs, batch: Batch) -> tuple[Array, Array]:
        """Normalized vectors (m b d), and which are present, (m b) bool."""
        present = self._present(batch)
        pooled = [model_output(outputs, f"pooled/{name}") for name in self.modalities]
        return l2_normalize(zero_masked(jnp.stack(pooled), present)), present

    def _blank(self, outputs: Outputs, batch: Batch) -> tuple[Array, Array]:
        """Vectors of zeros, (m b 1), and which are present, (m b) bool."""
        del outputs
        present = self._present(batch)
        return jnp.zeros((*present.shape, 1), jnp.float32), present

    def _present(self, batch: Batch) -> Array:
        """Which examples have each modality, (m b) bool."""
        return jnp.stack([batch.has_modalities(name) for name in self.modalities])


def _in_batch(
    x: Array,
    present: Array,
    others: Array,
    others_present: Array,
    index: Array,
    scale: float,
) -> Array:
    """Sum over anchors of the mean loss over their partners, (b).

    Args:
        x: Anchors, (m b d).
        present: (m b) bool.
        others: Partners and negatives, (m n d).
        others_present: (m n) bool.
        index: Which of the n rows each anchor is, (b).
        scale: Factor of the inner products.
    """
    own = index[:, None] == jnp.arange(others.shape[1])[None, :]  # b n
    # Only the anchor must have i: an example without i that has j is a negative like
    # any other.
    candidates = present[:, None, :, None] & others_present[None, :, None, :]
    # One product for all pairs of modalities i, j, not one for each: across devices,
    # the gradients of the candidates are then one array to sum.
    logits = jnp.einsum("ibd,jnd->ijbn", x, others) * scale
    loss = contrast(logits, candidates & own, candidates & ~own)  # i j b
    # Counted per example, since the partners are the modalities that it has.
    other = ~jnp.eye(len(x), dtype=bool)[:, :, None]
    count = jnp.sum(other & present[:, None] & present[None], axis=1, dtype=jnp.int32)
    mean = jnp.sum(jnp.where(other, loss, 0), axis=1) / jnp.maximum(count, 1)
    return jnp.sum(mean, axis=0)


def _in_sample(x: Array, present: Array, scale: float) -> Array:
    """Sum over anchors of the loss with the next modality as the positive, (b)."""
    mask = present.T  # b m
    own = jnp.eye(len(x), dtype=bool)
    both = mask[:, :, None] & mask[:, None, :] & ~own
    following = jnp.roll(own, 1, axis=1)
    logits = jnp.einsum("ibd,jbd->bij", x, x) * scale
    loss = contrast(logits, both & following, both & ~following)
    return jnp.sum(loss, axis=1)
