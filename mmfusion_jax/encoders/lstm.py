"""LSTM encoder that returns its last state as one token (MCL-MCF)."""

from typing import Any, Literal

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.encoders.image_conv import encode_frames
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.linear import xavier_dense, xavier_normal
from mmfusion_jax.layers.recurrent import LSTM, forget_gates
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import NonNegativeFloat, Size
from mmfusion_jax.types import Array, Tokens


class LSTMEncoder(nn.Module):
    """Unidirectional LSTM and a linear layer; one vector per example.

        token = W h_T + b,   T the last valid step                    (2)

    Parameters: `lstm`, `out`, and `frames` with `frame_channels`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.LSTMEncoder(hidden_dim=8)
        >>> features, mask = jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), features, mask, train=False
        ... )
        >>> tokens.values.shape
        (2, 1, 8)

    Attributes:
        hidden_dim: Width of the state and the token, d.
        dtype: Dtype of the computation; None keeps the input's.
        variant: "paper", or "released_code", whose initial biases are PyTorch's
            default.
        forget_bias: Initial bias of the forget gates with variant "paper".
        frame_channels: Output channels of convolutions that reduce every frame of a
            video to a vector first, see `ImageConv`; () to flatten the pixels. For
            videos instead of the features that the paper reads.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.

    Reference:
        MCL-MCF, Eq. 2.
    Deviation:
        The linear layer is from the released code; the paper has only the state. The
        paper's initialization is Xavier, which biases cannot have: ours are 0, and 1 at
        the forget gates (Gers et al. 2000), since with 0 a state halves in every step.
        On the audio of the digits, 60 steps, the accuracy of the encoder alone is .10
        with 0, which is chance, and .45 with 1 (experiments/digits).
    """

    hidden_dim: Size = 64
    dtype: Any = None
    variant: Literal["paper", "released_code"] = "paper"
    forget_bias: NonNegativeFloat = 1.0
    frame_channels: tuple[Size, ...] = ()
    axis: str | None = None

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Encodes a sequence.

        Args:
            values: (b t ...) float; or unsigned integer pixels 0..255, scaled to
                0..1. The values of a step are flattened.
            mask: (b t) bool.
            train: Use the statistics of the batch, with `frame_channels`.

        Returns:
            Tokens (b 1 d), 0 and masked where no step is valid.

        Raises:
            ConfigError: The values are token ids, (b t) integers, or not frames where
                `frame_channels` needs them.
        """
        if jnp.issubdtype(values.dtype, jnp.integer):
            if values.ndim == 2:
                raise ConfigError(
                    "C26",
                    "encoder 'lstm' expects vectors (b, t, f), got "
                    f"{values.dtype.name} of shape {values.shape}.",
                    "use encoder 'bert' for token ids",
                )
            values = jnp.asarray(values) / 255
        if self.frame_channels:
            values = encode_frames(
                values, mask, self.frame_channels, self.axis, self.dtype, train=train
            )
        x = einops.rearrange(values, "b t ... -> b t (...)")
        default_bias = self.variant == "released_code"
        state = LSTM(
            self.hidden_dim,
            kernel_init=xavier_normal,
            dtype=self.dtype,
            last=True,
            bias_init=None if default_bias else forget_gates(self.forget_bias),
            name="lstm",
        )(Tokens(x, mask), train=train)
        out = xavier_dense(
            state.values, self.hidden_dim, "out", self.dtype, default_bias=default_bias
        )
        return state.replace(values=zero_masked(out, state.mask))
