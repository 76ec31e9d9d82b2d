"""Sequences of different lengths, aligned without anyone saying how."""

import dataclasses

import jax.numpy as jnp
import optax

from mmfusion_jax.losses.model_outputs import model_output
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class CTC:
    """Loss term: the negative log-probability of a sequence of targets, in nats.

        L = -sum_m log sum_{path -> targets_m} prod_t softmax(logits_m,t)[path_t]

    A path says a class or the blank, 0, at every step; it leads to the targets if they
    are left when repetitions are made one and blanks are taken out.

    Attributes:
        modalities: each has `Outputs.aux["ctc/<m>"]`, (b t k) logits with the blank
            first, and `["ctc/<m>/real"]`, (b t) bool, the steps that count. It may
            have `["ctc/<m>/targets"]`, (b n) int classes 1..k-1, and 0 behind the last;
            without them the targets are 1, 2, .. k-1.

    Reference:
        Graves et al. 2006; as alignment of a modality with k-1 words: Tsai et al. 2019,
        and "+ CTC" in MEA, Tables II and III.
    Deviation:
        An example with fewer real steps than its targets need has no path, and adds 0;
        so does one that lacks the modality.
    """

    modalities: tuple[str, ...]

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        total = jnp.zeros(batch.weight.shape, jnp.float32)
        for name in self.modalities:
            total = total + _one(f"ctc/{name}", batch.has_modalities(name), outputs)
        return total


def _one(name: str, present: Array, outputs: Outputs) -> Array:
    """The loss of the logits called `name`, (b); 0 where not `present`."""
    real = model_output(outputs, f"{name}/real") & present[:, None]
    logits = zero_masked(model_output(outputs, name), real)
    if f"{name}/targets" in outputs.aux:
        targets = outputs.aux[f"{name}/targets"]
    else:
        classes = jnp.arange(1, logits.shape[-1])
        targets = jnp.broadcast_to(classes, (len(logits), len(classes)))
    absent = targets == 0
    again = (targets[:, 1:] == targets[:, :-1]) & ~absent[:, 1:]
    need = jnp.sum(~absent, axis=1) + jnp.sum(again, axis=1)  # a blank between equals
    loss = optax.ctc_loss(
        logits, (~real).astype(logits.dtype), targets, absent.astype(logits.dtype)
    )
    return zero_masked(loss, present & (jnp.sum(real, axis=1) >= need))
