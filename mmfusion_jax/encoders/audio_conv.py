"""1D CNN over acoustic features (CFN-SR)."""

from typing import Any, ClassVar

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import DataError
from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.layers.linear import torch_uniform
from mmfusion_jax.layers.option_path import given_option
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Fraction, Size
from mmfusion_jax.types import Array, Tokens

PADDING = 2


class AudioConv(nn.Module):
    """Three convolutions over time with one pooling layer.

        x = BN(ReLU(Conv(x, 7)))                                    (1)
        x = Dropout(BN(MaxPool(ReLU(Conv(x, 7)))))                  (2)
        x = BN(ReLU(Conv(x, 5)))                                    (3)

    212 steps become 26 tokens, as do 213 to 219.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.AudioConv(hidden_dim=8, pool=4)
        >>> mfcc, mask = jnp.ones((2, 20, 13)), jnp.ones((2, 20), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), mfcc, mask, train=False
        ... )
        >>> tokens.values.shape
        (2, 4, 8)

    Attributes:
        hidden_dim: Width of the tokens.
        channels: Output channels of the first two convolutions.
        pool: Number of steps per token.
        dropout: Dropout rate in Eq. 2.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        dtype: Dtype of the computation; None keeps the input's.
        inner_site: True: `until_site` and `from_site` work. The site is after the
            second convolution, before the pooling.

    Reference:
        CFN-SR, Sec. 2.1, Eq. 1-3.
    Deviation:
        Sizes are those of the released code: kernels 7, 7, 5 and zero padding of 2, so
        each kernel of 7 loses 2 steps. Eq. 2 omits the convolution and its ReLU, which
        are in the text. Eq. 3 flattens; we return tokens, and `layers.pooling.flatten`
        flattens them.
    """

    inner_site: ClassVar[bool] = True

    hidden_dim: Size = 64
    channels: Size = 32
    pool: Size = 8
    dropout: Fraction = 0.2
    axis: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        values: Array,
        mask: Array,
        *,
        train: bool,
        until_site: bool = False,
        from_site: Tokens | None = None,
    ) -> Tokens:
        """Encodes acoustic frames.

        Args:
            values: (b t f), such as 13 MFCC a frame.
            mask: (b t) bool.
            train: Apply dropout and use the statistics of the batch.
            until_site: Return the tokens of the inner site, (b t-4 channels).
            from_site: Tokens of the inner site from which the encoding continues,
                instead of `values`.

        Returns:
            Tokens (b n d), n = (t - 4) // pool. A token is valid if all frames of its
            window are, so a padded clip has the tokens of the unpadded clip.

        Raises:
            DataError: The clip is too short for one token.
        """
        if values.shape[1] < self.pool + 4:
            raise DataError(
                "D13",
                f"audio too short: {values.shape[1]} steps, but audio_cnn with "
                f"{given_option(self, 'pool')} needs at least {self.pool + 4:d} steps.",
                "use longer clips, or a smaller pool",
            )
        if from_site is None:
            site = self._until_site(values, mask, train)
            if until_site:
                return site
        else:
            site = from_site

        x, mask = _max_pool(site.values, site.mask, self.pool)
        x = self._normalize(x, mask, train, "bn2")
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x, mask = self._convolve(x, mask, self.hidden_dim, 5, "conv3")
        return Tokens(self._normalize(x, mask, train, "bn3"), mask)

    def _until_site(self, values: Array, mask: Array, train: bool) -> Tokens:
        """Returns the tokens after the second convolution and its ReLU."""
        values = values.astype(self.dtype or jnp.promote_types(values.dtype, float))
        x, mask = self._convolve(values, mask, self.channels, 7, "conv1")
        x = self._normalize(x, mask, train, "bn1")
        return Tokens(*self._convolve(x, mask, self.channels, 7, "conv2"))

    def _convolve(
        self, x: Array, mask: Array, features: int, size: int, name: str
    ) -> tuple[Array, Array]:
        """Applies a convolution and ReLU; also returns the mask of the output."""
        init = torch_uniform(size * x.shape[-1])
        convolve = nn.Conv(
            features,
            (size,),
            padding=PADDING,
            dtype=self.dtype,
            kernel_init=init,
            bias_init=init,
            name=name,
        )
        lost = size - 1 - 2 * PADDING
        last = mask.shape[1] - lost
        # The convolution loses `lost` steps: step i of the output is centered between
        # the steps i and i + lost of the input, and valid if both are.
        return nn.relu(convolve(zero_masked(x, mask))), mask[:, :last] & mask[:, lost:]

    def _normalize(self, x: Array, mask: Array, train: bool, name: str) -> Array:
        return BatchNorm(self.axis, dtype=self.dtype, name=name)(x, mask, train=train)


def _max_pool(x: Array, mask: Array, size: int) -> tuple[Array, Array]:
    """Maxima over windows of `size` steps; a window is valid if all its steps are."""
    n = x.shape[1] // size
    windows = einops.rearrange(x[:, : n * size], "b (n size) d -> b n size d", n=n)
    valid = einops.rearrange(mask[:, : n * size], "b (n size) -> b n size", n=n)
    return jnp.max(windows, axis=2), jnp.all(valid, axis=2)
