"""Modality reinforcement units (MRU) of MEA, several in parallel."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, shown, shown_name, suggest
from mmfusion_jax.layers.linear import stacked_xavier_normal
from mmfusion_jax.layers.option_path import check_num_heads
from mmfusion_jax.ops.chunked_map import chunk_size_for, map_in_chunks
from mmfusion_jax.ops.masking import masked_softmax, zero_masked
from mmfusion_jax.ops.memory_efficient_attention import dot_attention, exact
from mmfusion_jax.ops.packed_sequences import PackedSequences
from mmfusion_jax.ops.parameter_free_layer_norm import layer_normalize
from mmfusion_jax.ops.predicted_attention import predict_attention
from mmfusion_jax.ops.softmax_weighted_sum import weighted_sum
from mmfusion_jax.types import Array, Tokens

Pair = tuple[Array, Array]

CHOICES = {"form": ("literal", "logit"), "scale": ("head", "width")}


class ReinforcementUnit(nn.Module):
    """Parallel units, in each of which a target attends to its sources.

        S = LN(Z_t) W_Q (LN(Z_s) W_K)^T / scale, per head
        o = LN(Z_t) + concat_k softmax(S_k) V_k                        (3), (8)
        Z = W_2 gelu(W_1 LN(o) + b_1) + b_2 + o                        (4), (9)

    If a target is its own source, this is predictive self-attention.

    Parameters, all with a leading axis u of the units: `norm_scale`, `norm_bias`,
    `query`, `key`, `value`, `out` and `out_bias` (with `out_proj`), `conv` and
    `conv_bias` (if maps are predicted), `feed_scale`, `feed_bias`, `expand`,
    `expand_bias`, `shrink`, `shrink_bias`. Everything except the attention is computed
    for the tokens of all units at once: few large operations compile and run faster
    than many small ones.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> audio = mmf.Tokens(jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool))
        >>> text = mmf.Tokens(jnp.ones((2, 3, 8)), jnp.ones((2, 3), bool))
        >>> block = mmf.fusion.ReinforcementUnit(sources=((0,),), num_heads=2)
        >>> (updated, _), variables = block.init_with_output(
        ...     jax.random.key(0), [audio], [text], train=False
        ... )
        >>> updated[0].values.shape
        (2, 3, 8)

    Attributes:
        sources: For every unit, the indices of its sources; the tokens of several are
            concatenated.
        num_heads: Number of heads, K; must divide the width d.
        mu: Weight of the previous layer's map, see `predict_attention`; 0 is the
            ablation "w/o Prediction Chain" and has no convolution.
        form: Form of Eq. 2, see `predict_attention`.
        scale: "head" divides S by sqrt(d / K), "width" by sqrt(d).
        out_proj: Apply a linear layer to the heads before the residual.
        ffn_mult: Hidden width of the feed-forward network, in multiples of d.
        dropout: Dropout rate of the heads and the hidden layer.
        remat: Recompute predicted maps in the backward pass, a few examples at a time,
            to save memory; other maps are always recomputed.
        dtype: Dtype of the computation except the softmax; None keeps the input's.

    Reference:
        MEA, Sec. III-C, Eq. 2-4, and the unit of Sec. III-D, Eq. 7-9.
    Deviation:
        Source and target share one normalization, and the residual is the normalized
        target, as Eq. 3 and 8 print it. The paper does not mention dropout; we do not
        apply it to the maps, which are large. Nor does it have an initialization: ours
        is Xavier with biases of 0.
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
        """Updates the targets.

        Args:
            sources: (b s d) each.
            targets: (b n d), one per unit.
            previous: Queries and keys of every unit in the previous layer, if any.
            train: Apply dropout.

        Returns:
            The targets, (b n d), 0 where masked, and the scaled queries (b k n d/k) and
            keys (b k s d/k) of every unit, 0 where masked: S is their product.

        Raises:
            ConfigError: An option is unknown, or `num_heads` does not divide d.
        """
        width = targets[0].values.shape[-1]
        self._check(width)
        rows = PackedSequences(tuple(t.values.shape[1] for t in targets))
        mask = rows.join([t.mask for t in targets])
        drop = nn.Dropout(self.dropout, deterministic=not train)

        scale, bias = self._norm("norm", width)
        z = layer_normalize(zero_masked(rows.join([t.values for t in targets]), mask))
        z = z * rows.repeat(scale) + rows.repeat(bias)
        square = width, width
        queries = rows.split(rows.linear(z, self._param("query", *square)))
        kernel = [self._param(name, *square) for name in ("key", "value")]
        kernel = jnp.concatenate(kernel, axis=-1)
        # LN(Z) W as one product, since units may share a source, but not its LN.
        keys_values = self._keys_values(
            sources, scale[..., None] * kernel, bias[:, None] @ kernel
        )
        heads, saved = self._attention(queries, keys_values, sources, targets, previous)
        mixed = rows.join(heads)
        if self.out_proj:
            mixed = rows.linear(mixed, *self._affine("out", width, width))
        o = z + drop(mixed)

        scale, bias = self._norm("feed", width)
        x = layer_normalize(o) * rows.repeat(scale) + rows.repeat(bias)
        hidden = self.ffn_mult * width
        x = rows.linear(x, *self._affine("expand", width, hidden))
        x = drop(nn.gelu(x, approximate=False))
        z = o + rows.linear(x, *self._affine("shrink", hidden, width))
        values = rows.split(zero_masked(z, mask))
        updated = [t.replace(values=x) for t, x in zip(targets, values, strict=True)]
        return updated, saved

    def _keys_values(
        self, sources: Sequence[Tokens], kernel: Array, bias: Array
    ) -> list[Array]:
        """Keys and values of every unit, concatenated to (b s 2d)."""
        z = [layer_normalize(zero_masked(s.values, s.mask)) for s in sources]
        return [
            jnp.concatenate([z[i] for i in indices], axis=1) @ kernel[u] + bias[u]
            for u, indices in enumerate(self.sources)
        ]

    def _attention(
        self,
        queries: Sequence[Array],
        keys_values: Sequence[Array],
        sources: Sequence[Tokens],
        targets: Sequence[Tokens],
        previous: Sequence[Pair],
    ) -> tuple[list[Array], list[Pair]]:
        """Outputs of the heads of every unit, (b n d), and their queries and keys."""
        mixed, saved, maps = [], [], []
        # The first layer has no previous map, and hence no convolution.
        chain = self._chain() if previous and self.mu else None
        units = zip(queries, keys_values, targets, self.sources, strict=True)
        for u, (query, kv, target, indices) in enumerate(units):
            mask = jnp.concatenate([sources[i].mask for i in indices], axis=1)
            q, k, v = self._heads(
                zero_masked(query, target.mask), zero_masked(kv, mask)
            )
            if chain:
                logits = functools.partial(chain, u)
                y = self._chained(logits, q, k, v, mask, *previous[u])
                maps.append((logits, (q, k, mask, *previous[u])))
            else:
                y = dot_attention(q, k, v, mask)
                maps.append((_scores, (q, k, mask)))
            mixed.append(einops.rearrange(y, "b k n d -> b n (k d)"))
            saved.append((q, k))
        # No implementation of attention keeps a map, so maps are computed again, and
        # only for callers that ask for them.
        if self.is_mutable_collection("intermediates"):
            weights = [
                masked_softmax(logits(*x), x[2][:, None, None], axis=-1)
                for logits, x in maps
            ]
            self.sow("intermediates", "attention", tuple(weights))
        return mixed, saved

    def _chained(
        self, logits: Callable[..., Array], q: Array, k: Array, v: Array, *others: Array
    ) -> Array:
        """Outputs of heads with predicted maps, (b k n d)."""

        def attend(q: Array, k: Array, v: Array, mask: Array, *last: Array) -> Array:
            return weighted_sum(logits(q, k, mask, *last), mask[:, None, None], v)

        if not self.remat:
            return attend(q, k, v, *others)
        # `jax.checkpoint` is inside the loop over chunks: around the loop it would
        # compute the maps of all chunks again before the first gradient, and keep them.
        size = chunk_size_for(q.shape[1] * q.shape[2] * k.shape[2])
        return map_in_chunks(jax.checkpoint(attend), (q, k, v, *others), size)

    def _heads(self, query: Array, kv: Array) -> tuple[Array, Array, Array]:
        """Scaled queries, float32 or wider, keys and values, (b k n d) each."""
        scale = query.shape[-1] / (1 if self.scale == "width" else self.num_heads)
        # The queries are scaled instead of the map, which is larger.
        q = query.astype(exact(query)) * scale**-0.5
        k, v = jnp.split(kv, 2, axis=-1)
        q, k, v = (
            einops.rearrange(x, "b n (k d) -> b k n d", k=self.num_heads)
            for x in (q, k, v)
        )
        return q, k, v

    def _chain(self) -> Callable[..., Array]:
        """Returns Eq. 2 for a unit: the argument of the outer softmax."""
        k = self.num_heads
        kernels = self._param("conv", 3, 3, k, k)
        biases = self._param("conv_bias", k)

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
        bias = self._param(f"{name}_bias", features)
        return self._param(name, width, features), bias

    def _param(self, name: str, *shape: int) -> Array:
        """Returns a parameter of every unit, (u ...): a kernel, or a bias (e)."""
        init = stacked_xavier_normal if len(shape) > 1 else nn.initializers.zeros
        value = self.param(name, init, (len(self.sources), *shape))
        return value.astype(self.dtype or value.dtype)

    def _check(self, width: int) -> None:
        for name, values in CHOICES.items():
            if (value := getattr(self, name)) not in values:
                raise ConfigError(
                    "C03",
                    f"{shown_name(name)}={shown(value)} is unknown.",
                    suggest(value, values),
                )
        check_num_heads(self, width)


def _scores(q: Array, k: Array, *_: Array) -> Array:
    """S, (b k n s), float32 or wider."""
    return jnp.matmul(q, jnp.swapaxes(k, -1, -2).astype(q.dtype))
