"""Images as networks read them."""

from collections.abc import Sequence

import jax.numpy as jnp

from mmfusion_jax.types import Array

Statistics = tuple[Sequence[float], Sequence[float]]
IMAGENET: Statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINETICS: Statistics = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
HALF: Statistics = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def normalize_image(values: Array, statistics: Statistics) -> Array:
    """Unsigned integers, pixels 0..255, as floats around 0; floats as they are.

    Args:
        values: (... c).
        statistics: mean and standard deviation of red, green and blue, of 0..1; with
            another number of channels both are 0.5.
    """
    if not jnp.issubdtype(values.dtype, jnp.unsignedinteger):
        return values
    mean, std = (
        jnp.array(x if values.shape[-1] == 3 else 0.5, jnp.float32) for x in statistics
    )
    return (values / 255.0 - mean) / std


def frames(values: Array, mask: Array) -> tuple[Array, Array]:
    """One image as a clip of one step; clips as they are.

    Args:
        values: (b t h w c), or (b h w c), one image.
        mask: (b t) bool; of one image (b h), which is real if a row is.

    Returns:
        Values (b t h w c) and mask (b t).
    """
    if values.ndim == 5:
        return values, mask
    return values[:, None], jnp.any(mask, axis=1)[:, None]
