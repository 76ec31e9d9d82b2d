"""Layer normalization without parameters."""

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array


def layer_normalize(x: Array, epsilon: float = 1e-5) -> Array:
    """Normalizes `x` (... d) to mean 0 and variance 1 over its last axis.

    Computed in float32 or wider, and returned in the dtype of `x`.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> print(np.asarray(mmf.ops.layer_normalize(jnp.array([[1.0, 3.0]]))).round(2))
        [[-1.  1.]]

    Reference:
        Ba et al. 2016.
    """
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centered = exact - jnp.mean(exact, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
    return (centered * jax.lax.rsqrt(variance + epsilon)).astype(x.dtype)
