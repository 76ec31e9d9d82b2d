"""Examines the streams of a trained model: do they depend on the example?"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from mmfusion_jax.layers.pooling import mean
from mmfusion_jax.types import Array, Batch, Model, PyTree, Tokens

INTERMEDIATES, METHOD = "intermediates", "__call__"
"""Collection in which Flax stores the outputs of submodules, and their entry in it."""

ENCODER_PREFIX = "encoders_"
JOINT = "joint"
"""Name of a stream of all modalities, as the fusion blocks call it."""

Moments = Mapping[str, Array]


def stream_moments(model: Model, variables: PyTree, batch: Batch) -> dict[str, Moments]:
    """Computes moments of the mean token of every stream, over the examples.

    Streams are the outputs of the encoders, such as "audio", and what every other
    submodule of the model makes of a modality, such as "alignment/audio". A stream
    that a submodule passes through is left out.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> mask = jnp.ones((2, 1), bool)
        >>> batch = mmf.Batch({"audio": jnp.eye(2)[:, None]}, {"audio": mask})
        >>> model = mmf.models.Unimodal({"audio": mmf.encoders.Precomputed()}, 2)
        >>> variables = model.init(jax.random.key(0), batch, train=False)
        >>> moments = mmf.analysis.stream_moments(model, variables, batch)
        >>> mmf.analysis.varying_energy([moments["audio"]])
        0.5

    Args:
        model: Maps a Batch to Outputs; a Linen module, or one in a wrapper.
        variables: Its variables.
        batch: Examples; padding rows count for nothing.

    Returns:
        Stream -> "count" (), the number of examples that have it, "total" (d), the sum
        of their mean tokens, and "square" (), the sum of the squared norms of these.
    """
    _, updated = model.apply(
        variables,
        batch,
        train=False,
        mutable=[INTERMEDIATES],
        capture_intermediates=_is_direct_child,
    )
    names = {*batch.inputs, JOINT}
    streams: dict[str, Tokens] = {}
    for module, entries in updated.get(INTERMEDIATES, {}).items():
        outputs = entries.get(METHOD, (None,))[-1]
        if isinstance(outputs, Tokens):
            streams[module.removeprefix(ENCODER_PREFIX)] = outputs
        elif isinstance(outputs, Mapping):
            new = {
                k: v for k, v in outputs.items() if k in names and _is_new(v, streams)
            }
            streams |= {f"{module}/{name}": tokens for name, tokens in new.items()}
    return {name: _moments(tokens, batch) for name, tokens in streams.items()}


def varying_energy(parts: Sequence[Moments]) -> float:
    """Returns the fraction of the energy of a stream that differs between examples.

        sum_i |x_i - mean_k x_k|^2 / sum_i |x_i|^2,  x_i the mean token of example i

    It is 0 for a stream that is the same for every example, and for one that is 0; see
    `ops.varying_energy`, which has all examples at once.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> moments = {"count": 2.0, "total": np.array([1.0, 1.0]), "square": 2.0}
        >>> mmf.analysis.varying_energy([moments])
        0.5

    Args:
        parts: Results of `stream_moments` for one stream, one for each batch.

    Returns:
        0..1; NaN if fewer than two examples have the stream.
    """
    count, total, square = (
        np.sum([np.asarray(part[name], np.float64) for part in parts], axis=0)
        for name in ("count", "total", "square")
    )
    if count < 2:
        return float("nan")
    if not square > 0:
        return 0.0
    return float(np.clip(1 - np.sum(total**2) / (count * square), 0, 1))


def leave_out(batch: Batch, modality: str) -> Batch:
    """Returns a batch in which all examples lack a modality; "" changes nothing.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> mask = np.ones((2, 5), bool)
        >>> batch = mmf.Batch({"audio": np.ones((2, 5, 3))}, {"audio": mask})
        >>> left = mmf.analysis.leave_out(batch, "audio")
        >>> left.has_modalities("audio").tolist()
        [False, False]
    """
    if not modality:
        return batch
    missing = np.zeros_like(batch.masks[modality])
    return batch.replace(masks={**batch.masks, modality: missing})


def _is_direct_child(module: Any, method: str) -> bool:
    """Returns whether Flax is to store the output of a method of a submodule."""
    return method == METHOD and len(module.path) == 1


def _is_new(tokens: Any, streams: Mapping[str, Tokens]) -> bool:
    """Returns whether a stream is not one that a submodule before returned."""
    known = (stream.values is tokens.values for stream in streams.values())
    return isinstance(tokens, Tokens) and not any(known)


def _moments(tokens: Tokens, batch: Batch) -> Moments:
    """Moments of the mean tokens of the examples that have the stream."""
    present = tokens.present & (batch.weight > 0)
    x = jnp.where(present[:, None], mean(tokens).astype(jnp.float32), 0)
    return {
        "count": jnp.sum(present, dtype=jnp.float32),
        "total": jnp.sum(x, axis=0),
        "square": jnp.sum(jnp.square(x)),
    }
