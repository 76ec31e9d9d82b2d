"""Graph attention over modalities (MEA)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.layers.linear import zero_bias_dense
from mmfusion_jax.ops.masking import masked_softmax, zero_masked
from mmfusion_jax.types import Array


class GraphFusion(nn.Module):
    """Graph attention over the modalities, followed by a sum over nodes.

        delta_ij = Q [W h_i, W h_j] + b                               (17)
        xi_ij = softmax_j(gelu(delta_ij)), j in N_i                   (18)
        h_fin = sum_i sigmoid(sum_j xi_ij W h_j)                      (19)

    N_i are the other nodes that are present.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> nodes = jnp.ones((2, 3, 8))
        >>> present = jnp.array([[True, True, True], [True, False, True]])
        >>> block = mmf.fusion.GraphFusion()
        >>> fused, variables = block.init_with_output(jax.random.key(0), nodes, present)
        >>> fused.shape
        (2, 8)

    Attributes:
        self_loops: N_i also contains i.
        dtype: Dtype of the computation except the softmax; None keeps the input's.

    Reference:
        MEA, Sec. III-F, Eq. 17-19.
    Deviation:
        A node without neighbors, the only modality of an example, has a self-loop; by
        Eq. 19 it would otherwise be lost.
    """

    self_loops: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, nodes: Array, present: Array) -> Array:
        """Fuses the nodes.

        Args:
            nodes: (b m d), finite but arbitrary where absent.
            present: (b m) bool.

        Returns:
            (b d); 0 if no node is present.
        """
        _, m, width = nodes.shape
        project = zero_bias_dense(
            width, use_bias=False, dtype=self.dtype, name="project"
        )
        x = project(zero_masked(nodes, present))
        shape = (*x.shape[:1], m, m, width)
        rows, columns = jnp.expand_dims(x, 2), jnp.expand_dims(x, 1)
        pairs = [jnp.broadcast_to(y, shape) for y in (rows, columns)]
        strength = zero_bias_dense(1, dtype=self.dtype, name="strength")
        delta = strength(jnp.concatenate(pairs, axis=-1))[..., 0]  # b i j
        delta = delta.astype(jnp.promote_types(delta.dtype, jnp.float32))

        weights = masked_softmax(
            nn.gelu(delta, approximate=False), self._neighbors(present), axis=-1
        )
        self.sow("intermediates", "weights", weights)
        gathered = jnp.einsum("bij,bjd->bid", weights.astype(x.dtype), x)
        return jnp.sum(zero_masked(jax.nn.sigmoid(gathered), present), axis=1)

    def _neighbors(self, present: Array) -> Array:
        """N_i, (b i j) bool."""
        own = jnp.eye(present.shape[1], dtype=bool)
        # Counted per example: which modalities are missing differs within a batch.
        alone = jnp.sum(present, axis=1, dtype=jnp.int32) < 2
        loops = own & (alone[:, None, None] | self.self_loops)
        return (loops | ~own) & present[:, None, :]
