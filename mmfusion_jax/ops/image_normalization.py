"""Image normalization."""

from collections.abc import Sequence

import jax.numpy as jnp

from mmfusion_jax.types import Array

Statistics = tuple[Sequence[float], Sequence[float]]
IMAGENET: Statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINETICS: Statistics = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
HALF: Statistics = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def normalize_image(values: Array, statistics: Statistics) -> Array:
    """Normalizes unsigned integer pixels 0..255; floats are unchanged.

    Args:
        values: (... c).
        statistics: Mean and standard deviation of red, green and blue in 0..1; with
            another number of channels both are 0.5.
    """
    if not jnp.issubdtype(values.dtype, jnp.unsignedinteger):
        return values
    mean, std = (
        jnp.array(x if values.shape[-1] == 3 else 0.5, jnp.float32) for x in statistics
    )
    return (values / 255.0 - mean) / std


def frames(values: Array, mask: Array) -> tuple[Array, Array]:
    """Converts an image to a clip of one frame; clips are unchanged.

    Args:
        values: (b t h w c), or (b h w c) for one image.
        mask: (b t) bool; for one image (b h), valid if any row is.

    Returns:
        Values (b t h w c) and mask (b t).
    """
    if values.ndim == 5:
        return values, mask
    return values[:, None], jnp.any(mask, axis=1)[:, None]
