"""Multimodal transfer module (MMTM)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.option_path import given_option, option_flag
from mmfusion_jax.layers.pooling import mean
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Modalities, Size
from mmfusion_jax.types import Streams


class MultimodalTransfer(nn.Module):
    """Scales the channels of every modality by gates computed from all modalities.

        z = relu(W [mean(X_1), .., mean(X_M)] + b)
        X_m = 2 sigmoid(W_m z + b_m) * X_m

    Parameters: `squeeze`, `excite_<modality>`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> mask = jnp.ones((2, 5), bool)
        >>> audio = mmf.Tokens(jnp.ones((2, 5, 4)), mask)
        >>> streams = {"audio": audio, "video": mmf.Tokens(jnp.ones((2, 5, 6)), mask)}
        >>> block = mmf.fusion.MultimodalTransfer(("audio", "video"))
        >>> y, variables = block.init_with_output(
        ...     jax.random.key(0), streams, train=False
        ... )
        >>> y["audio"].values.shape, y["video"].values.shape
        ((2, 5, 4), (2, 5, 6))

    Attributes:
        modality_order: Names of the streams, of any widths d_m.
        reduction: The width of z is 2 sum_m d_m / `reduction`.
        dtype: Dtype of the computation; None keeps the input's.

    Reference:
        Vaezi Joze et al. 2020, Sec. 3; CFN-SR, Table 1, "MMTM".
    Deviation:
        CFN-SR gives no sizes; `reduction` is the 4 of the MMTM paper. A missing
        modality has mean 0.
    """

    modality_order: Modalities
    reduction: Size = 4
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Scales the streams of `modality_order`, (b n d_m); others are unchanged.

        Raises:
            ConfigError: The width of z is 0.
        """
        del train
        joint = jnp.concatenate([mean(streams[m]) for m in self.modality_order], axis=1)
        width = 2 * joint.shape[1] // self.reduction
        if not width:
            raise ConfigError(
                "C10",
                f"{given_option(self, 'reduction')} of fusion block "
                f"'multimodal_transfer' leaves no channel of {joint.shape[1]:d}.",
                f"{option_flag(self, 'reduction', 2 * joint.shape[1])} or less",
            )
        squeeze = torch_dense(joint.shape[1], width, dtype=self.dtype, name="squeeze")
        z = nn.relu(squeeze(joint))
        fused = dict(streams)
        for m in self.modality_order:
            tokens = streams[m]
            x = zero_masked(tokens.values, tokens.mask)
            excite = torch_dense(
                width, x.shape[-1], dtype=self.dtype, name=f"excite_{m}"
            )
            gates = 2 * jax.nn.sigmoid(excite(z))[:, None]
            fused[m] = tokens.replace(values=x * gates.astype(x.dtype))
        return fused
