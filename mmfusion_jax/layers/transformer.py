"""Transformer layer, a stack of layers, and a pre-norm transformer encoder."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.layers.attention import Attention, dense
from mmfusion_jax.layers.recompute import apply_block
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Tokens

# The GELU of Flax is by default an approximation with tanh.
exact_gelu = functools.partial(nn.gelu, approximate=False)


class TransformerLayer(nn.Module):
    """Attention and a feed-forward network with residual connections.

        z = z + Attention(LN(z))                              pre_norm
        z = z + W_2 f(W_1 LN(z) + b_1) + b_2

        z = LN(z + Attention(z))                              otherwise
        z = LN(z + W_2 f(W_1 z + b_1) + b_2)

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> tokens = mmf.Tokens(jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool))
        >>> layer = mmf.layers.TransformerLayer(num_heads=2)
        >>> y, variables = layer.init_with_output(
        ...     jax.random.key(0), tokens, train=False
        ... )
        >>> y.values.shape
        (2, 5, 8)

    Attributes:
        num_heads: Number of attention heads.
        causal: Use causal attention.
        mlp_dim: Width between W_1 and W_2; None for four times the width of tokens.
        attention_dropout: Dropout rate of the attention weights.
        relu_dropout: Dropout rate of the hidden layer.
        residual_dropout: Dropout rate of the residual branches.
        dtype: Dtype of the computation.
        pre_norm: Normalize before, rather than after, each residual branch.
        activation: Activation function, f.
        epsilon: Epsilon of the normalizations.
        kernel_init: Initializer of all matrices; None for Xavier.

    Reference:
        Vaswani et al. 2017; with normalization first, Xiong et al. 2020.
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
        """Maps tokens (b n d) to tokens (b n d), finite but arbitrary where masked."""
        attend = Attention(
            self.num_heads,
            self.causal,
            self.attention_dropout,
            self.dtype,
            self.kernel_init,
            name="attention",
        )

        def attended(x: Array) -> Array:
            normalized = tokens.replace(values=x)
            return attend(normalized, normalized, train=train)

        z = tokens.values
        for branch, name in (attended, "attention"), (self._mlp(train), "feedforward"):
            # Pre-norm and post-norm have the same layers and parameters; only the place
            # of the normalization in the sum differs.
            norm = layer_norm(self.dtype, f"{name}_norm", self.epsilon)
            y = branch(norm(z) if self.pre_norm else z)
            z = z + nn.Dropout(self.residual_dropout, deterministic=not train)(y)
            z = z if self.pre_norm else norm(z)
        return tokens.replace(values=z)

    def _mlp(self, train: bool) -> Callable[[Array], Array]:
        """Returns the feed-forward network."""

        def linear(features: int, name: str) -> nn.Dense:
            return dense(features, self.kernel_init, dtype=self.dtype, name=name)

        def mlp(x: Array) -> Array:
            width = x.shape[-1]
            hidden = linear(self.mlp_dim or 4 * width, "expand")(x)
            drop = nn.Dropout(self.relu_dropout, deterministic=not train)
            return linear(width, "shrink")(drop(self.activation(hidden)))

        return mlp


def transformer_stack(
    tokens: Tokens,
    num_layers: int,
    num_heads: int,
    *,
    train: bool,
    dropout: float,
    relu_dropout: float = 0.0,
    mlp_dim: int | None = None,
    dtype: Any = None,
    pre_norm: bool = True,
    epsilon: float = 1e-5,
    kernel_init: Any = None,
    remat: bool = False,
) -> Tokens:
    """Applies transformer layers with the exact GELU, as in BERT, ViT and Wav2Vec 2.0.

        z_l = TransformerLayer_l(z_{l-1})

    A function rather than a module: the layers are submodules `layer_{i}` of the
    encoder that calls it in its compact method, as in the tables of pretrained weights.

    Args:
        tokens: z_0, (b n d), finite where masked; no token attends to masked ones.
        num_layers: Number of layers.
        num_heads: Number of attention heads of each layer.
        train: Apply dropout.
        dropout: Dropout rate of the attention weights and of the residual branches.
        relu_dropout: Dropout rate of the hidden layers.
        mlp_dim: Hidden width of the feed-forward networks; None for 4d.
        dtype: Dtype of the computation.
        pre_norm: Normalize before, rather than after, each residual branch.
        epsilon: Epsilon of the normalizations.
        kernel_init: Initializer of all matrices; None for Xavier.
        remat: Recompute the inside of a layer in the backward pass, see `apply_block`.

    Returns:
        Tokens (b n d), finite but arbitrary where masked; after pre-norm layers a final
        normalization is usual, which is not applied here.
    """
    for i in range(num_layers):
        # BERT, ViT and Wav2Vec 2.0 have the same rate for attention and branches.
        layer = TransformerLayer(
            num_heads,
            mlp_dim=mlp_dim,
            attention_dropout=dropout,
            relu_dropout=relu_dropout,
            residual_dropout=dropout,
            dtype=dtype,
            pre_norm=pre_norm,
            activation=exact_gelu,
            epsilon=epsilon,
            kernel_init=kernel_init,
            name=f"layer_{i}",
        )
        tokens = apply_block(layer, tokens, train=train, remat=remat)
    return tokens


class Transformer(nn.Module):
    """Transformer encoder with sinusoidal positions and a final normalization.

        z_0 = sqrt(d) x + PE

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> tokens = mmf.Tokens(jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool))
        >>> layer = mmf.layers.Transformer(num_layers=1, num_heads=2)
        >>> y, variables = layer.init_with_output(
        ...     jax.random.key(0), tokens, train=False
        ... )
        >>> y.values.shape
        (2, 5, 8)

    Attributes:
        num_layers: Number of layers.
        num_heads, causal, mlp_dim, attention_dropout, relu_dropout, residual_dropout:
            Options of each layer, see `TransformerLayer`.
        embed_dropout: Dropout rate of z_0.
        dtype: Dtype of the computation; None keeps the input's.
        pre_norm: Normalize before each residual branch and after the last layer, as
            the released code does; False normalizes after each residual connection, as
            Eq. 6 prints, and not after the last layer again.

    Reference:
        CFN-SR, Eq. 5-6; the encoder of MulT (Tsai et al. 2019), which its code uses.
    Deviation:
        Eq. 6 normalizes after the residual connection, the code before it. The default
        is the code's: its log, from which the paper's accuracy is, counts 26,301,417
        parameters, which include those of the normalization after the last layer.
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
    pre_norm: bool = True

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool) -> Tokens:
        """Encodes a sequence.

        Args:
            tokens: (b n d); no token attends to masked ones.
            train: Apply dropout.

        Returns:
            Tokens (b n d), 0 where masked.
        """
        x = zero_masked(tokens.values, tokens.mask)
        _, n, width = x.shape
        # As in the released code, a token whose first element is 0 is padding.
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
                self.pre_norm,
                name=f"layer_{i}",
            )
            tokens = layer(tokens, train=train)
        values = tokens.values
        if self.pre_norm:
            values = layer_norm(self.dtype, "norm")(values)
        return tokens.replace(values=zero_masked(values, tokens.mask))


def sinusoid(n: int, width: int, first: int = 1) -> np.ndarray:
    """Returns sinusoidal embeddings of n positions from `first` on, (n width).

        PE_p = [sin(p f_0) .. sin(p f_h-1), cos(p f_0) .. cos(p f_h-1)]
        f_i = 10000^(-i / (h - 1)), h = width // 2

    An odd width ends with a column of 0.

    Reference:
        Vaswani et al. 2017, Sec. 3.5.
    Deviation:
        As in their code and that of MulT, all sines precede all cosines, and i is
        divided by h - 1; the text alternates them and divides by h.
    """
    half = width // 2
    # With one pair of columns h - 1 is 0, and its only rate 1.
    rates = np.exp(-np.arange(half) * np.log(10_000) / max(half - 1, 1))
    angles = np.arange(first, first + n)[:, None] * rates
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return np.pad(table, [(0, 0), (0, width % 2)]).astype(np.float32)


def layer_norm(dtype: Any, name: str, epsilon: float = 1e-5) -> nn.LayerNorm:
    """Returns a layer normalization with PyTorch's epsilon and an exact variance."""
    # The fast variance, E[x^2] - E[x]^2, loses its digits where the mean is large.
    return nn.LayerNorm(epsilon, dtype, use_fast_variance=False, name=name)
