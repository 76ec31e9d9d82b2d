"""Single modalities, late fusion and plain concatenation, as two papers have them.

All take the encoders of the fused model and give them the same parameter paths,
`encoders_<modality>`, so that a trained encoder can be moved between models.
"""

from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, nearest
from mmfusion_jax.layers.linear import linear
from mmfusion_jax.models.streams import align, encode, head, vector
from mmfusion_jax.ops.late_fusion import average, multiplicative, product, weighted
from mmfusion_jax.ops.masking import keep
from mmfusion_jax.types import Array, Batch, Outputs, PyTree, Streams

RULES = ("average", "product", "multiplicative", "learned")


class Unimodal(nn.Module):
    """One encoder and a linear layer.

    Parameters: `encoders_<modality>`, `head_<modality>`, as in LateFusion.

    Attributes:
        encoders: one modality and its encoder.
        head_size: k.
        dropout: on the vector of audio.
        audio_readout: what the head sees of audio: "flat", "mean" or "moments".

    Source:
        CFN-SR, Table 1, "3D ResNeXt50 (Vid.)" and "1D CNN (Aud.)".
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    dropout: float = 0.4
    audio_readout: str = "flat"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Returns logits (b k); extras: by its modality's name the vector (b d), and
        "logits/<modality>", the logits once more.
        """
        if len(self.encoders) != 1:
            raise ConfigError(
                "C22",
                f"Unimodal takes one encoder, but was given {sorted(self.encoders)}.",
                "keep one of them in config.model.encoders",
            )
        (name,) = self.encoders
        streams = encode(self.encoders, batch, train=train)
        x = vector(streams, name, self.dropout, self.audio_readout, train=train)
        logits = head(x, self.head_size, f"head_{name}")
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
        audio_readout: what a head sees of audio: "flat", "mean" or "moments".
        aligned: width to which every vector is brought first, see `align`; 0 for none.
        hidden: widths of hidden layers in front of every head.
        hidden_dropout: after each of them.

    Source:
        CFN-SR, Table 1, "Averaging", "Multiplication" and "Multiplicative";
        Hetero-Fusion-Net, Sec. 5.3, "Late Fusion": rule="learned", aligned=512,
        hidden=(512, 256), hidden_dropout=0.3, audio_readout="mean", dropout=0.
    Reading:
        Averaging and multiplication combine networks that were trained alone: take
        their weights with `graft`, or train with one cross-entropy per modality on
        "logits/<modality>". "multiplicative" is trained with the loss of that name;
        it scores each class as if it were the true one, and we normalise the scores.
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    rule: Literal["average", "product", "multiplicative", "learned"] = "average"
    beta: float = 0.3
    dropout: float = 0.4
    audio_readout: str = "flat"
    aligned: int = 0
    hidden: tuple[int, ...] = ()
    hidden_dropout: float = 0.0

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Classifies.

        Returns:
            Log-probabilities (b k); extras: by each modality's name its vector (b d),
            and "logits/<modality>", its own logits (b k).

        Raises:
            ConfigError: if the rule is unknown.
        """
        streams = encode(self.encoders, batch, train=train)
        extras, logits = _vectors(self, streams, train), []
        for name in sorted(streams):
            y = hidden_layers(
                extras[name], self.hidden, f"hidden_{name}", self.hidden_dropout, train
            )
            logits.append(head(y, self.head_size, f"head_{name}"))
            extras[f"logits/{name}"] = logits[-1]
        present = [streams[name].present for name in sorted(streams)]
        together = jnp.stack(logits, axis=1), jnp.stack(present, axis=1)  # b m k, b m
        return Outputs(self._combine(*together), extras)

    def _combine(self, logits: Array, present: Array) -> Array:
        """Log-probabilities (b k) by the rule."""
        if self.rule == "average":
            return average(logits, present)
        if self.rule == "product":
            return product(logits, present)
        if self.rule == "multiplicative":
            scores = multiplicative(logits, present, self.beta)
            return jax.nn.log_softmax(scores)
        if self.rule == "learned":
            said = keep(jax.nn.softmax(logits), present)
            said = said.reshape(len(said), -1)  # b m*k
            weigh = linear(said.shape[-1], present.shape[1], name="weigh")
            return weighted(logits, present, weigh(said))
        raise ConfigError(
            "C03", f"rule={self.rule!r} is unknown.", nearest(self.rule, RULES)
        )


class ConcatFC(nn.Module):
    """The vectors of all modalities side by side, hidden layers, one head.

    Parameters: `encoders_<modality>`, `hidden`, `head`; `align_<modality>` and
    `align_<modality>_norm`; `hidden_{i}`.

    Attributes:
        encoders: of any number of modalities.
        head_size: k.
        width: of the hidden layer.
        dropout: on the vector of audio.
        audio_readout: what a head sees of audio: "flat", "mean" or "moments".
        hidden_dropout: on the hidden layers.
        aligned: width to which every vector is brought first, see `align`; 0 for none.
        narrower: widths of further hidden layers.

    Source:
        CFN-SR, Table 1, "Concat + FC"; Hetero-Fusion-Net, Sec. 5.3, "Early Fusion":
        width=1024, narrower=(512, 256), aligned=512, hidden_dropout=0.3,
        audio_readout="mean", dropout=0.
    Reading:
        The rate on the hidden layer is given nowhere; we take that of the audio.
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    width: int = 256
    dropout: float = 0.4
    hidden_dropout: float = 0.4
    audio_readout: str = "flat"
    aligned: int = 0
    narrower: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Returns logits (b k); extras: each modality's vector (b d), by its name."""
        streams = encode(self.encoders, batch, train=train)
        vectors = _vectors(self, streams, train)
        joint = jnp.concatenate(list(vectors.values()), axis=-1)
        hidden = nn.relu(linear(joint.shape[-1], self.width, name="hidden")(joint))
        hidden = nn.Dropout(self.hidden_dropout, deterministic=not train)(hidden)
        hidden = hidden_layers(
            hidden, self.narrower, "hidden", self.hidden_dropout, train
        )
        return Outputs(head(hidden, self.head_size), vectors)


def hidden_layers(
    x: Array, widths: tuple[int, ...], name: str, dropout: float, train: bool
) -> Array:
    """Linear layers `<name>_{i}`, i from 1, each with ReLU and dropout; (b d)."""
    for i, width in enumerate(widths, start=1):
        x = nn.relu(linear(x.shape[-1], width, name=f"{name}_{i}")(x))
        x = nn.Dropout(dropout, deterministic=not train)(x)
    return x


def _vectors(
    model: LateFusion | ConcatFC, streams: Streams, train: bool
) -> dict[str, Array]:
    """The vector of every modality, (b d), aligned if the model asks for it."""
    found = {}
    for name in sorted(streams):
        x = vector(streams, name, model.dropout, model.audio_readout, train=train)
        if model.aligned:
            x = align(x, streams[name].present, model.aligned, name)
        found[name] = x
    return found


def count(params: PyTree, *, include_unused_heads: bool = False) -> int:
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
