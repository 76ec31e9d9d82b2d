"""Adaptive gating of modalities (Hetero-Fusion-Net)."""

from typing import Any, ClassVar, Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, shown, suggest
from mmfusion_jax.fusion.stack_modalities import stack
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.ops.masking import masked_softmax, zero_masked
from mmfusion_jax.option_types import Modalities, Name, OptionalSize
from mmfusion_jax.types import Array, Streams, Tokens

KINDS = ("sigmoid", "softmax")


class AdaptiveGate(nn.Module):
    """Weighted sum of modalities, with gates computed from all of them.

        g = sigmoid(W_2 relu(W_1 [f_1; ..; f_M] + b_1) + b_2)                     (3)
        f = sum_m g_m f_m                                                         (4)

    The gate of a missing modality is 0.

    Parameters: `hidden` (unless `hidden_dim` is 0), `gate`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> key, mask = jax.random.key(0), jnp.ones((2, 1), bool)
        >>> streams = {
        ...     m: mmf.Tokens(jnp.ones((2, 1, 8)), mask) for m in ("audio", "video")
        ... }
        >>> block = mmf.fusion.AdaptiveGate(("audio", "video"), hidden_dim=4)
        >>> fused, variables = block.init_with_output(key, streams, train=False)
        >>> fused["joint"].values.shape, fused["gate"].values.shape
        ((2, 1, 8), (2, 2, 1))

    Attributes:
        modalities: Names of the streams, one token each.
        hidden_dim: Width between W_1 and W_2; 0: Eq. 3 as printed, without W_1.
        kind: "sigmoid", or "softmax" for gates that sum to 1.
        target: Name of the added stream, (b 1 d).
        dtype: Dtype of the computation; None keeps the input's.

    Reference:
        Hetero-Fusion-Net, Sec. 3.3, Eq. 3-4; the hidden layer: Sec. 5.2.
    """

    one_token: ClassVar[bool] = True
    modality_weights: ClassVar[str] = "gate"

    modalities: Modalities
    hidden_dim: OptionalSize = 256
    kind: Literal["sigmoid", "softmax"] = "sigmoid"
    target: Name = "joint"
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Adds the stream `target`, and "gate", (b m 1), g in the given order.

        Raises:
            ConfigError: The kind is unknown.
        """
        if self.kind not in KINDS:
            raise ConfigError(
                "C03", f"gate={shown(self.kind)} is unknown.", suggest(self.kind, KINDS)
            )
        tokens = stack(streams, self.modalities)
        gate = self._gate(tokens)
        fused = jnp.sum(gate[..., None].astype(tokens.values.dtype) * tokens.values, 1)
        return {
            **streams,
            self.target: Tokens(fused[:, None], tokens.present[:, None]),
            "gate": Tokens(gate[..., None], tokens.mask),
        }

    def _gate(self, tokens: Tokens) -> Array:
        """g, (b m), in float32 or wider."""
        x = einops.rearrange(tokens.values, "b m d -> b (m d)")
        if self.hidden_dim:
            expand = torch_dense(
                x.shape[-1], self.hidden_dim, dtype=self.dtype, name="hidden"
            )
            x = nn.relu(expand(x))
        count = len(self.modalities)
        x = torch_dense(x.shape[-1], count, dtype=self.dtype, name="gate")(x)
        # Gates are compared and averaged, so half precision ends before them.
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.kind == "softmax":
            return masked_softmax(x, tokens.mask, axis=1)
        return zero_masked(jax.nn.sigmoid(x), tokens.mask)
