"""BERT text encoder, with the layers and defaults of bert-base-uncased."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.attention import dense
from mmfusion_jax.layers.option_path import given_option, option_flag
from mmfusion_jax.layers.pooling import first
from mmfusion_jax.layers.transformer import layer_norm, transformer_stack
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Depth, Epsilon, Fraction, Heads, Size
from mmfusion_jax.types import Array, Tokens


class Bert(nn.Module):
    """Token, position and type embeddings, then post-norm transformer layers.

        z_0 = LN(E_token + E_position + E_type)
        z_l = TransformerLayer_l(z_{l-1})

    The defaults are those of bert-base-uncased. Parameters: `piece`, `place`,
    `segment` (the embeddings), `norm`, `layer_{i}`, and `pool` with pooled=True.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.Bert(
        ...     hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=16, vocab_size=9
        ... )
        >>> ids, mask = jnp.ones((2, 5), int), jnp.ones((2, 5), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), ids, mask, train=False
        ... )
        >>> tokens.values.shape
        (2, 5, 8)

    Attributes:
        hidden_dim: Width of the tokens, d.
        num_layers: Number of layers.
        num_heads: Number of attention heads of each layer.
        mlp_dim: Hidden width of the feed-forward networks.
        vocab_size: Vocabulary size.
        max_position_embeddings: Maximum number of tokens.
        type_vocab_size: Rows of the embedding of token types, as in the checkpoint; all
            tokens are of type 0.
        pooled: Return one token, tanh(W z + b) of the first, rather than all.
        dropout: Dropout rate of z_0, attention weights and residual branches.
        epsilon: Epsilon of the normalizations.
        dtype: Dtype of the computation; None for float32.
        remat: Recompute the inside of a layer in the backward pass, see `apply_block`.

    Reference:
        Devlin et al. 2019; MCL-MCF, Eq. 1; Hetero-Fusion-Net, Sec. 5.2.
    """

    hidden_dim: Size = 768
    num_layers: Depth = 12
    num_heads: Heads = 12
    mlp_dim: Size = 3072
    vocab_size: Size = 30522
    max_position_embeddings: Size = 512
    type_vocab_size: Size = 2
    pooled: bool = False
    dropout: Fraction = 0.1
    epsilon: Epsilon = 1e-12
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Encodes sentences.

        Args:
            values: (b t) integer token ids.
            mask: (b t) bool.
            train: Apply dropout.

        Returns:
            Tokens (b t d), 0 where masked; (b 1 d) with pooled=True.

        Raises:
            ConfigError: The values are not token ids, or the text is too long.
        """
        self._check(values)
        tokens = Tokens(self._embed(values, mask, train), mask)
        # BERT's initializer of matrices and embeddings, instead of the default, Xavier.
        init = nn.initializers.normal(0.02)
        tokens = transformer_stack(
            tokens,
            self.num_layers,
            self.num_heads,
            train=train,
            dropout=self.dropout,
            mlp_dim=self.mlp_dim,
            dtype=self.dtype,
            pre_norm=False,
            epsilon=self.epsilon,
            kernel_init=init,
            remat=self.remat,
        )
        tokens = tokens.replace(values=zero_masked(tokens.values, mask))
        if not self.pooled:
            return tokens
        pool = dense(self.hidden_dim, init, dtype=self.dtype, name="pool")
        pooled = jnp.tanh(pool(first(tokens)))[:, None]
        return Tokens(zero_masked(pooled, tokens.present), tokens.present[:, None])

    def _embed(self, ids: Array, mask: Array, train: bool) -> Array:
        """Returns z_0, (b t d), from token ids, (b t)."""

        def embedding(size: int, name: str) -> nn.Embed:
            init = nn.initializers.normal(0.02)
            return nn.Embed(
                size, self.hidden_dim, self.dtype, embedding_init=init, name=name
            )

        # The embedding of an id beyond the vocabulary is NaN, which a masked id may be.
        ids = zero_masked(ids, mask)
        # The position is the index, as texts are padded at the end.
        positions = jnp.arange(mask.shape[1])
        x = embedding(self.vocab_size, "piece")(ids)
        x = x + embedding(self.max_position_embeddings, "place")(positions)
        # Type 0 for all, but not left out: its embedding was added in pretraining.
        x = x + embedding(self.type_vocab_size, "segment")(jnp.zeros_like(ids))
        x = layer_norm(self.dtype, "norm", self.epsilon)(x)
        return nn.Dropout(self.dropout, deterministic=not train)(x)

    def _check(self, values: Array) -> None:
        """Raises ConfigError unless the values are token ids, and not too many."""
        if values.ndim != 2 or not jnp.issubdtype(values.dtype, jnp.integer):
            raise ConfigError(
                "C26",
                f"encoder 'bert' expects token ids (b, t), got {values.dtype.name} of "
                f"shape {values.shape}.",
                "use encoder 'precomputed' for text embeddings",
            )
        if values.shape[1] > self.max_position_embeddings:
            raise ConfigError(
                "C26",
                f"the text has {values.shape[1]} tokens, but encoder 'bert' has "
                f"{given_option(self, 'max_position_embeddings')}.",
                f"{option_flag(self, 'max_position_embeddings', values.shape[1])}, or "
                "shorter text",
            )
