"""Residual cross-modal attention (CFN-SR)."""

from typing import Any, Literal

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, join_names, shown, shown_name, suggest
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.pooling import time_steps
from mmfusion_jax.ops.masking import last_valid, masked_softmax, zero_masked
from mmfusion_jax.option_types import Modality, Scale, Size
from mmfusion_jax.types import Array, Streams, Tokens

CHOICES = {"softmax_axes": ("HW", "SHW"), "attention": ("per_sample", "batch_sum")}


class ResidualAttention(nn.Module):
    """Attention over the positions of a target modality, queried by a source modality.

        q = tanh(W_v X_v + b_v + W_a x_a)              (7)
        X_o = scale softmax(w q + b) * X_v + X_v       (8), scale = 1

    The weights of the n positions of a time step sum to 1. While they are equal, the
    block adds 1/n of X_v: 2.04 % to the 7 x 7 positions of the paper's video, and more
    only where the weights are unequal.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> key, mask = jax.random.key(0), jnp.ones((2, 8), bool)
        >>> video = mmf.Tokens(jnp.ones((2, 8, 6)), mask, grid=(2, 2, 2))
        >>> streams = {"audio": mmf.Tokens(jnp.ones((2, 8, 6)), mask), "video": video}
        >>> block = mmf.fusion.ResidualAttention(
        ...     hidden_dim=4, target="video", source="audio"
        ... )
        >>> fused, variables = block.init_with_output(key, streams, train=False)
        >>> fused["video"].values.shape
        (2, 8, 6)

    Attributes:
        hidden_dim: Width of the common space of the two modalities, k.
        target: Name of the stream that is reweighted, X_v.
        source: Name of the stream whose last token is the query, x_a.
        project_source: Apply W_a; False if the source has the width `hidden_dim` and
            was projected before.
        residual: Add X_v; False is the ablation "w/o residual".
        softmax_axes: "HW" normalizes over the positions of each time step, "SHW" over
            all positions. A target without a grid is one time step.
        attention: "per_sample", or "batch_sum" to weight every example with the sum of
            the weights over the batch, as the released code does.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        dtype: Dtype of the computation except the softmax; None keeps the input's.
        scale: Factor of the weights. 16 is the strength of the released code, whose
            batch is 16, without its dependence on the other examples.

    Reference:
        CFN-SR, Sec. 2.3, Eq. 7-8.
    Deviation:
        Eq. 7 yields k maps where Eq. 8 needs one: a learned vector w and a bias project
        them, as in the released code. x_a is the last token, also from the code. The
        code sums the weights over the batch, so that a prediction depends on the other
        examples, and a batch of 16 adds 32.7 % instead of 2.04 %; we do so only with
        attention="batch_sum". Eq. 8 has no factor, so the default of `scale` is 1.
    """

    hidden_dim: Size
    target: Modality
    source: Modality
    project_source: bool = True
    residual: bool = True
    softmax_axes: Literal["HW", "SHW"] = "HW"
    attention: Literal["per_sample", "batch_sum"] = "per_sample"
    axis: str | None = None
    dtype: Any = None
    scale: Scale = 1.0

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Reweights `streams[target]`; other streams are unchanged.

        Args:
            streams: Must contain `target` (b n d) and `source` (b s e).
            train: Unused; part of the interface of all fusion blocks.

        Returns:
            The same streams with `target` replaced, still (b n d), and a stream
            "attention" (b n 1) of the weights, without `scale`.

        Raises:
            ConfigError: `target` or `source` is not among the streams, or an option is
                unknown.
        """
        del train
        self._check(streams)
        target, source = streams[self.target], streams[self.source]
        chex.assert_equal_shape_prefix([target.values, source.values], 1)

        x = zero_masked(target.values, target.mask)
        weights = self._weights(self._scores(x, last_valid(source)), target)
        values = x * (self.scale * weights).astype(x.dtype)
        if self.residual:
            values = values + x
        return {
            **streams,
            self.target: target.replace(values=values),
            "attention": target.replace(values=weights),
        }

    def _scores(self, x: Array, query: Array) -> Array:
        """Score w q + b of every position, (b n), in float32 or wider."""
        if self.project_source:
            project = torch_dense(
                query.shape[-1],
                self.hidden_dim,
                use_bias=False,
                dtype=self.dtype,
                name="ask",
            )
            query = project(query)
        chex.assert_axis_dimension(query, 1, self.hidden_dim)
        keys = torch_dense(x.shape[-1], self.hidden_dim, dtype=self.dtype, name="key")(
            x
        )
        q = jnp.tanh(keys + query[:, None])  # Eq. 7
        q = q.astype(jnp.promote_types(q.dtype, jnp.float32))
        return torch_dense(self.hidden_dim, 1, name="score")(q)[..., 0]

    def _weights(self, scores: Array, target: Tokens) -> Array:
        """Weight of every position, (b n 1); 0 where masked."""
        b, n = scores.shape
        steps = time_steps(target) if self.softmax_axes == "HW" else 1
        by_step = (b, steps, n // steps)
        weights = masked_softmax(
            scores.reshape(by_step), target.mask.reshape(by_step), axis=2
        )
        weights = weights.reshape(b, n)
        if self.attention == "batch_sum":
            total = jnp.sum(weights, axis=0)
            # init runs outside pmap, where the axis does not exist.
            if self.axis is not None and not self.is_initializing():
                total = jax.lax.psum(total, self.axis)
            weights = zero_masked(jnp.broadcast_to(total, weights.shape), target.mask)
        return weights[..., None]

    def _check(self, streams: Streams) -> None:
        if missing := {self.target, self.source} - streams.keys():
            raise ConfigError(
                "C22",
                f"ResidualAttention requires streams {join_names(sorted(missing))}, "
                f"but got {join_names(sorted(streams))}.",
            )
        for name, values in CHOICES.items():
            if (value := getattr(self, name)) not in values:
                raise ConfigError(
                    "C03",
                    f"{shown_name(name)}={shown(value)} is unknown.",
                    suggest(value, values),
                )
