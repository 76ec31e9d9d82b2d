"""The layer of transformers, and the pre-norm encoder."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.layers.attention import Attention, dense
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Tokens


class TransformerLayer(nn.Module):
    """Attention and a feed-forward network, each normalized and added.

        z = z + Attention(LN(z))                              pre_norm
        z = z + W_2 f(W_1 LN(z) + b_1) + b_2

        z = LN(z + Attention(z))                              otherwise
        z = LN(z + W_2 f(W_1 z + b_1) + b_2)

    Attributes:
        num_heads, causal: of the attention.
        mlp_dim: width between W_1 and W_2; None takes four times that of the tokens.
        attention_dropout: on attention weights.
        relu_dropout: on the hidden layer.
        residual_dropout: on what is added.
        dtype: type of the computation.
        pre_norm: normalize first, rather than last.
        activation: f.
        epsilon: of the normalizations.
        kernel_init: first values of all matrices; None for Xavier's.
    """

    num_heads: int
    causal: bool = False
    mlp_dim: int | None = None
    attention_dropout: float = 0.0
    relu_dropout: float = 0.0
    residual_dropout: float = 0.0
    dtype: Any = None
    pre_norm: bool = True
    activation: Callable[[Array], Array] = nn.relu
    epsilon: float = 1e-5
    kernel_init: Any = None

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool) -> Tokens:
        """(b n d) tokens to (b n d) tokens; masked ones come out as anything finite."""
        attend = Attention(
            self.num_heads,
            self.causal,
            self.attention_dropout,
            self.dtype,
            self.kernel_init,
            name="attention",
        )

        def attended(x: Array) -> Array:
            seen = tokens.replace(values=x)
            return attend(seen, seen, train=train)

        z = tokens.values
        for part, name in (attended, "attention"), (self._feed(train), "feedforward"):
            norm = layer_norm(self.dtype, f"{name}_norm", self.epsilon)
            y = part(norm(z) if self.pre_norm else z)
            z = z + nn.Dropout(self.residual_dropout, deterministic=not train)(y)
            z = z if self.pre_norm else norm(z)
        return tokens.replace(values=z)

    def _feed(self, train: bool) -> Callable[[Array], Array]:
        """The feed-forward network."""

        def linear(features: int, name: str) -> nn.Dense:
            return dense(features, self.kernel_init, dtype=self.dtype, name=name)

        def fed(x: Array) -> Array:
            width = x.shape[-1]
            hidden = linear(self.mlp_dim or 4 * width, "expand")(x)
            drop = nn.Dropout(self.relu_dropout, deterministic=not train)
            return linear(width, "shrink")(drop(self.activation(hidden)))

        return fed


class Transformer(nn.Module):
    """Sinusoid positions, `num_layers` layers, and a last normalization.

        z_0 = sqrt(d) x + PE

    Attributes:
        num_layers: number of layers.
        num_heads, causal, mlp_dim, attention_dropout, relu_dropout, residual_dropout:
            of each layer.
        embed_dropout: on z_0.
        dtype: type of the computation; None keeps that of the input.

    Reference:
        CFN-SR, Eq. 5-6; the encoder of MulT (Tsai et al. 2019), which its code uses.
    Deviation:
        Eq. 6 normalizes after adding; the released code normalizes before, and once
        more after the last layer, and so do we.
    """

    num_layers: int
    num_heads: int
    causal: bool = False
    mlp_dim: int | None = None
    embed_dropout: float = 0.0
    attention_dropout: float = 0.0
    relu_dropout: float = 0.0
    residual_dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool) -> Tokens:
        """Encodes a sequence.

        Args:
            tokens: (b n d); masked tokens are seen by no other.
            train: drop out.

        Returns:
            Tokens (b n d), 0 where masked.
        """
        x = zero_masked(tokens.values, tokens.mask)
        _, n, width = x.shape
        # As in the released code, a token that starts with 0 counts as padding.
        positions = jnp.where(x[..., :1] != 0, sinusoid(n, width), 0)
        x = width**0.5 * x + positions.astype(x.dtype)
        x = nn.Dropout(self.embed_dropout, deterministic=not train)(x)

        tokens = tokens.replace(values=x)
        for i in range(self.num_layers):
            layer = TransformerLayer(
                self.num_heads,
                self.causal,
                self.mlp_dim,
                self.attention_dropout,
                self.relu_dropout,
                self.residual_dropout,
                self.dtype,
                name=f"layer_{i}",
            )
            tokens = layer(tokens, train=train)
        values = layer_norm(self.dtype, "norm")(tokens.values)
        return tokens.replace(values=zero_masked(values, tokens.mask))


def sinusoid(n: int, width: int, first: int = 1) -> np.ndarray:
    """Position vectors of the n positions from `first` on, (n width).

        PE_p = [sin(p f_0) .. sin(p f_h-1), cos(p f_0) .. cos(p f_h-1)]
        f_i = 10000^(-i / (h - 1)), h = width // 2

    An odd width ends with a column of 0.
    """
    half = width // 2
    rates = np.exp(-np.arange(half) * np.log(10_000) / max(half - 1, 1))
    angles = np.arange(first, first + n)[:, None] * rates
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return np.pad(table, [(0, 0), (0, width % 2)]).astype(np.float32)


def layer_norm(dtype: Any, name: str, epsilon: float = 1e-5) -> nn.LayerNorm:
    """Layer normalization with PyTorch's epsilon and an exact variance."""
    return nn.LayerNorm(epsilon, dtype, use_fast_variance=False, name=name)
