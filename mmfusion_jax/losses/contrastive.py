"""InfoNCE between two views of the same example."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import jax.numpy as jnp

from mmfusion_jax.losses.candidates import CANDIDATES, Candidates
from mmfusion_jax.losses.model_outputs import check_choice, check_fit, model_output
from mmfusion_jax.ops.contrastive import POSITIVES, ViewRows, info_nce
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

    scope: ClassVar[str] = CANDIDATES

    pairs: Names
    scale: Scale = 1 / 0.07
    symmetric: bool = True
    positives: Literal["pair", "pair_other_class", "same_class"] = "pair"
    label: str = ""

    def __post_init__(self):
        check_choice("positives", self.positives, POSITIVES)

    def __call__(
        self, outputs: Outputs, batch: Batch, candidates: Candidates | None = None
    ) -> Array:
        """Returns the sum of the losses of all pairs, (b).

        Args:
            outputs: Outputs with the views.
            batch: Their batch.
            candidates: The rows that are positives and negatives; None for those of
                `outputs`.
        """
        return self._compare(self._views, outputs, batch, candidates)

    def chance_level(
        self, outputs: Outputs, batch: Batch, candidates: Candidates | None = None
    ) -> Array:
        """Returns the loss if all candidates were equally similar, (b).

        It is the sum over the pairs of the logarithm of the number of candidates.
        """
        return self._compare(self._blank, outputs, batch, candidates)

    def _compare(
        self,
        views: Callable[[Outputs, Batch], "_Views"],
        outputs: Outputs,
        batch: Batch,
        candidates: Candidates | None,
    ) -> Array:
        """Sum over the pairs of the losses between the views x and y, (b)."""
        own, others = views(outputs, batch), None
        if candidates is not None:
            rows = views(candidates.outputs, candidates.batch)
            others = ViewRows(*rows, index=candidates.index)
        # One product for all pairs, not one for each: across devices, the gradients of
        # the candidates are then one array to sum.
        losses = info_nce(
            own.x,
            own.y,
            own.valid,
            scale=self.scale,
            symmetric=self.symmetric,
            positives=self.positives,
            groups=own.groups,
            candidates=others,
        )
        return jnp.sum(losses, axis=0)

    def _views(self, outputs: Outputs, batch: Batch) -> "_Views":
        """Returns the stacked views of all pairs."""
        x, y = (
            [model_output(outputs, f"{pair}/{side}") for pair in self.pairs]
            for side in "xy"
        )
        # Zeros at the end of a narrow vector do not change an inner product.
        width = max(view.shape[-1] for view in x + y)
        pad = lambda view: jnp.pad(view, ((0, 0), (0, width - view.shape[-1])))
        x, y = (jnp.stack([pad(view) for view in views]) for views in (x, y))
        blank = self._blank(outputs, batch)
        return blank._replace(x=x, y=y)

    def _blank(self, outputs: Outputs, batch: Batch) -> "_Views":
        """Returns views of zeros, with the valid rows and the classes of the batch."""
        valid = jnp.stack([self._valid(pair, outputs, batch) for pair in self.pairs])
        zeros = jnp.zeros((*valid.shape, 1), jnp.float32)
        return _Views(zeros, zeros, valid, self._groups(outputs, batch))

    def _valid(self, pair: str, outputs: Outputs, batch: Batch) -> Array:
        """Rows that have both views of a pair, (b) bool."""
        valid = batch.weight > 0
        if f"{pair}/valid" in outputs.aux:
            valid &= outputs.aux[f"{pair}/valid"]
        return valid

    def _groups(self, outputs: Outputs, batch: Batch) -> Array | None:
        """Class of every row, (b); None if the positives do not depend on it."""
        if self.positives == "pair":
            return None
        label = batch.label(self.label)
        check_fit("info_nce", outputs.prediction, label, label.ndim == 1)
        return jnp.sign(label) if jnp.issubdtype(label.dtype, jnp.floating) else label


class _Views(NamedTuple):
    """Views x and y (p b d) of p pairs, their valid rows (p b), and classes (b)."""

    x: Array
    y: Array
    valid: Array
    groups: Array | None
