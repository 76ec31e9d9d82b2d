"""Cross-modal attention alignment with a gated residual (OF-CMAER-CAT)."""

from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.attention import attention_weights
from mmfusion_jax.layers.linear import linear
from mmfusion_jax.layers.readout import mean
from mmfusion_jax.layers.transformer import layer_norm
from mmfusion_jax.ops.masking import keep, masked_softmax
from mmfusion_jax.types import Array, Streams, Tokens

ALPHA = "alpha"
PROJECTIONS = ("query", "key", "value")


class CrossModalAlignment(nn.Module):
    """Every modality asks each other one, and a gate decides how much it hears.

        Q_i = F_i W_Q, and so K_i, V_i                                (3)
        A_ij = softmax(Q_i K_j^T / sqrt(d_k)) V_j                     (4)
        F'_i = sum_{j != i} alpha_ij A_ij                             (5)
        alpha_ij = softmax_{j != i}(f_i^T W_phi f_j), f_i the mean    (6)
        F^a_i = LN(F_i + sigmoid(G_i) * F'_i)                         (7)

    Parameters: `query`, `key`, `value` (with `per_modality` one of each for every
    modality, such as `query_audio`), `similarity`, `gate_hidden`, `gate`, `norm`.

    Attributes:
        order: the streams that are aligned; all have tokens of one width.
        heads: of the attention; divides the width.
        per_modality: projections of Eq. 3 of each modality's own.
        dtype: type of the computation; None keeps that of the input.

    Source:
        OF-CMAER-CAT, Sec. 3, Eq. 3-7.
    Reading:
        The projections are shared, as printed, and one head wide. The softmax of Eq. 6
        runs over the partners that an example has; without any F' is 0. G is a
        perceptron of each step [F_i, F'_i] with one hidden layer and ReLU, shared by
        the modalities, as is LN; the paper says "MLP".
    """

    order: tuple[str, ...]
    heads: int = 1
    per_modality: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Aligns the streams in `order`, each (b n d); others pass through.

        Returns:
            The same streams, those in `order` aligned, and "alpha", whose values (b m
            m) are alpha, row i for modality i, and whose mask is which are present.

        Raises:
            ConfigError: if `heads` does not divide d.
        """
        del train
        parts = {m: _clean(streams[m]) for m in self.order}
        width = parts[self.order[0]].values.shape[-1]
        if width % self.heads:
            raise ConfigError(
                "C10", f"heads={self.heads} does not divide the width {width}."
            )
        alpha = self._alpha(parts, width)
        heard = self._heard(parts, alpha.values, width)

        hidden = linear(2 * width, width, dtype=self.dtype, name="gate_hidden")
        gate = linear(width, width, dtype=self.dtype, name="gate")
        norm = layer_norm(self.dtype, "norm")
        aligned = {}
        for m, own in parts.items():
            both = jnp.concatenate([own.values, heard[m]], axis=-1)
            let_in = jax.nn.sigmoid(gate(jax.nn.relu(hidden(both)))) * heard[m]
            aligned[m] = _clean(own.replace(values=norm(own.values + let_in)))
        return {**streams, **aligned, ALPHA: alpha}

    def _alpha(self, parts: Streams, width: int) -> Tokens:
        """The weight of every partner, Eq. 6."""
        means = jnp.stack([mean(tokens) for tokens in parts.values()], axis=1)  # b m d
        present = jnp.stack([tokens.present for tokens in parts.values()], axis=1)
        weigh = linear(
            width, width, use_bias=False, dtype=self.dtype, name="similarity"
        )
        wide = jnp.promote_types(means.dtype, jnp.float32)
        # f_i^T W f_j, with W the kernel: rows meet their own modality.
        scores = jnp.einsum("bid,bjd->bij", weigh(means), means).astype(wide)
        partner = present[:, None, :] & present[:, :, None]
        partner = partner & ~jnp.eye(len(parts), dtype=bool)
        return Tokens(masked_softmax(scores, partner, axis=-1), present)

    def _heard(self, parts: Streams, alpha: Array, width: int) -> dict[str, Array]:
        """What every modality hears from its partners, F' of Eq. 5, (b n d) each."""
        projections = self._projections(width)
        views = {
            m: [
                einops.rearrange(
                    project(x.values), "b n (g d) -> b n g d", g=self.heads
                )
                for project in projections[m]
            ]
            for m, x in parts.items()
        }
        heard = {}
        for i, m in enumerate(parts):
            total = jnp.zeros_like(views[m][2])
            for j, partner in enumerate(parts):
                if partner != m:
                    _, k, v = views[partner]
                    visible = parts[partner].mask[:, None, None, :]  # b 1 1 s
                    weights = attention_weights(views[m][0], k, visible)
                    weights = weights * alpha[:, i, j, None, None, None]
                    total += jnp.einsum("bgns,bsgd->bngd", weights.astype(v.dtype), v)
            heard[m] = einops.rearrange(total, "b n g d -> b n (g d)")
        return heard

    def _projections(self, width: int) -> dict[str, list[nn.Dense]]:
        """W_Q, W_K and W_V of every modality, Eq. 3."""

        def three(ending: str) -> list[nn.Dense]:
            return [
                linear(
                    width,
                    width,
                    use_bias=False,
                    dtype=self.dtype,
                    name=f"{name}{ending}",
                )
                for name in PROJECTIONS
            ]

        if self.per_modality:
            return {m: three(f"_{m}") for m in self.order}
        return dict.fromkeys(self.order, three(""))


def _clean(tokens: Tokens) -> Tokens:
    """Tokens that are 0 where they are masked."""
    return tokens.replace(values=keep(tokens.values, tokens.mask))
