"""The fused vector must still tell what each modality was."""

import dataclasses

import jax
import jax.numpy as jnp

from mmfusion_jax.losses.model_outputs import model_output
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Loss term: how far modalities that were decoded again are from what they were.

        L_rec = mean_{i present} mean_d (decoded_i - sg(pooled_i))^2

    Attributes:
        modalities: each has `Outputs.aux["reconstruction/<m>"]` and
            `["pooled/<m>"]`, (b d).

    Reference:
        OF-CMAER-CAT, Eq. 19.
    Deviation:
        The paper names the term and gives no equation. The gradient stops at what is
        to be decoded, or the encoders would make it trivial.
    """

    modalities: tuple[str, ...]

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        total = jnp.zeros(batch.weight.shape, jnp.float32)
        count = jnp.zeros(batch.weight.shape, jnp.float32)
        for name in self.modalities:
            present = batch.has_modalities(name)
            said = model_output(outputs, f"reconstruction/{name}")
            truth = jax.lax.stop_gradient(model_output(outputs, f"pooled/{name}"))
            away = jnp.square(zero_masked(said - truth, present))
            total = total + jnp.mean(away, axis=-1)
            count = count + present
        return total / jnp.maximum(count, 1)
