"""Mean modality weights of a model."""

from collections.abc import Mapping

import numpy as np

from mmfusion_jax.types import WEIGHT_PREFIX


def mean_modality_weights(collected: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Averages the modality weights over examples.

        mean_i g_im / sum_j g_ij

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> collected = {
        ...     "weight/audio": np.array([0.25, 0.5]),
        ...     "weight/video": np.array([0.75, 0.5]),
        ... }
        >>> mmf.analysis.mean_modality_weights(collected)
        {'audio': 0.375, 'video': 0.625}

    Args:
        collected: Arrays collected by an evaluation step; "weight/<modality>" (n).

    Returns:
        Modality -> mean over the examples with at least one modality. Empty if there
        are none, and for a model without modality weights.
    """
    names = [name for name in collected if name.startswith(WEIGHT_PREFIX)]
    if not names:
        return {}
    rows = np.stack([collected[name] for name in names], axis=1).astype(np.float64)
    # An example without any modality has no weights to average.
    rows = rows[rows.sum(axis=1) > 0]
    if not len(rows):
        return {}
    means = rows.mean(axis=0).tolist()
    return {k.removeprefix(WEIGHT_PREFIX): v for k, v in zip(names, means, strict=True)}
