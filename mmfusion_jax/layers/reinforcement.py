"""Attention that reinforces a target by a source; maps that the last ones predict."""

from typing import Any, Literal

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, nearest
from mmfusion_jax.layers.linear import linear, torch_uniform
from mmfusion_jax.layers.perceptron import Perceptron
from mmfusion_jax.layers.transformer import layer_norm
from mmfusion_jax.ops.masking import keep, masked_softmax
from mmfusion_jax.types import Array, Tokens

KNOWN = {"form": ("literal", "logit"), "scale": ("head", "width")}


class Reinforcement(nn.Module):
    """A target asks a source; with itself as source it is predictive self-attention.

        S = LN(Z_t) W_Q (LN(Z_s) W_K)^T / scale, per head
        o = LN(Z_t) + concat_k softmax(S_k) V_k                        (3), (8)
        Z = W_2 gelu(W_1 LN(o) + b_1) + b_2 + o                        (4), (9)

    Attributes:
        heads: number of heads, K; must divide the width d.
        mu: how much the map of the previous layer decides, see `PredictiveMap`; 0 is
            the ablation "w/o Prediction Chain" and has no convolution.
        form: of Eq. 2, see `PredictiveMap`.
        scale: "head" divides S by sqrt(d / K), "width" by sqrt(d).
        out_proj: a linear layer on the heads before they are added.
        ffn_mult: hidden width of the feed-forward network, in widths d.
        dropout: on attention weights and the hidden layer.
        remat: compute the predicted map again on the way back, to save memory.
        dtype: type of the computation, softmax excepted; None keeps that of the input.

    Source:
        MEA, Sec. III-C, Eq. 2-4, and the unit of Sec. III-D, Eq. 7-9.
    Reading:
        One normalisation serves source and target, and what is added to the heads is
        the normalised target, as Eq. 3 and 8 print it.
    """

    heads: int
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
        source: Tokens,
        target: Tokens,
        previous: Array | None = None,
        *,
        train: bool,
    ) -> tuple[Tokens, Array]:
        """Reinforces.

        Args:
            source: (b s d) tokens.
            target: (b n d) tokens.
            previous: S (b k n s) of the previous layer, if there is one.
            train: drop out.

        Returns:
            The target, (b n d), 0 where masked, and S (b k n s), 0 where masked.

        Raises:
            ConfigError: an option is unknown, or `heads` does not divide d.
        """
        width = target.values.shape[-1]
        self._check(width)
        norm = layer_norm(self.dtype, "norm")
        asking = norm(keep(target.values, target.mask))
        seen = norm(keep(source.values, source.mask))
        q, k = self._heads("query", asking), self._heads("key", seen)
        visible = target.mask[:, None, :, None] & source.mask[:, None, None, :]
        scores = self._scores(q, k, visible)

        weights = self._weights(scores, previous, visible)
        self.sow("intermediates", "attention", weights)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        v = self._heads("value", seen)
        mixed = jnp.einsum("bkns,bskd->bnkd", drop(weights.astype(v.dtype)), v)
        mixed = einops.rearrange(mixed, "b n k d -> b n (k d)")
        if self.out_proj:
            mixed = linear(width, width, dtype=self.dtype, name="out")(mixed)
        o = asking + mixed
        feed = Perceptron(
            self.ffn_mult * width, width, self.dropout, self.dtype, name="feedforward"
        )
        z = o + feed(layer_norm(self.dtype, "feedforward_norm")(o), train=train)
        return target.replace(values=keep(z, target.mask)), scores

    def _heads(self, name: str, x: Array) -> Array:
        """The vectors of all heads, (b n k d)."""
        width = x.shape[-1]
        project = linear(width, width, use_bias=False, dtype=self.dtype, name=name)
        return einops.rearrange(project(x), "b n (k d) -> b n k d", k=self.heads)

    def _scores(self, q: Array, k: Array, visible: Array) -> Array:
        """S, float32 or wider, 0 where masked, so that no padding reaches a map."""
        exact = jnp.promote_types(q.dtype, jnp.float32)
        width = q.shape[-1] * (self.heads if self.scale == "width" else 1)
        q = q.astype(exact) * width**-0.5
        scores = jnp.einsum("bnkd,bskd->bkns", q, k.astype(exact))
        return jnp.where(visible, scores, 0)

    def _weights(self, scores: Array, previous: Array | None, visible: Array) -> Array:
        """What every token of the target takes of the source, (b k n s)."""
        if previous is None or self.mu == 0:
            return masked_softmax(scores, visible, axis=-1)
        make = nn.remat(PredictiveMap) if self.remat else PredictiveMap
        chain = make(self.mu, self.form, self.dtype, name="prediction")
        return chain(scores, previous, visible)

    def _check(self, width: int) -> None:
        for name, known in KNOWN.items():
            if (value := getattr(self, name)) not in known:
                raise ConfigError(
                    "C03", f"{name}={value!r} is unknown.", nearest(value, known)
                )
        if width % self.heads:
            raise ConfigError(
                "C10", f"heads={self.heads} does not divide the width {width}."
            )


class PredictiveMap(nn.Module):
    """Attention weights that the scores of the previous layer help to predict.

        A = softmax(mu gelu(conv(S')) + (1 - mu) softmax(S))          (2), "literal"
        A = softmax(mu gelu(conv(S')) + (1 - mu) S)                   "logit"

    Attributes:
        mu: from 0, no prediction, to 1.
        form: see above.
        dtype: type of the convolution; None for that of the scores.

    Source:
        MEA, Eq. 2.
    Reading:
        S' are the scores before the softmax. With softmax twice, as printed, no key
        weighs much more than another: at most e / (e + s - 1) of s keys.
    """

    mu: float
    form: Literal["literal", "logit"] = "literal"
    dtype: Any = None

    @nn.compact
    def __call__(self, scores: Array, previous: Array, visible: Array) -> Array:
        """Maps S and S', both (b k n s), 0 where not `visible`, to weights."""
        heads = scores.shape[1]
        start = torch_uniform(9 * heads)
        conv = nn.Conv(
            heads,
            (3, 3),
            dtype=self.dtype,
            kernel_init=start,
            bias_init=start,
            name="conv",
        )
        x = conv(einops.rearrange(previous, "b k n s -> b n s k"))
        x = nn.gelu(x.astype(scores.dtype), approximate=False)
        predicted = einops.rearrange(x, "b n s k -> b k n s")
        own = scores
        if self.form == "literal":
            own = masked_softmax(scores, visible, axis=-1)
        mixed = self.mu * predicted + (1 - self.mu) * own
        return masked_softmax(mixed, visible, axis=-1)
