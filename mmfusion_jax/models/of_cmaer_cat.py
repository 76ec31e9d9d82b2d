"""OF-CMAER-CAT: cross-modal alignment, adaptive weighting, transformer context."""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.fusion.cross_modal_alignment import ALPHA, CrossModalAlignment
from mmfusion_jax.fusion.modality_weighting import ModalityWeighting
from mmfusion_jax.fusion.transformer_context import TransformerContext
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.pooling import mean
from mmfusion_jax.layers.transformer import layer_norm
from mmfusion_jax.models.common import (
    check_choices,
    check_widths,
    encode,
    ordered,
    prediction_head,
    weights_by_modality,
)
from mmfusion_jax.ops.masking import masked_mean
from mmfusion_jax.option_types import Depth, Fraction, ModalityOrder, Size
from mmfusion_jax.types import Array, Batch, Outputs, Streams

CHOICES = {
    "head_type": ("weighted_sum", "concat"),
    "context_pooling": ("weighted", "tokens"),
}


class OFCMAERCAT(nn.Module):
    """CNNs, alignment (CMAA), adaptive weights (AWOM), transformer, head (Fig. 1).

        F_i = E_i(M_i)                                                (1)
        F^a = CMAA(F)                                                 (3-7)
        w = AWOM(F)                                                   (8-10)
        h = sum_i w_i mean_t F^a_i                                    (11)
        prediction = W_cls relu(W_p h + b_p) + b_cls                  (12-13)

    With the transformer, context_pooling="weighted" replaces F^a in Eq. 11 by
    Transformer([F^a_1 .. F^a_M]); with "tokens", h is the mean over all tokens of
    Transformer([w_1 F^a_1 .. w_M F^a_M]).

    Parameters: `encoders_<modality>`, `alignment`, `weighting`, `context`, `project`,
    `head`; `norm` with the concatenating head; for the loss `decode_<modality>_0`,
    `_1`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> names, mask = ("text", "audio", "video"), jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch(
        ...     {name: jnp.ones((2, 5, 8)) for name in names},
        ...     {name: mask for name in names},
        ... )
        >>> encoders = {name: mmf.encoders.Precomputed() for name in names}
        >>> model = mmf.models.OFCMAERCAT(
        ...     encoders, head_size=3, hidden_dim=8, context_layers=1, context_heads=2
        ... )
        >>> outputs, variables = model.init_with_output(
        ...     jax.random.key(0), batch, train=False
        ... )
        >>> outputs.prediction.shape
        (2, 3)

    Attributes:
        encoders: Encoders of any number of modalities, with the same token width d.
        head_size: Number of outputs.
        modality_order: Names of the modalities, the order of `weights`. () sorts them
            by name.
        alignment: False removes CMAA: F^a = F; Table 4, "CNN encoders only".
        weighting: False removes AWOM: equal weights of the present modalities; Table 4,
            "+ CMAA".
        transformer: False is Eq. 11; Table 4, "+ Contrastive Loss".
        reconstruction: Build the decoders of the loss term "reconstruction".
        head_type: "weighted_sum", Eq. 11-13, or "concat", Eq. 20-22.
        context_pooling: "weighted" or "tokens", see above.
        hidden_dim: Width of z, and of the hidden layer of the head with "concat".
        weight_hidden_dim: Width of the hidden layer of AWOM.
        num_heads, per_modality: Options of the alignment, see `CrossModalAlignment`.
        context_layers, context_heads: Number of layers and heads of the transformer.
        dropout: Dropout rate of the transformer, and of the head with "concat".
        dtype: Dtype of the computation; None keeps the encoders'.

    Reference:
        OF-CMAER-CAT, Sec. 3, Table 4.
    Deviation:
        The transformer is "after alignment", where Eq. 11 has already pooled: over one
        vector it would have no effect, so its input are the tokens. "weighted" keeps
        Eq. 11 behind it. With "tokens" the weights scale its input, whose layer
        normalization undoes most of a scale, and a modality counts by its number of
        tokens: w is then not the weight of a modality in the prediction.
        Eq. 20-22 are a second head, which the paper does not relate to the first: it
        reads the mean of each modality, after the transformer if there is one. Its
        V, A and P (visual, audio, physiological) are never in one of the paper's data
        sets: IEMOCAP and CMU-MOSEI have text in the place of P, and DEAP recorded no
        sound of its participants and the faces of 22 of the 32 only, in files that the
        preprocessed signals do not contain. z is the concatenation of the modalities
        that the config has, for DEAP EEG and peripheral signals. With two modalities,
        alpha of Eq. 6 is always 1.
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    modality_order: ModalityOrder = ()
    alignment: bool = True
    weighting: bool = True
    transformer: bool = True
    reconstruction: bool = True
    head_type: Literal["weighted_sum", "concat"] = "weighted_sum"
    context_pooling: Literal["weighted", "tokens"] = "weighted"
    hidden_dim: Size = 64
    weight_hidden_dim: Size = 64
    num_heads: Size = 1
    per_modality: bool = False
    context_layers: Depth = 2
    context_heads: Size = 4
    dropout: Fraction = 0.1
    dtype: Any = None

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Fuses the modalities and predicts.

        Returns:
            Logits (b k), or a score (b) with one output. Auxiliary outputs:
            "pooled/<m>" (b d), the mean of every encoder's tokens, "weights" (b m), the
            same as "weight/<m>" (b), "fused" (b d), with the alignment "alpha" (b m m),
            and in training "reconstruction/<m>" (b d).

        Raises:
            ConfigError: An option is unknown, `modality_order` does not match the
                encoders, or their token widths differ.
        """
        order = self._order()
        encoded = encode(self.encoders, batch, train=train)
        check_widths(encoded)
        aux = {f"pooled/{m}": mean(encoded[m]) for m in order}
        streams: Streams = encoded
        if self.alignment:
            align = CrossModalAlignment(
                order, self.num_heads, self.per_modality, self.dtype, name="alignment"
            )
            streams = align(encoded, train=train)
            aux["alpha"] = streams[ALPHA].values
        weights = self._weights(order, encoded)
        aux |= {"weights": weights, **weights_by_modality(order, weights)}
        over_tokens = self.transformer and self.context_pooling == "tokens"
        if self.transformer:
            scales = weights if over_tokens else jnp.ones_like(weights)
            streams = self._add_context(order, streams, scales, train)
        if over_tokens:
            fused = _mean_of_all(order, streams)
        else:
            means = jnp.stack([mean(streams[m]) for m in order], axis=1)
            fused = jnp.sum(means * weights[..., None].astype(means.dtype), axis=1)
        aux["fused"] = fused
        # Decoders are for the loss only; init, which runs with train=False, creates
        # them.
        if self.reconstruction and (train or self.is_initializing()):
            aux |= {f"reconstruction/{m}": self._decode(m, fused) for m in order}
        return Outputs(self._head(order, streams, fused, train), aux)

    def _order(self) -> tuple[str, ...]:
        """Returns the checked modalities."""
        check_choices(self, CHOICES)
        return ordered(self.modality_order, self.encoders)

    def _weights(self, order: tuple[str, ...], streams: Streams) -> Array:
        """Modality weights, Eq. 8-10, (b m)."""
        parts = [streams[m] for m in order]
        if self.weighting:
            weighting = ModalityWeighting(
                self.weight_hidden_dim, self.dtype, name="weighting"
            )
            return weighting(parts)
        present = jnp.stack([tokens.present for tokens in parts], axis=1)
        count = jnp.sum(present, axis=1, keepdims=True, dtype=jnp.float32)
        return present / jnp.maximum(count, 1)

    def _add_context(
        self, order: tuple[str, ...], streams: Streams, weights: Array, train: bool
    ) -> Streams:
        """Applies the transformer to the weighted tokens of all modalities."""
        weighted = {}
        for i, m in enumerate(order):
            values = streams[m].values
            weight = weights[:, i, None, None].astype(values.dtype)
            weighted[m] = streams[m].replace(values=weight * values)
        context = TransformerContext(
            order,
            self.context_layers,
            self.context_heads,
            self.dropout,
            self.dtype,
            name="context",
        )
        return context(weighted, train=train)

    def _decode(self, m: str, fused: Array) -> Array:
        """Decodes the mean of a modality from the fused vector, (b d)."""
        width = fused.shape[-1]
        first, last = (
            torch_dense(width, width, dtype=self.dtype, name=f"decode_{m}_{i}")
            for i in range(2)
        )
        return last(jax.nn.relu(first(fused)))

    def _head(
        self, order: tuple[str, ...], streams: Streams, fused: Array, train: bool
    ) -> Array:
        x = fused
        if self.head_type == "concat":
            x = jnp.concatenate([mean(streams[m]) for m in order], axis=-1)  # Eq. 20
            x = layer_norm(self.dtype, "norm")(x)
        project = torch_dense(
            x.shape[-1], self.hidden_dim, dtype=self.dtype, name="project"
        )
        z = jax.nn.relu(project(x))  # Eq. 12, 21
        if self.head_type == "concat":
            z = nn.Dropout(self.dropout, deterministic=not train)(z)
        return prediction_head(z, self.head_size)


def _mean_of_all(order: tuple[str, ...], streams: Streams) -> Array:
    """Mean over the valid tokens of all modalities, (b d)."""
    values = jnp.concatenate([streams[m].values for m in order], axis=1)
    mask = jnp.concatenate([streams[m].mask for m in order], axis=1)
    return masked_mean(values, mask, axis=1)
