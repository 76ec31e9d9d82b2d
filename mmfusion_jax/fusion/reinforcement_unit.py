"""Attention that reinforces targets by sources, several units side by side."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, suggest
from mmfusion_jax.layers.linear import torch_uniform
from mmfusion_jax.ops.chunked_map import chunk_size_for, map_in_chunks
from mmfusion_jax.ops.masking import masked_softmax, zero_masked
from mmfusion_jax.ops.memory_efficient_attention import dot_attention, exact
from mmfusion_jax.ops.packed_sequences import PackedSequences
from mmfusion_jax.ops.parameter_free_layer_norm import layer_normalize
from mmfusion_jax.ops.predicted_attention import predict_attention
from mmfusion_jax.ops.softmax_weighted_sum import weighted_sum
from mmfusion_jax.types import Array, Tokens

Pair = tuple[Array, Array]

KNOWN = {"form": ("literal", "logit"), "scale": ("head", "width")}


class ReinforcementUnit(nn.Module):
    """Units side by side; in each a target asks its sources.

        S = LN(Z_t) W_Q (LN(Z_s) W_K)^T / scale, per head
        o = LN(Z_t) + concat_k softmax(S_k) V_k                        (3), (8)
        Z = W_2 gelu(W_1 LN(o) + b_1) + b_2 + o                        (4), (9)

    A target that is its own source has predictive self-attention.

    Parameters, all with a leading axis u of the units: `norm_scale`, `norm_bias`,
    `query`, `key`, `value`, `out` and `out_bias` (if asked for), `conv` and `conv_bias`
    (if maps are predicted), `feed_scale`, `feed_bias`, `expand`, `expand_bias`,
    `shrink`, `shrink_bias`. All but the attention runs over the tokens of all units at
    once: few large operations compile and run faster than many small ones.

    Attributes:
        sources: for every unit the places of its sources among those given; the tokens
            of several stand in one sequence.
        num_heads: number of heads, K; must divide the width d.
        mu: how much the map of the previous layer decides, see `predict_attention`; 0
            is the ablation "w/o Prediction Chain" and has no convolution.
        form: of Eq. 2, see `predict_attention`.
        scale: "head" divides S by sqrt(d / K), "width" by sqrt(d).
        out_proj: a linear layer on the heads before they are added.
        ffn_mult: hidden width of the feed-forward network, in widths d.
        dropout: on what the heads give, and on the hidden layer.
        remat: compute predicted maps again on the way back, a few examples at a time,
            to save memory; others always are.
        dtype: type of the computation, softmax excepted; None keeps that of the input.

    Reference:
        MEA, Sec. III-C, Eq. 2-4, and the unit of Sec. III-D, Eq. 7-9.
    Deviation:
        One normalization serves source and target, and what is added to the heads is
        the normalized target, as Eq. 3 and 8 print it. The paper does not speak of
        dropout; ours leaves the maps alone, which are large.
    """

    sources: tuple[tuple[int, ...], ...]
    num_heads: int
    mu: float = 0.0
    form: Literal["literal", "logit"] = "literal"
    scale: Literal["head", "width"] = "head"
    out_proj: bool = False
    ffn_mult: int = 4
    dropout: float = 0.1
    remat: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        sources: Sequence[Tokens],
        targets: Sequence[Tokens],
        previous: Sequence[Pair] = (),
        *,
        train: bool,
    ) -> tuple[list[Tokens], list[Pair]]:
        """Reinforces.

        Args:
            sources: (b s d) each.
            targets: (b n d), one for every unit.
            previous: queries and keys of every unit in the previous layer, if there
                is one.
            train: drop out.

        Returns:
            The targets, (b n d), 0 where masked, and of every unit the scaled queries
            (b k n d/k) and keys (b k s d/k), 0 where masked: S is their product.

        Raises:
            ConfigError: an option is unknown, or `num_heads` does not divide d.
        """
        width = targets[0].values.shape[-1]
        self._check(width)
        rows = PackedSequences(tuple(t.values.shape[1] for t in targets))
        mask = rows.join([t.mask for t in targets])
        drop = nn.Dropout(self.dropout, deterministic=not train)

        scale, bias = self._norm("norm", width)
        z = layer_normalize(zero_masked(rows.join([t.values for t in targets]), mask))
        z = z * rows.spread(scale) + rows.spread(bias)
        square = (width, width), width
        queries = rows.cut(rows.linear(z, self._param("query", *square)))
        kernel = [self._param(name, *square) for name in ("key", "value")]
        kernel = jnp.concatenate(kernel, axis=-1)
        # LN(Z) W as one product, as units may share a source, but not its LN.
        told = self._told(sources, scale[..., None] * kernel, bias[:, None] @ kernel)
        mixed, asked = self._attention(queries, told, sources, targets, previous)
        mixed = rows.join(mixed)
        if self.out_proj:
            mixed = rows.linear(mixed, *self._affine("out", width, width))
        o = z + drop(mixed)

        scale, bias = self._norm("feed", width)
        x = layer_normalize(o) * rows.spread(scale) + rows.spread(bias)
        hidden = self.ffn_mult * width
        x = rows.linear(x, *self._affine("expand", width, hidden))
        x = drop(nn.gelu(x, approximate=False))
        z = o + rows.linear(x, *self._affine("shrink", hidden, width))
        values = rows.cut(zero_masked(z, mask))
        made = [t.replace(values=x) for t, x in zip(targets, values, strict=True)]
        return made, asked

    def _told(
        self, sources: Sequence[Tokens], kernel: Array, bias: Array
    ) -> list[Array]:
        """Keys and values of every unit side by side, (b s 2d)."""
        seen = [layer_normalize(zero_masked(s.values, s.mask)) for s in sources]
        return [
            jnp.concatenate([seen[i] for i in places], axis=1) @ kernel[u] + bias[u]
            for u, places in enumerate(self.sources)
        ]

    def _attention(
        self,
        queries: Sequence[Array],
        told: Sequence[Array],
        sources: Sequence[Tokens],
        targets: Sequence[Tokens],
        previous: Sequence[Pair],
    ) -> tuple[list[Array], list[Pair]]:
        """What the heads of every unit give, (b n d), and their queries and keys."""
        mixed, asked, maps = [], [], []
        chain = self._chain() if previous and self.mu else None
        units = zip(queries, told, targets, self.sources, strict=True)
        for u, (query, kv, target, places) in enumerate(units):
            mask = jnp.concatenate([sources[i].mask for i in places], axis=1)
            q, k, v = self._heads(
                zero_masked(query, target.mask), zero_masked(kv, mask)
            )
            if chain:
                weigh = functools.partial(chain, u)
                y = self._chained(weigh, q, k, v, mask, *previous[u])
                maps.append((weigh, (q, k, mask, *previous[u])))
            else:
                y = dot_attention(q, k, v, mask)
                maps.append((_scores, (q, k, mask)))
            mixed.append(einops.rearrange(y, "b k n d -> b n (k d)"))
            asked.append((q, k))
        if self.is_mutable_collection("intermediates"):
            shown = [
                masked_softmax(weigh(*x), x[2][:, None, None], axis=-1)
                for weigh, x in maps
            ]
            self.sow("intermediates", "attention", tuple(shown))
        return mixed, asked

    def _chained(
        self, weigh: Callable[..., Array], q: Array, k: Array, v: Array, *more: Array
    ) -> Array:
        """What heads give whose maps are predicted, (b k n d)."""

        def look(q: Array, k: Array, v: Array, mask: Array, *last: Array) -> Array:
            return weighted_sum(weigh(q, k, mask, *last), mask[:, None, None], v)

        if not self.remat:
            return look(q, k, v, *more)
        most = chunk_size_for(q.shape[1] * q.shape[2] * k.shape[2])
        return map_in_chunks(jax.checkpoint(look), (q, k, v, *more), most)

    def _heads(self, query: Array, told: Array) -> tuple[Array, Array, Array]:
        """Scaled queries, float32 or wider, keys and values, (b k n d) each."""
        scale = query.shape[-1] / (1 if self.scale == "width" else self.num_heads)
        q = query.astype(exact(query)) * scale**-0.5
        k, v = jnp.split(told, 2, axis=-1)
        q, k, v = (
            einops.rearrange(x, "b n (k d) -> b k n d", k=self.num_heads)
            for x in (q, k, v)
        )
        return q, k, v

    def _chain(self) -> Callable[..., Array]:
        """Eq. 2 for a unit: the argument of the outer softmax."""
        k = self.num_heads
        kernels = self._param("conv", (3, 3, k, k), 9 * k)
        biases = self._param("conv_bias", (k,), 9 * k)

        def chained(u: int, q: Array, k: Array, mask: Array, *last: Array) -> Array:
            scores, previous, mask = _scores(q, k), _scores(*last), mask[:, None, None]
            return predict_attention(
                scores, previous, mask, kernels[u], biases[u], self.mu, self.form
            )

        return chained

    def _norm(self, name: str, width: int) -> tuple[Array, Array]:
        """Scale and bias of a normalization, (u d) each."""
        shape = len(self.sources), width
        return (
            self.param(f"{name}_scale", nn.initializers.ones, shape),
            self.param(f"{name}_bias", nn.initializers.zeros, shape),
        )

    def _affine(self, name: str, width: int, features: int) -> tuple[Array, Array]:
        """Matrices (u d e) and biases (u e)."""
        bias = self._param(f"{name}_bias", (features,), width)
        return self._param(name, (width, features), width), bias

    def _param(self, name: str, shape: tuple[int, ...], fan_in: int) -> Array:
        """A parameter of every unit, (u ...), that starts as PyTorch's does."""
        start = torch_uniform(fan_in)
        value = self.param(name, start, (len(self.sources), *shape))
        return value.astype(self.dtype or value.dtype)

    def _check(self, width: int) -> None:
        for name, known in KNOWN.items():
            if (value := getattr(self, name)) not in known:
                raise ConfigError(
                    "C03", f"{name}={value!r} is unknown.", suggest(value, known)
                )
        if width % self.num_heads:
            raise ConfigError(
                "C10", f"heads={self.num_heads} does not divide the width {width}."
            )


def _scores(q: Array, k: Array, *_: Array) -> Array:
    """S, (b k n s), float32 or wider."""
    return jnp.matmul(q, jnp.swapaxes(k, -1, -2).astype(q.dtype))
