"""Reconstruction of the modalities from the fused vector (OF-CMAER-CAT)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from mmfusion_jax.losses.candidates import EXAMPLE
from mmfusion_jax.losses.model_outputs import model_output
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Modalities
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Mean squared error of the modalities decoded from the fused vector.

        L_rec = mean_{i present} mean_d (decoded_i - sg(pooled_i))^2

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> batch = mmf.Batch({}, {"audio": jnp.ones((2, 5), bool)})
        >>> aux = {
        ...     "reconstruction/audio": jnp.ones((2, 4)),
        ...     "pooled/audio": jnp.zeros((2, 4)),
        ... }
        >>> outputs = mmf.Outputs(jnp.zeros((2, 3)), aux)
        >>> mmf.losses.Reconstruction(("audio",))(outputs, batch).tolist()
        [1.0, 1.0]

    Attributes:
        modalities: Names; each has `Outputs.aux["reconstruction/<m>"]` and
            `["pooled/<m>"]`, (b d).

    Reference:
        OF-CMAER-CAT, Eq. 19.
    Deviation:
        The paper names the term without an equation. The gradient of the target is
        stopped, since otherwise the encoders would make it trivial.
    """

    scope: ClassVar[str] = EXAMPLE

    modalities: Modalities

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        total = jnp.zeros(batch.weight.shape, jnp.float32)
        count = jnp.zeros(batch.weight.shape, jnp.float32)
        for name in self.modalities:
            present = batch.has_modalities(name)
            decoded = model_output(outputs, f"reconstruction/{name}")
            target = jax.lax.stop_gradient(model_output(outputs, f"pooled/{name}"))
            # Masked before squaring: the gradient of a square is a product with its
            # argument.
            error = jnp.square(zero_masked(decoded - target, present))
            total = total + jnp.mean(error, axis=-1)
            count = count + present
        return total / jnp.maximum(count, 1)
