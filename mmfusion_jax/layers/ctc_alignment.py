"""Learned alignment of sequences to a common length, trained with CTC."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.layers.recurrent import LSTM
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Tokens


class CTCAlignment(nn.Module):
    """Maps s tokens to n positions with alignment weights from an LSTM.

        p_t = softmax(LSTM_2(LSTM_1(x))_t),  over a blank and the n positions
        y_j = sum_t p_tj x_t

    The encoder "ctc_aligned" contains it. The loss term "ctc" trains it with targets 1,
    2, .. n: it reads the logits as `Outputs.aux["ctc/<m>"]` and the mask of the tokens
    as `"ctc/<m>/valid"`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> tokens = mmf.Tokens(jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool))
        >>> layer = mmf.layers.CTCAlignment(length=3)
        >>> (aligned, logits), variables = layer.init_with_output(
        ...     jax.random.key(0), tokens, train=False
        ... )
        >>> aligned.values.shape, logits.shape
        ((2, 3, 8), (2, 5, 4))

    Attributes:
        length: Number of positions, n, such as the words of a text.

    Reference:
        Tsai et al. 2019 (MulT), the "CTC +" of its tables; EF-LSTM, RAVEN and MCTN in
        MEA, Tables II to IV.
    Deviation:
        As in the released code, the states of the second LSTM, in (-1, 1), are the
        logits, without a linear layer.
    """

    length: int

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool) -> tuple[Tokens, Array]:
        """Aligns tokens to the positions.

        Args:
            tokens: (b s d), arbitrary where masked.
            train: Passed through.

        Returns:
            (b n d) tokens, all masked where the modality is missing, and the logits
            (b s 1+n), the blank first, 0 where masked.
        """
        states = tokens
        for i in range(2):
            states = LSTM(1 + self.length, name=f"lstm_{i}")(states, train=train)
        logits = states.values
        # Without the blank, so the weights of a step sum to less than 1.
        weights = zero_masked(jax.nn.softmax(logits, axis=-1), tokens.mask)[..., 1:]
        values = jnp.einsum(
            "bsn,bsd->bnd", weights, zero_masked(tokens.values, tokens.mask)
        )
        mask = jnp.broadcast_to(tokens.present[:, None], values.shape[:2])
        return Tokens(values, mask), logits
