"""Vision transformer image encoder."""

from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import DataError
from mmfusion_jax.layers.attention import dense
from mmfusion_jax.layers.option_path import given_option
from mmfusion_jax.layers.transformer import layer_norm, transformer_stack
from mmfusion_jax.ops.image_normalization import HALF, frames, normalize_image
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Depth, Epsilon, Fraction, Heads, Size
from mmfusion_jax.types import Array, Tokens


class ViT(nn.Module):
    """Patch embeddings and a class token, then pre-norm transformer layers.

        z_0 = [e_class, W x_1 + b, .., W x_n + b] + E_position
        z_l = TransformerLayer_l(z_{l-1})
        tokens = LN(z_L)

    The defaults are those of vit-base-patch16. Parameters: `embed`, `first` (the class
    token), `place` (the position embeddings, which fix the image size), `layer_{i}`,
    `norm`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.ViT(
        ...     hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=16, patch_size=4
        ... )
        >>> image, mask = jnp.ones((2, 8, 8, 3)), jnp.ones((2, 8), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), image, mask, train=False
        ... )
        >>> tokens.values.shape
        (2, 5, 8)

    Attributes:
        hidden_dim: Width of the tokens, d.
        num_layers: Number of layers.
        num_heads: Number of attention heads of each layer.
        mlp_dim: Hidden width of the feed-forward networks.
        patch_size: Height and width of a patch.
        pooled: Return one token per image, the class token, rather than all.
        dropout: Dropout rate of z_0, attention weights and residual branches.
        epsilon: Epsilon of the normalizations.
        dtype: Dtype of the computation; None for float32.
        remat: Recompute the inside of a layer in the backward pass, see `apply_block`.

    Reference:
        Dosovitskiy et al. 2021; MCL-MCF, Table 9.
    """

    hidden_dim: Size = 768
    num_layers: Depth = 12
    num_heads: Heads = 12
    mlp_dim: Size = 3072
    patch_size: Size = 16
    pooled: bool = False
    dropout: Fraction = 0.0
    epsilon: Epsilon = 1e-12
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Encodes images, each separately.

        Args:
            values: (b t h w c), t images, or (b h w c), one; unsigned integers are
                pixels 0..255 and are normalized here, floats are unchanged.
            mask: (b t) bool; for one image (b h), valid if any row is.
            train: Apply dropout.

        Returns:
            Tokens (b t*n d), 0 where masked: for each image the class token, then
            n - 1 patches in row-major order; with `pooled` (b t d).

        Raises:
            DataError: The image size is not divisible by the patch size.
        """
        values, mask = frames(values, mask)
        b, t = mask.shape
        # Before the first layer: NaN in a missing image would be NaN in the gradient of
        # its kernel, although the gradient of its output is 0.
        x = zero_masked(normalize_image(values, HALF), mask)
        x = self._embed(self._patches(x.reshape(b * t, *x.shape[2:])), train)
        # Every image is a separate sequence, whose tokens are all valid or all masked.
        valid = jnp.repeat(mask.reshape(b * t, 1), x.shape[1], axis=1)
        tokens = transformer_stack(
            Tokens(x, valid),
            self.num_layers,
            self.num_heads,
            train=train,
            dropout=self.dropout,
            mlp_dim=self.mlp_dim,
            dtype=self.dtype,
            epsilon=self.epsilon,
            kernel_init=nn.initializers.truncated_normal(0.02),
            remat=self.remat,
        )
        # Before the normalization, which is per token: the others are not needed.
        if self.pooled:
            tokens = Tokens(tokens.values[:, :1], valid[:, :1])
        x = layer_norm(self.dtype, "norm", self.epsilon)(tokens.values)
        x = einops.rearrange(zero_masked(x, tokens.mask), "(b t) n d -> b (t n) d", b=b)
        return Tokens(x, tokens.mask.reshape(b, -1))

    def _patches(self, x: Array) -> Array:
        """Splits images (b h w c) into patches (b n p*p*c)."""
        p, (h, w) = self.patch_size, x.shape[1:3]
        if h % p or w % p:
            raise DataError(
                "D13",
                f"image size {h:d}x{w:d} must be divisible by "
                f"{given_option(self, 'patch_size')}.",
                "use images of another size, or another patch_size",
            )
        return einops.rearrange(x, "b (h i) (w j) c -> b (h w) (i j c)", i=p, j=p)

    def _embed(self, patches: Array, train: bool) -> Array:
        """Returns z_0, (b n d)."""
        init = nn.initializers.truncated_normal(0.02)
        x = dense(self.hidden_dim, init, dtype=self.dtype, name="embed")(patches)
        # The initializer is that of the released code, also for the embeddings.
        first = self.param("first", init, (1, 1, self.hidden_dim)).astype(x.dtype)
        first = jnp.broadcast_to(first, (len(x), 1, self.hidden_dim))
        x = jnp.concatenate([first, x], axis=1)
        x = x + self.param("place", init, (1, *x.shape[1:])).astype(x.dtype)
        return nn.Dropout(self.dropout, deterministic=not train)(x)
