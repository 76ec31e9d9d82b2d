"""Multi-head attention over masked tokens."""

from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.ops.masking import masked_softmax, zero_masked
from mmfusion_jax.types import Array, Tokens


class Attention(nn.Module):
    """Every token asks all real tokens of a memory.

        softmax(Q K^T / sqrt(d_k)) V, per head, then a linear layer

    Attributes:
        num_heads: number of heads; must divide the width of the query.
        causal: token i sees memory j only if j <= i, or j - i <= |s - n| where the
            memory has another length than the query.
        dropout: rate on the attention weights.
        dtype: type of the computation, softmax excepted; None keeps that of the input.
        kernel_init: first values of all four matrices; None for those of the Deviation.
        bias: of Q, K and V; the output always has one.
        include_self: False: in self-attention a token sees the others alone, but for a
            token that has no others.

    Reference:
        CFN-SR, Eq. 5, after Vaswani et al. 2017.
    Deviation:
        The released code draws Q, K and V as one Xavier matrix, which makes its bound
        sqrt(2) smaller than that of three matrices; we draw three with that bound.
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
        """Attends.

        Args:
            query: (b n d) tokens.
            memory: (b s e) tokens; the query itself for self-attention.
            train: drop out.

        Returns:
            (b n d); the output bias alone where the memory has no token to show. The
            weights (b g n s) are sown as "weights" into "intermediates".

        Raises:
            ConfigError: if `num_heads` does not divide d.
        """
        width = query.values.shape[-1]
        if width % self.num_heads:
            raise ConfigError(
                "C10", f"heads={self.num_heads} does not divide the width {width}."
            )
        seen = zero_masked(memory.values, memory.mask)
        q = self._heads("query", width)(zero_masked(query.values, query.mask))
        k, v = self._heads("key", width)(seen), self._heads("value", width)(seen)

        visible = memory.mask[:, None, None, :]  # b 1 1 s
        if self.causal:
            visible = visible & _no_later(q.shape[1], k.shape[1])
        if not self.include_self:
            visible = _others(visible, q.shape[1])
        weights = attention_weights(q, k, visible).astype(v.dtype)
        self.sow("intermediates", "weights", weights)
        weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
        mixed = jnp.einsum("bgns,bsgd->bngd", weights, v)
        mixed = einops.rearrange(mixed, "b n g d -> b n (g d)")
        return dense(width, self.kernel_init, dtype=self.dtype, name="out")(mixed)

    def _heads(self, name: str, width: int) -> Any:
        """A projection to `num_heads` vectors."""
        start = self.kernel_init
        if start is None:
            start = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform")
        project = nn.Dense(
            width, self.bias, dtype=self.dtype, kernel_init=start, name=name
        )
        return lambda x: einops.rearrange(
            project(x), "b n (g d) -> b n g d", g=self.num_heads
        )


def dense(features: int, kernel_init: Any = None, *, dtype: Any, name: str) -> nn.Dense:
    """A linear layer as transformers start it: Xavier uniform, bias 0."""
    start = kernel_init or nn.initializers.xavier_uniform()
    return nn.Dense(features, dtype=dtype, kernel_init=start, name=name)


def attention_weights(q: Array, k: Array, visible: Array) -> Array:
    """softmax(Q K^T / sqrt(d_k)), per head, in float32 or wider.

    Args:
        q: (b n g d), finite.
        k: (b s g d), finite.
        visible: bool, broadcastable to (b g n s): which memory a query sees.

    Returns:
        (b g n s); all 0 where nothing is visible.
    """
    exact = jnp.promote_types(q.dtype, jnp.float32)
    q = q.astype(exact) * q.shape[-1] ** -0.5
    scores = jnp.einsum("bngd,bsgd->bgns", q, k.astype(exact))
    return masked_softmax(scores, visible, axis=-1)


def _no_later(n: int, s: int) -> Array:
    """Which memory tokens a query token may see, (n s) bool."""
    return jnp.arange(s)[None, :] - jnp.arange(n)[:, None] <= abs(s - n)


def _others(visible: Array, n: int) -> Array:
    """`visible` without the token itself, but for a token that has no others."""
    others = visible & ~jnp.eye(n, dtype=bool)
    alone = ~jnp.any(others, axis=-1, keepdims=True)
    return others | (visible & alone)
