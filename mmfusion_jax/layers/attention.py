"""Multi-head attention over masked tokens."""

from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.layers.option_path import check_num_heads
from mmfusion_jax.ops.masking import masked_softmax, zero_masked
from mmfusion_jax.types import Array, Tokens


class Attention(nn.Module):
    """Every token attends to all valid tokens of a memory.

        softmax(Q K^T / sqrt(d_k)) V, per head, then a linear layer

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> tokens = mmf.Tokens(jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool))
        >>> layer = mmf.layers.Attention(num_heads=2)
        >>> y, variables = layer.init_with_output(
        ...     jax.random.key(0), tokens, tokens, train=False
        ... )
        >>> y.shape
        (2, 5, 8)

    Attributes:
        num_heads: Number of heads; must divide the width of the query.
        causal: Token i attends to memory token j only if j <= i, or j - i <= |s - n| if
            the memory has a different length than the query.
        dropout: Dropout rate of the attention weights.
        dtype: Dtype of the computation except the softmax; None keeps the input's.
        kernel_init: Initializer of all four matrices; None for the one described in
            Deviation.
        bias: Use a bias in Q, K and V; the output projection always has one.
        include_self: If False, in self-attention a token does not attend to itself,
            unless it is the only valid token.

    Reference:
        CFN-SR, Eq. 5, after Vaswani et al. 2017.
    Deviation:
        The released code initializes Q, K and V as one Xavier matrix, whose bound is
        sqrt(2) smaller than that of three matrices; we use three with that bound.
    """

    num_heads: int
    causal: bool = False
    dropout: float = 0.0
    dtype: Any = None
    kernel_init: Any = None
    bias: bool = True
    include_self: bool = True

    @nn.compact
    def __call__(self, query: Tokens, memory: Tokens, *, train: bool) -> Array:
        """Attends to the memory.

        Args:
            query: (b n d) tokens.
            memory: (b s e) tokens; the query itself for self-attention.
            train: Apply dropout.

        Returns:
            (b n d); only the output bias where the memory has no valid token. The
            weights (b g n s) are sown as "weights" into "intermediates".

        Raises:
            ConfigError: `num_heads` does not divide d.
        """
        width = query.values.shape[-1]
        check_num_heads(self, width)
        memory_values = zero_masked(memory.values, memory.mask)
        q = self._heads("query", width)(zero_masked(query.values, query.mask))
        k = self._heads("key", width)(memory_values)
        v = self._heads("value", width)(memory_values)

        visible = memory.mask[:, None, None, :]  # b 1 1 s
        if self.causal:
            visible = visible & _causal_mask(q.shape[1], k.shape[1])
        if not self.include_self:
            visible = _without_self(visible, q.shape[1])
        weights = attention_weights(q, k, visible).astype(v.dtype)
        # Kept only if "intermediates" is mutable; else sow does nothing.
        self.sow("intermediates", "weights", weights)
        weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
        mixed = jnp.einsum("bgns,bsgd->bngd", weights, v)
        mixed = einops.rearrange(mixed, "b n g d -> b n (g d)")
        return dense(width, self.kernel_init, dtype=self.dtype, name="out")(mixed)

    def _heads(self, name: str, width: int) -> Any:
        """Returns a projection to `num_heads` vectors."""
        init = self.kernel_init
        if init is None:
            init = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform")
        project = nn.Dense(
            width, self.bias, dtype=self.dtype, kernel_init=init, name=name
        )
        return lambda x: einops.rearrange(
            project(x), "b n (g d) -> b n g d", g=self.num_heads
        )


def dense(features: int, kernel_init: Any = None, *, dtype: Any, name: str) -> nn.Dense:
    """Dense layer with the usual initialization of transformers: Xavier, bias 0."""
    init = kernel_init or nn.initializers.xavier_uniform()
    return nn.Dense(features, dtype=dtype, kernel_init=init, name=name)


def attention_weights(q: Array, k: Array, visible: Array) -> Array:
    """Computes softmax(Q K^T / sqrt(d_k)), per head, in float32 or wider.

    Args:
        q: (b n g d), finite.
        k: (b s g d), finite.
        visible: bool, broadcastable to (b g n s); the memory a query attends to.

    Returns:
        (b g n s); all 0 where nothing is visible.

    Reference:
        Vaswani et al. 2017, Eq. 1.
    """
    # With logits 30 times as large as usual, attention in bfloat16 was off by 0.44.
    exact = jnp.promote_types(q.dtype, jnp.float32)
    q = q.astype(exact) * q.shape[-1] ** -0.5
    scores = jnp.einsum("bngd,bsgd->bgns", q, k.astype(exact))
    return masked_softmax(scores, visible, axis=-1)


def _causal_mask(n: int, s: int) -> Array:
    """Memory tokens that a query token may attend to, (n s) bool."""
    return jnp.arange(s)[None, :] - jnp.arange(n)[:, None] <= abs(s - n)


def _without_self(visible: Array, n: int) -> Array:
    """Removes the token itself from `visible`, unless it is the only one."""
    others = visible & ~jnp.eye(n, dtype=bool)
    alone = ~jnp.any(others, axis=-1, keepdims=True)
    return others | (visible & alone)
