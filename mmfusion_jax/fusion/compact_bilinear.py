"""Multimodal compact bilinear pooling (MCBP)."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.layers.pooling import mean
from mmfusion_jax.ops.compact_bilinear import (
    compact_bilinear,
    count_sketch,
    random_hash,
    signed_root_norm,
)
from mmfusion_jax.option_types import Modalities, Name, Seed, Size
from mmfusion_jax.types import Streams, Tokens


class CompactBilinear(nn.Module):
    """Sketch of the outer product of the mean tokens of all modalities.

        s_m = count sketch of x_m
        y = IFFT(prod_m FFT(s_m)),   y = sign(y) sqrt(|y|) / || sign(y) sqrt(|y|) ||

    Parameters: none; the hash of every modality is drawn from `seed`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> key, mask = jax.random.key(0), jnp.ones((2, 5), bool)
        >>> audio = mmf.Tokens(jnp.ones((2, 5, 4)), mask)
        >>> streams = {"audio": audio, "video": mmf.Tokens(jnp.ones((2, 5, 6)), mask)}
        >>> block = mmf.fusion.CompactBilinear(("audio", "video"), sketch_dim=16)
        >>> fused, variables = block.init_with_output(key, streams, train=False)
        >>> fused["joint"].values.shape
        (2, 1, 16)

    Attributes:
        modality_order: Names of the streams, of any widths.
        sketch_dim: Elements of a sketch.
        seed: Seed of the hashes, which are the same in every run.
        target: Name of the added stream.
        one_token: True: `Fused` pools the modalities before this block.

    Reference:
        Fukui et al. 2016, Sec. 3.1-3.2; CFN-SR, Table 1, "MCBP".
    Deviation:
        A missing modality is left out of the product. 1e-6 is added below the roots,
        whose gradient is infinite at 0.
    """

    one_token: ClassVar[bool] = True

    modality_order: Modalities
    sketch_dim: Size = 8000
    seed: Seed = 0
    target: Name = "joint"

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Adds the stream `target`, (b 1 sketch_dim)."""
        del train
        sketches = []
        for i, m in enumerate(self.modality_order):
            x = mean(streams[m])
            # The Fourier transform does not accept bfloat16.
            x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            index, sign = random_hash(x.shape[-1], self.sketch_dim, (self.seed, i))
            sketches.append(count_sketch(x, index, sign, self.sketch_dim))
        present = jnp.stack([streams[m].present for m in self.modality_order], axis=1)
        y = signed_root_norm(compact_bilinear(jnp.stack(sketches, axis=1), present))
        y = y.astype(streams[self.modality_order[0]].values.dtype)
        some = jnp.any(present, axis=1)[:, None]
        return {**streams, self.target: Tokens(y[:, None], some)}
