"""Modality and importance discriminators (MEA)."""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax

from mmfusion_jax.errors import ConfigError, shown, suggest
from mmfusion_jax.layers.linear import zero_bias_dense
from mmfusion_jax.ops.gradient_reversal import reverse_gradient
from mmfusion_jax.types import Array

OMEGAS = ("detached", "joint", "one")


class ModalityDiscriminator(nn.Module):
    """Linear classifiers of the modality: D_m for both branches, D_i for the agnostic.

        D_m(h) = W h + b
        D_i(h) = W_i h

    Parameters: `modality` (D_m), `importance` (D_i).

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> features = {"audio": jnp.ones((2, 8))}
        >>> layer = mmf.layers.ModalityDiscriminator(omega="one")
        >>> logits, variables = layer.init_with_output(
        ...     jax.random.key(0), features, features, 3
        ... )
        >>> sorted(logits)
        ['discriminator/agnostic/audio', 'discriminator/exclusive/audio']

    Attributes:
        omega: Gradient before D_i: "detached" stops it, "joint" reverses it; "one"
            omits D_i.
        dtype: Dtype of the computation; None keeps the input's.

    Reference:
        MEA, Sec. III-E.3.
    Deviation:
        If Eq. 15 trained D_i without the reversal, h^a would become easier to classify,
        which makes omega small: hence "detached".
    """

    omega: Literal["detached", "joint", "one"] = "detached"
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        exclusive: Mapping[str, Array],
        agnostic: Mapping[str, Array],
        classes: int,
        strength: float | Array = 1.0,
    ) -> dict[str, Array]:
        """Computes the logits of the discriminators.

        Args:
            exclusive: h^e (b d) by modality; may be empty.
            agnostic: h^a (b d) by modality; may be empty.
            classes: Number of modalities, M.
            strength: Strength of the reversed gradient before D_m(h^a), () or (b).

        Returns:
            Logits (b M): "discriminator/exclusive/<m>", "discriminator/agnostic/<m>",
            and "importance/<m>" unless omega is "one".

        Raises:
            ConfigError: `omega` is unknown.
        """
        if self.omega not in OMEGAS:
            raise ConfigError(
                "C03",
                f"omega={shown(self.omega)} is unknown.",
                suggest(self.omega, OMEGAS),
            )
        modality = zero_bias_dense(classes, dtype=self.dtype, name="modality")
        importance = zero_bias_dense(
            classes, use_bias=False, dtype=self.dtype, name="importance"
        )
        logits = {
            f"discriminator/exclusive/{m}": modality(h) for m, h in exclusive.items()
        }
        for m, h in agnostic.items():
            reversed_h = reverse_gradient(h, strength)
            logits[f"discriminator/agnostic/{m}"] = modality(reversed_h)
            if self.omega == "joint":
                logits[f"importance/{m}"] = importance(reversed_h)
            elif self.omega == "detached":
                logits[f"importance/{m}"] = importance(jax.lax.stop_gradient(h))
        return logits
