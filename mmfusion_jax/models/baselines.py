"""Single modalities, late fusion and plain concatenation, as two papers have them.

All take the encoders of the fused model and give them the same parameter paths,
`encoders_<modality>`, so that a trained encoder can be moved between models.
"""

from collections.abc import Mapping
from typing import Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, suggest
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.models.common import (
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
from mmfusion_jax.types import Array, Batch, Outputs, PyTree, Streams

RULES = ("average", "product", "multiplicative", "learned")


class Unimodal(nn.Module):
    """One encoder and a linear layer.

    Parameters: `encoders_<modality>`, `head_<modality>`, as in LateFusion.

    Attributes:
        encoders: one modality and its encoder.
        head_size: k.
        dropout: on the vector of audio.
        audio_pooling: what the head sees of audio: "flat", "mean" or "moments".
        modality: the one that is encoded; "" for the only one of `encoders`.

    Reference:
        CFN-SR, Table 1, "3D ResNeXt50 (Vid.)" and "1D CNN (Aud.)".
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    dropout: float = 0.4
    audio_pooling: str = "flat"
    modality: str = ""

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Returns logits (b k), or a score (b) where `head_size` is 1.

        Auxiliary outputs: by its modality's name the vector (b d), and "logits/<modality>", the
        prediction once more.

        Raises:
            ConfigError: there is not one encoder, or it is not that of `modality`.
        """
        names = sorted(self.encoders)
        if len(names) != 1 or self.modality not in ("", *names):
            raise ConfigError(
                "C22",
                f"unimodal with modality={self.modality!r} was given encoders for "
                f"{', '.join(names) or 'no modality'}.",
                f"--config.model.modality={'|'.join(names)}",
            )
        (name,) = names
        streams = encode(self.encoders, batch, train=train)
        x = pool_modality(streams, name, self.dropout, self.audio_pooling, train=train)
        logits = prediction_head(x, self.head_size, f"head_{name}")
        return Outputs(logits, {name: x, f"logits/{name}": logits})


class LateFusion(nn.Module):
    """Every modality decides alone; a rule combines them.

    Parameters: `encoders_<modality>`, `head_<modality>`; `align_<modality>` and
    `align_<modality>_norm`; `hidden_<modality>_{i}`; `weigh`.

    Attributes:
        encoders: of any number of modalities.
        head_size: k.
        rule: "average" of probabilities, their "product", "multiplicative", or
            "learned": an average whose weights are a linear layer and softmax of all
            probabilities.
        beta: of the rule "multiplicative".
        dropout: on the vector of audio.
        audio_pooling: what a head sees of audio: "flat", "mean" or "moments".
        projection_dim: width to which every vector is brought first, see `align`; 0 for
            none.
        hidden_dims: widths of hidden layers in front of every head.
        flags: the logits are pairs of no and yes, and each pair is combined by itself.
        hidden_dropout: after each of them.

    Reference:
        CFN-SR, Table 1, "Averaging", "Multiplication" and "Multiplicative";
        Hetero-Fusion-Net, Sec. 5.3, "Late Fusion": rule="learned", aligned=512,
        hidden_dims=(512, 256), hidden_dropout=0.3, audio_readout="mean", dropout=0.
    Deviation:
        Averaging and multiplication combine networks that were trained alone: take
        their weights with `copy_submodules`, or train with one cross-entropy per
        modality on "logits/<modality>". "multiplicative" is trained with the loss of
        that name; it scores each class as if it were the true one, and we normalize the
        scores. The papers combine classes. Scores are combined by "average", their
        mean, and by "learned", a mean whose weights are a linear layer and softmax of
        all scores; the other rules have no meaning for them.
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    rule: Literal["average", "product", "multiplicative", "learned"] = "average"
    beta: float = 0.3
    dropout: float = 0.4
    audio_pooling: str = "flat"
    projection_dim: int = 0
    hidden_dims: tuple[int, ...] = ()
    hidden_dropout: float = 0.0
    flags: bool = False

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Predicts.

        Returns:
            Log-probabilities (b k), or a score (b) where `head_size` is 1; aux: by
            each modality's name its vector (b d), and "logits/<modality>", its own
            logits (b k) or score (b).

        Raises:
            ConfigError: if the rule is unknown, or not one for scores.
        """
        streams = encode(self.encoders, batch, train=train)
        aux, logits = _vectors(self, streams, train), []
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
        together = jnp.stack(logits, axis=1), jnp.stack(present, axis=1)
        if self.head_size == 1:
            return Outputs(self._mean(*together), aux)
        if self.flags:
            return Outputs(self._by_flag(*together), aux)
        return Outputs(self._combine(*together), aux)

    def _mean(self, scores: Array, present: Array) -> Array:
        """The score (b) of scores (b m) by the rule."""
        if self.rule == "average":
            return mean_score(scores, present, jnp.zeros_like(scores))
        if self.rule == "learned":
            weigh = torch_dense(scores.shape[1], scores.shape[1], name="weigh")
            return mean_score(scores, present, weigh(zero_masked(scores, present)))
        raise ConfigError(
            "C03",
            f"config.model.rule={self.rule!r} combines classes, not scores.",
            "--config.model.rule=average, or learned",
        )

    def _by_flag(self, logits: Array, present: Array) -> Array:
        """Log-probabilities (b 2j) of pairs of logits (b m 2j), each pair by itself."""
        pairs = einops.rearrange(logits, "b m (j k) -> (b j) m k", k=2)
        there = jnp.repeat(present, self.head_size // 2, axis=0)
        combined = self._combine(pairs, there)
        return einops.rearrange(combined, "(b j) k -> b (j k)", b=len(logits))

    def _combine(self, logits: Array, present: Array) -> Array:
        """Log-probabilities (b k) of logits (b m k) by the rule."""
        if self.rule == "average":
            return average(logits, present)
        if self.rule == "product":
            return product(logits, present)
        if self.rule == "multiplicative":
            scores = multiplicative(logits, present, self.beta)
            return jax.nn.log_softmax(scores)
        if self.rule == "learned":
            said = zero_masked(jax.nn.softmax(logits), present)
            said = said.reshape(len(said), -1)  # b m*k
            weigh = torch_dense(said.shape[-1], present.shape[1], name="weigh")
            return weighted(logits, present, weigh(said))
        raise ConfigError(
            "C03", f"rule={self.rule!r} is unknown.", suggest(self.rule, RULES)
        )


class ConcatFC(nn.Module):
    """The vectors of all modalities side by side, hidden layers, one head.

    Parameters: `encoders_<modality>`, `hidden`, `head`; `align_<modality>` and
    `align_<modality>_norm`; `hidden_{i}`.

    Attributes:
        encoders: of any number of modalities.
        head_size: k.
        hidden_dims: widths of the hidden layers, one at least.
        dropout: on the vector of audio.
        audio_pooling: what a head sees of audio: "flat", "mean" or "moments".
        hidden_dropout: on the hidden layers.
        projection_dim: width to which every vector is brought first, see `align`; 0 for
            none.

    Reference:
        CFN-SR, Table 1, "Concat + FC"; Hetero-Fusion-Net, Sec. 5.3, "Early Fusion":
        hidden_dims=(1024, 512, 256), aligned=512, hidden_dropout=0.3,
        audio_readout="mean", dropout=0.
    Deviation:
        The rate on the hidden layer is given nowhere; we take that of the audio.
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    hidden_dims: tuple[int, ...] = (256,)
    dropout: float = 0.4
    hidden_dropout: float = 0.4
    audio_pooling: str = "flat"
    projection_dim: int = 0

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Returns logits (b k), or a score (b) where `head_size` is 1.

        Auxiliary outputs: each modality's vector (b d), by its name.

        Raises:
            ConfigError: there is no hidden layer.
        """
        if not self.hidden_dims:
            raise ConfigError(
                "C10",
                "config.model.hidden_dims=() leaves concat_fc without a hidden layer.",
                "--config.model.hidden_dims=256",
            )
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
    """Linear layers `<name>_{i}`, i from 1, each with ReLU and dropout; (b d)."""
    for i, width in enumerate(widths, start=1):
        x = nn.relu(torch_dense(x.shape[-1], width, name=f"{name}_{i}")(x))
        x = nn.Dropout(dropout, deterministic=not train)(x)
    return x


def _vectors(
    model: LateFusion | ConcatFC, streams: Streams, train: bool
) -> dict[str, Array]:
    """The vector of every modality, (b d), aligned if the model asks for it."""
    found = {}
    for name in sorted(streams):
        x = pool_modality(
            streams, name, model.dropout, model.audio_pooling, train=train
        )
        if model.projection_dim:
            x = project_modality(x, streams[name].present, model.projection_dim, name)
        found[name] = x
    return found


def count_parameters(params: PyTree, *, include_unused_heads: bool = False) -> int:
    """Number of parameters of a ConcatFC model.

    Args:
        params: its parameters, or their shapes.
        include_unused_heads: add the heads of the single modalities, which the paper
            counts although nothing reads them: 26.87M in Table 1 instead of 26.84M.
    """
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    if not include_unused_heads:
        return total
    inputs, classes = params["hidden"]["kernel"].shape[0], params["head"]["bias"].size
    modalities = sum(name.startswith("encoders_") for name in params)
    return total + (inputs + modalities) * classes
