"""Single modalities, late fusion and plain concatenation: CFN-SR's Table 1.

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
from mmfusion_jax.models.streams import encode, head, vector
from mmfusion_jax.ops.late_fusion import average, multiplicative, product
from mmfusion_jax.types import Batch, Outputs, PyTree

RULES = ("average", "product", "multiplicative")


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
        """Returns logits (b k); extras: the vector (b d), by its modality's name."""
        if len(self.encoders) != 1:
            raise ConfigError(
                "C22",
                f"Unimodal takes one encoder, but was given {sorted(self.encoders)}.",
                "keep one of them in config.model.encoders",
            )
        (name,) = self.encoders
        streams = encode(self.encoders, batch, train=train)
        x = vector(streams, name, self.dropout, self.audio_readout, train=train)
        return Outputs(head(x, self.head_size, f"head_{name}"), {name: x})


class LateFusion(nn.Module):
    """Every modality decides alone; a rule without parameters combines them.

    Parameters: `encoders_<modality>`, `head_<modality>`.

    Attributes:
        encoders: of any number of modalities.
        head_size: k.
        rule: "average" of probabilities, their "product", or "multiplicative".
        beta: of the rule "multiplicative".
        dropout: on the vector of audio.
        audio_readout: what a head sees of audio: "flat", "mean" or "moments".

    Source:
        CFN-SR, Table 1, "Averaging", "Multiplication" and "Multiplicative".
    Reading:
        Averaging and multiplication combine networks that were trained alone: take
        their weights with `graft`, or train with one cross-entropy per modality on
        "logits/<modality>". "multiplicative" is trained with the loss of that name;
        it scores each class as if it were the true one, and we normalise the scores.
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    rule: Literal["average", "product", "multiplicative"] = "average"
    beta: float = 0.3
    dropout: float = 0.4
    audio_readout: str = "flat"

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
        extras, logits = {}, []
        for name in sorted(streams):
            x = vector(streams, name, self.dropout, self.audio_readout, train=train)
            logits.append(head(x, self.head_size, f"head_{name}"))
            extras |= {name: x, f"logits/{name}": logits[-1]}
        present = [streams[name].present for name in sorted(streams)]
        together = jnp.stack(logits, axis=1), jnp.stack(present, axis=1)  # b m k, b m
        return Outputs(self._combine(*together), extras)

    def _combine(self, logits: jax.Array, present: jax.Array) -> jax.Array:
        """Log-probabilities (b k) by the rule."""
        if self.rule == "average":
            return average(logits, present)
        if self.rule == "product":
            return product(logits, present)
        if self.rule == "multiplicative":
            scores = multiplicative(logits, present, self.beta)
            return jax.nn.log_softmax(scores)
        raise ConfigError(
            "C03", f"rule={self.rule!r} is unknown.", nearest(self.rule, RULES)
        )


class ConcatFC(nn.Module):
    """The vectors of all modalities side by side, one hidden layer, one head.

    Parameters: `encoders_<modality>`, `hidden`, `head`.

    Attributes:
        encoders: of any number of modalities.
        head_size: k.
        width: of the hidden layer.
        dropout: on the vector of audio.
        audio_readout: what a head sees of audio: "flat", "mean" or "moments".
        hidden_dropout: on the hidden layer.

    Source:
        CFN-SR, Table 1, "Concat + FC".
    Reading:
        The rate on the hidden layer is given nowhere; we take that of the audio.
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    width: int = 256
    dropout: float = 0.4
    hidden_dropout: float = 0.4
    audio_readout: str = "flat"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Returns logits (b k); extras: each modality's vector (b d), by its name."""
        streams = encode(self.encoders, batch, train=train)
        vectors = {
            name: vector(streams, name, self.dropout, self.audio_readout, train=train)
            for name in sorted(streams)
        }
        joint = jnp.concatenate(list(vectors.values()), axis=-1)
        hidden = nn.relu(linear(joint.shape[-1], self.width, name="hidden")(joint))
        hidden = nn.Dropout(self.hidden_dropout, deterministic=not train)(hidden)
        return Outputs(head(hidden, self.head_size), vectors)


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
