"""Baselines of two papers: single modalities, late fusion and concatenation.

All use the encoders of the fused model with the same parameter paths,
`encoders_<modality>`, so that trained encoders can be copied between models.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, join_names, shown, shown_name, suggest
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.models.common import (
    AudioPooling,
    encode,
    pool_modality,
    prediction_head,
    project_modality,
)
from mmfusion_jax.ops.late_fusion import (
    average,
    mean_score,
    multiplicative,
    product,
    weighted,
)
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import (
    Fraction,
    OptionalModality,
    OptionalSize,
    Size,
)
from mmfusion_jax.types import Array, Batch, Outputs, Streams

RULES = ("average", "product", "multiplicative", "learned")


class Unimodal(nn.Module):
    """One encoder and a linear layer.

    Parameters: `encoders_<modality>`, `head_<modality>`, as in LateFusion.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> audio, mask = jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch({"audio": audio}, {"audio": mask})
        >>> encoders = {"audio": mmf.encoders.Precomputed()}
        >>> model = mmf.models.Unimodal(encoders, head_size=3, modality="audio")
        >>> outputs, variables = model.init_with_output(
        ...     jax.random.key(0), batch, train=False
        ... )
        >>> outputs.prediction.shape
        (2, 3)

    Attributes:
        encoders: One modality and its encoder.
        head_size: k.
        dropout: Dropout rate of the pooled audio.
        audio_pooling: Pooling of audio: "flatten", "mean" or "mean_std".
        modality: Name of the modality; "" for the only one of `encoders`.

    Reference:
        CFN-SR, Table 1, "3D ResNeXt50 (Vid.)" and "1D CNN (Aud.)".
    """

    unimodal_logits: ClassVar[bool] = True

    encoders: Mapping[str, nn.Module]
    head_size: int
    dropout: Fraction = 0.4
    audio_pooling: AudioPooling = "flatten"
    modality: OptionalModality = ""

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Returns logits (b k), or a score (b) where `head_size` is 1.

        Auxiliary outputs: the vector (b d), with the modality as its name, and
        "logits/<modality>", the prediction.

        Raises:
            ConfigError: `encoders` does not have exactly one entry, or its name is
                not `modality`.
        """
        names = sorted(self.encoders)
        if len(names) != 1 or self.modality not in ("", *names):
            raise ConfigError(
                "C22",
                "model unimodal with config.model.modality="
                f"{shown(self.modality)} requires exactly one encoder, got encoders "
                "for "
                f"{join_names(names, 'no modality')}.",
                f"--config.model.modality={shown_name('|'.join(names)) or 'MODALITY'}",
            )
        (name,) = names
        streams = encode(self.encoders, batch, train=train)
        x = pool_modality(streams, name, self.dropout, self.audio_pooling, train=train)
        logits = prediction_head(x, self.head_size, f"head_{name}")
        return Outputs(logits, {name: x, f"logits/{name}": logits})


class LateFusion(nn.Module):
    """Combines unimodal predictions by a rule.

    Parameters: `encoders_<modality>`, `head_<modality>`; `align_<modality>` and
    `align_<modality>_norm`; `hidden_<modality>_{i}`; `weigh`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> audio, video = jnp.ones((2, 5, 8)), jnp.ones((2, 5, 8))
        >>> mask = jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch(
        ...     {"audio": audio, "video": video}, {"audio": mask, "video": mask}
        ... )
        >>> encoders = {name: mmf.encoders.Precomputed() for name in batch.inputs}
        >>> model = mmf.models.LateFusion(encoders, head_size=3)
        >>> outputs, variables = model.init_with_output(
        ...     jax.random.key(0), batch, train=False
        ... )
        >>> outputs.prediction.shape
        (2, 3)

    Attributes:
        encoders: Encoders of any number of modalities.
        head_size: k.
        rule: "average" of probabilities, their "product", "multiplicative", or
            "learned", an average whose weights are computed from all probabilities by
            a linear layer and softmax.
        beta: Strength of the rule "multiplicative".
        dropout: Dropout rate of the pooled audio.
        audio_pooling: Pooling of audio: "flatten", "mean" or "mean_std".
        projection_dim: Width to which every vector is projected, see
            `project_modality`; 0 for no projection.
        hidden_dims: Widths of the hidden layers before every head.
        hidden_dropout: Dropout rate of the hidden layers.
        flags: The logits are pairs of 0 and 1 of binary labels, and each pair is
            combined separately.

    Reference:
        CFN-SR, Table 1, "Averaging", "Multiplication" and "Multiplicative";
        Hetero-Fusion-Net, Sec. 5.3, "Late Fusion": rule="learned", projection_dim=512,
        hidden_dims=(512, 256), hidden_dropout=0.3, audio_pooling="mean", dropout=0.
    Deviation:
        Averaging and multiplication combine networks that were trained separately:
        pretrain_unimodal with pretrain_epochs and 0 train.epochs does so, as the words
        of configs/cfn_sr.py such as digits_averaging; or copy their weights with
        `copy_submodules`. "multiplicative" is trained with the loss of
        that name; it scores each class as the true one, and here the scores are
        normalized.
        The papers combine classes. Regression scores are combined by "average" or
        "learned", with weights computed from all scores; the other rules are undefined
        for them.
    """

    unimodal_logits: ClassVar[bool] = True

    encoders: Mapping[str, nn.Module]
    head_size: int
    rule: Literal["average", "product", "multiplicative", "learned"] = "average"
    beta: Fraction = 0.3
    dropout: Fraction = 0.4
    audio_pooling: AudioPooling = "flatten"
    projection_dim: OptionalSize = 0
    hidden_dims: tuple[Size, ...] = ()
    hidden_dropout: Fraction = 0.0
    flags: bool = False

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Predicts the label from the combined predictions of the modalities.

        Returns:
            Log-probabilities (b k), or a score (b) if `head_size` is 1. Auxiliary
            outputs: the vector (b d) of each modality, with its name, and
            "logits/<modality>", its logits (b k) or score (b).

        Raises:
            ConfigError: The rule is unknown, or does not support scores.
        """
        streams = encode(self.encoders, batch, train=train)
        aux, logits = _vectors(self, streams, train), []
        # Sorted here and below: the layer `weigh` has an input per modality and class,
        # whose order must not depend on that of a config.
        for name in sorted(streams):
            y = hidden_layers(
                aux[name],
                self.hidden_dims,
                f"hidden_{name}",
                self.hidden_dropout,
                train,
            )
            logits.append(prediction_head(y, self.head_size, f"head_{name}"))
            aux[f"logits/{name}"] = logits[-1]
        present = [streams[name].present for name in sorted(streams)]
        inputs = jnp.stack(logits, axis=1), jnp.stack(present, axis=1)
        if self.head_size == 1:
            return Outputs(self._combine_scores(*inputs), aux)
        if self.flags:
            return Outputs(self._combine_pairs(*inputs), aux)
        return Outputs(self._combine(*inputs), aux)

    def _combine_scores(self, scores: Array, present: Array) -> Array:
        """Combines scores (b m) to (b) by the rule."""
        if self.rule == "average":
            return mean_score(scores, present, jnp.zeros_like(scores))
        if self.rule == "learned":
            weigh = torch_dense(scores.shape[1], scores.shape[1], name="weigh")
            return mean_score(scores, present, weigh(zero_masked(scores, present)))
        raise ConfigError(
            "C03",
            f"config.model.rule={shown(self.rule)} does not support regression.",
            "--config.model.rule=average, or learned",
        )

    def _combine_pairs(self, logits: Array, present: Array) -> Array:
        """Combines pairs of logits (b m 2j) to log-probabilities (b 2j)."""
        # The rules combine distributions over classes, which each pair is one of.
        pairs = einops.rearrange(logits, "b m (j k) -> (b j) m k", k=2)
        present = jnp.repeat(present, self.head_size // 2, axis=0)
        combined = self._combine(pairs, present)
        return einops.rearrange(combined, "(b j) k -> b (j k)", b=len(logits))

    def _combine(self, logits: Array, present: Array) -> Array:
        """Combines logits (b m k) to log-probabilities (b k) by the rule."""
        if self.rule == "average":
            return average(logits, present)
        if self.rule == "product":
            return product(logits, present)
        if self.rule == "multiplicative":
            scores = multiplicative(logits, present, self.beta)
            return jax.nn.log_softmax(scores)
        if self.rule == "learned":
            # An absent modality has logits too, those of a zero vector.
            p = zero_masked(jax.nn.softmax(logits), present)
            p = p.reshape(len(p), -1)  # b m*k
            weigh = torch_dense(p.shape[-1], present.shape[1], name="weigh")
            return weighted(logits, present, weigh(p))
        raise ConfigError(
            "C03",
            f"config.model.rule={shown(self.rule)} is unknown.",
            suggest(self.rule, RULES),
        )


class ConcatFC(nn.Module):
    """Concatenates the vectors of all modalities; hidden layers and one head.

    Parameters: `encoders_<modality>`, `hidden`, `head`; `align_<modality>` and
    `align_<modality>_norm`; `hidden_{i}`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> audio, video = jnp.ones((2, 5, 8)), jnp.ones((2, 5, 8))
        >>> mask = jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch(
        ...     {"audio": audio, "video": video}, {"audio": mask, "video": mask}
        ... )
        >>> encoders = {name: mmf.encoders.Precomputed() for name in batch.inputs}
        >>> model = mmf.models.ConcatFC(encoders, head_size=3, hidden_dims=(8,))
        >>> outputs, variables = model.init_with_output(
        ...     jax.random.key(0), batch, train=False
        ... )
        >>> outputs.prediction.shape
        (2, 3)

    Attributes:
        encoders: Encoders of any number of modalities.
        head_size: k.
        hidden_dims: Widths of the hidden layers, at least one.
        dropout: Dropout rate of the pooled audio.
        hidden_dropout: Dropout rate of the hidden layers.
        audio_pooling: Pooling of audio: "flatten", "mean" or "mean_std".
        projection_dim: Width to which every vector is projected, see
            `project_modality`; 0 for no projection.

    Reference:
        CFN-SR, Table 1, "Concat + FC"; Hetero-Fusion-Net, Sec. 5.3, "Early Fusion":
        hidden_dims=(1024, 512, 256), projection_dim=512, hidden_dropout=0.3,
        audio_pooling="mean", dropout=0.
    Deviation:
        The dropout rate of the hidden layer is not given; it is that of the audio here.
        Table 1 counts the unused unimodal heads too: 26.87M parameters, not 26.84M.
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    hidden_dims: tuple[Size, ...] = (256,)
    dropout: Fraction = 0.4
    hidden_dropout: Fraction = 0.4
    audio_pooling: AudioPooling = "flatten"
    projection_dim: OptionalSize = 0

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Returns logits (b k), or a score (b) where `head_size` is 1.

        Auxiliary outputs: the vector (b d) of each modality, with its name.

        Raises:
            ConfigError: `hidden_dims` is empty.
        """
        if not self.hidden_dims:
            raise ConfigError(
                "C10",
                "config.model.hidden_dims=() must contain at least one width.",
                "--config.model.hidden_dims=256",
            )
        # The first hidden layer is called `hidden` and not `hidden_0`: names of layers
        # are paths of parameters, and seed the initial weights.
        first, *others = self.hidden_dims
        streams = encode(self.encoders, batch, train=train)
        vectors = _vectors(self, streams, train)
        joint = jnp.concatenate(list(vectors.values()), axis=-1)
        hidden = nn.relu(torch_dense(joint.shape[-1], first, name="hidden")(joint))
        hidden = nn.Dropout(self.hidden_dropout, deterministic=not train)(hidden)
        hidden = hidden_layers(
            hidden, tuple(others), "hidden", self.hidden_dropout, train
        )
        return Outputs(prediction_head(hidden, self.head_size), vectors)


def hidden_layers(
    x: Array, widths: tuple[int, ...], name: str, dropout: float, train: bool
) -> Array:
    """Applies linear layers `<name>_{i}`, i from 1, with ReLU and dropout; (b d)."""
    for i, width in enumerate(widths, start=1):
        x = nn.relu(torch_dense(x.shape[-1], width, name=f"{name}_{i}")(x))
        x = nn.Dropout(dropout, deterministic=not train)(x)
    return x


def _vectors(
    model: LateFusion | ConcatFC, streams: Streams, train: bool
) -> dict[str, Array]:
    """Returns the pooled vector of every modality, (b d), projected if asked for."""
    vectors = {}
    # Sorted, because the vectors are concatenated in this order.
    for name in sorted(streams):
        x = pool_modality(
            streams, name, model.dropout, model.audio_pooling, train=train
        )
        if model.projection_dim:
            x = project_modality(x, streams[name].present, model.projection_dim, name)
        vectors[name] = x
    return vectors
