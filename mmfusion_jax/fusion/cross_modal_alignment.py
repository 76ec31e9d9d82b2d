"""Cross-modal attention alignment with a gated residual (OF-CMAER-CAT)."""

from collections.abc import Sequence
from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.fusion.stack_modalities import same_width
from mmfusion_jax.layers.attention import attention_weights
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.option_path import check_num_heads
from mmfusion_jax.layers.pooling import mean
from mmfusion_jax.layers.transformer import layer_norm
from mmfusion_jax.ops.masking import masked_softmax, zero_masked
from mmfusion_jax.option_types import Modalities, Size
from mmfusion_jax.types import Array, Streams, Tokens

ALPHA = "alpha"
PROJECTIONS = ("query", "key", "value")


class CrossModalAlignment(nn.Module):
    """Cross-attention from each modality to the others, with a gated residual.

        Q_i = F_i W_Q, and so K_i, V_i                                (3)
        A_ij = softmax(Q_i K_j^T / sqrt(d_k)) V_j                     (4)
        F'_i = sum_{j != i} alpha_ij A_ij                             (5)
        alpha_ij = softmax_{j != i}(f_i^T W_phi f_j), f_i the mean    (6)
        F^a_i = LN(F_i + sigmoid(G_i) * F'_i)                         (7)

    Parameters: `query`, `key`, `value` (with `per_modality` one of each for every
    modality, such as `query_audio`), `similarity`, `gate_hidden`, `gate`, `norm`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> key, mask = jax.random.key(0), jnp.ones((2, 5), bool)
        >>> streams = {
        ...     m: mmf.Tokens(jnp.ones((2, 5, 8)), mask) for m in ("audio", "video")
        ... }
        >>> block = mmf.fusion.CrossModalAlignment(("audio", "video"))
        >>> fused, variables = block.init_with_output(key, streams, train=False)
        >>> {name: tokens.values.shape for name, tokens in fused.items()}
        {'audio': (2, 5, 8), 'video': (2, 5, 8), 'alpha': (2, 2, 2)}

    Attributes:
        modality_order: Names of the streams to align; all have the same token width.
        num_heads: Number of attention heads; divides the width.
        per_modality: Use separate projections in Eq. 3 for each modality.
        dtype: Dtype of the computation; None keeps the input's.

    Reference:
        OF-CMAER-CAT, Sec. 3, Eq. 3-7.
    Deviation:
        The projections are shared, as printed, and there is one head. The softmax of
        Eq. 6 is over the other modalities that are present; without any, F' is 0. G is
        an MLP of each step [F_i, F'_i] with one hidden layer and ReLU, shared by the
        modalities, as is LN; the paper only has "MLP".
    """

    modality_order: Modalities
    num_heads: Size = 1
    per_modality: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Aligns the streams in `modality_order`, each (b n d).

        Returns:
            The same streams, those in `modality_order` aligned, others unchanged, and
            "alpha", with the values alpha (b m m), row i for modality i, and the
            present modalities as the mask.

        Raises:
            ConfigError: `num_heads` does not divide d.
        """
        del train
        parts = same_width(streams, self.modality_order)
        parts = [
            part.replace(values=zero_masked(part.values, part.mask)) for part in parts
        ]
        width = parts[0].values.shape[-1]
        check_num_heads(self, width)
        alpha = self._alpha(parts, width)
        # The tokens of all modalities are concatenated: one projection, gate and norm
        # for all makes a smaller program than one for each modality.
        own = jnp.concatenate([part.values for part in parts], axis=1)
        context = self._context(parts, alpha.values, width)

        hidden = torch_dense(2 * width, width, dtype=self.dtype, name="gate_hidden")
        gate = torch_dense(width, width, dtype=self.dtype, name="gate")
        both = jnp.concatenate([own, context], axis=-1)
        gates = jax.nn.sigmoid(gate(jax.nn.relu(hidden(both))))
        aligned = layer_norm(self.dtype, "norm")(own + gates * context)
        ends = np.cumsum([part.values.shape[1] for part in parts[:-1]])
        aligned_streams = {
            m: part.replace(values=zero_masked(values, part.mask))
            for m, part, values in zip(
                self.modality_order,
                parts,
                jnp.split(aligned, ends.tolist(), axis=1),
                strict=True,
            )
        }
        return {**streams, **aligned_streams, ALPHA: alpha}

    def _alpha(self, parts: Sequence[Tokens], width: int) -> Tokens:
        """Weights of the other modalities, Eq. 6."""
        means = jnp.stack([mean(part) for part in parts], axis=1)  # b m d
        present = jnp.stack([part.present for part in parts], axis=1)
        similarity = torch_dense(
            width, width, use_bias=False, dtype=self.dtype, name="similarity"
        )
        wide = jnp.promote_types(means.dtype, jnp.float32)
        scores = jnp.einsum("bid,bjd->bij", similarity(means), means).astype(wide)
        pairs = present[:, None, :] & present[:, :, None]
        pairs = pairs & ~jnp.eye(len(parts), dtype=bool)
        return Tokens(masked_softmax(scores, pairs, axis=-1), present)

    def _context(self, parts: Sequence[Tokens], alpha: Array, width: int) -> Array:
        """Attention of every token to the other modalities, F' of Eq. 5.

        Returns:
            (b n d), with the tokens of all modalities concatenated.
        """
        sizes = np.array([part.values.shape[1] for part in parts])
        query, key, value = (self._project(name, parts, width) for name in PROJECTIONS)
        weights = []
        starts = np.cumsum([0, *sizes]).tolist()
        for j, part in enumerate(parts):
            keys = key[:, starts[j] : starts[j + 1]]
            attention = attention_weights(query, keys, part.mask[:, None, None, :])
            # A token's weight of modality j is that of its modality; 0 for its own.
            scale = jnp.repeat(
                alpha[:, :, j], sizes, 1, total_repeat_length=sizes.sum()
            )
            weights.append(attention * scale[:, None, :, None])
        # With alpha in the weights, the sum over j in Eq. 5 is part of one product with
        # the values of all modalities.
        weights = jnp.concatenate(weights, axis=-1).astype(value.dtype)
        mixed = jnp.einsum("bgns,bsgd->bngd", weights, value)
        return einops.rearrange(mixed, "b n g d -> b n (g d)")

    def _project(self, name: str, parts: Sequence[Tokens], width: int) -> Array:
        """Q, K or V of the concatenated tokens, Eq. 3, (b n g d)."""

        def layer(full_name: str) -> nn.Dense:
            return torch_dense(
                width, width, use_bias=False, dtype=self.dtype, name=full_name
            )

        values = [part.values for part in parts]
        if self.per_modality:
            projected = [
                layer(f"{name}_{m}")(x)
                for m, x in zip(self.modality_order, values, strict=True)
            ]
            joint = jnp.concatenate(projected, axis=1)
        else:
            joint = layer(name)(jnp.concatenate(values, axis=1))
        return einops.rearrange(joint, "b n (g d) -> b n g d", g=self.num_heads)
