"""Connectionist temporal classification (CTC) loss."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import optax

from mmfusion_jax.losses.candidates import EXAMPLE
from mmfusion_jax.losses.model_outputs import ENCODER_AUX, model_output
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Modalities
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class CTC:
    """Negative log-probability of a sequence of targets, in nats.

        L = -sum_m log sum_{path -> targets_m} prod_t softmax(logits_m,t)[path_t]

    A path has a class or the blank, 0, at every step; it leads to the targets if they
    remain after merging repetitions and removing blanks. The encoder "ctc_aligned" has
    such logits, in any model.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> mask = jnp.ones((1, 3), bool)
        >>> batch = mmf.Batch({}, {"audio": mask})
        >>> aux = {"ctc/audio": jnp.zeros((1, 3, 3)), "ctc/audio/valid": mask}
        >>> outputs = mmf.Outputs(jnp.zeros((1, 2)), aux)
        >>> loss = mmf.losses.CTC(("audio",))(outputs, batch)
        >>> print(np.asarray(loss).round(2))
        [1.69]

    Attributes:
        modalities: Names; each has `Outputs.aux["ctc/<m>"]`, (b t k) logits with the
            blank first, and `["ctc/<m>/valid"]`, (b t) bool, the unpadded steps. It may
            have `["ctc/<m>/targets"]`, (b n) int classes 1..k-1, padded with 0; the
            default targets are 1, 2, .. k-1.

    Reference:
        Graves et al. 2006; as alignment of a modality with k-1 words: Tsai et al. 2019,
        and EF-LSTM, RAVEN and MCTN in MEA, Tables II to IV.
    Deviation:
        An example with fewer valid steps than its targets need has no path and
        contributes 0; so does one without the modality.
    """

    reads: ClassVar[str] = ENCODER_AUX
    scope: ClassVar[str] = EXAMPLE

    modalities: Modalities

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        """Returns the sum of the losses of all modalities, (b)."""
        total = jnp.zeros(batch.weight.shape, jnp.float32)
        for name in self.modalities:
            total = total + _loss(f"ctc/{name}", batch.has_modalities(name), outputs)
        return total


def _loss(name: str, present: Array, outputs: Outputs) -> Array:
    """Loss of the logits called `name`, (b); 0 where not `present`."""
    logits = model_output(outputs, name)
    valid = model_output(outputs, f"{name}/valid") & present[:, None]
    # optax masks by products, and NaN times 0 is NaN.
    logits = zero_masked(logits, valid)
    if f"{name}/targets" in outputs.aux:
        targets = outputs.aux[f"{name}/targets"]
    else:
        classes = jnp.arange(1, logits.shape[-1])
        targets = jnp.broadcast_to(classes, (len(logits), len(classes)))
    padding = targets == 0
    repeated = (targets[:, 1:] == targets[:, :-1]) & ~padding[:, 1:]
    # A path needs a step for every target, and a blank between equal targets.
    needed = jnp.sum(~padding, axis=1) + jnp.sum(repeated, axis=1)
    loss = optax.ctc_loss(
        logits, (~valid).astype(logits.dtype), targets, padding.astype(logits.dtype)
    )
    # Without a path the loss is infinite; optax returns 1e5 for it, with a gradient.
    return zero_masked(loss, present & (jnp.sum(valid, axis=1) >= needed))
