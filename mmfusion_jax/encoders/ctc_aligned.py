"""CTC alignment of a sequence before any encoder."""

from typing import ClassVar

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, shown, shown_name
from mmfusion_jax.layers.ctc_alignment import CTCAlignment
from mmfusion_jax.option_types import Size
from mmfusion_jax.types import AUX, Array, Tokens


class CTCAligned(nn.Module):
    """Aligns a sequence to the positions of another one, then encodes the positions.

    Models that compare or concatenate the steps of modalities require as many steps of
    each, such as one per word. The loss term "ctc" trains the alignment.

    Parameters: `align`, `encoder`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> inner = mmf.encoders.Precomputed()
        >>> encoder = mmf.encoders.CTCAligned(length=3, encoder=inner, modality="audio")
        >>> audio, mask = jnp.ones((2, 5, 4)), jnp.ones((2, 5), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), audio, mask, train=False
        ... )
        >>> tokens.values.shape
        (2, 3, 4)

    Attributes:
        length: Number of positions, such as the words of the text; at most the steps
            of the sequence.
        encoder: Encoder of the aligned sequence, (b n f) float.
        modality: Name of the modality, m.

    Reference:
        Tsai et al. 2019 (MulT), the "CTC +" of its tables; EF-LSTM, RAVEN and MCTN in
        MEA, Tables II to IV.
    """

    has_aux: ClassVar[bool] = True

    length: Size
    encoder: nn.Module
    modality: str

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Encodes a sequence.

        Auxiliary outputs: "ctc/<m>", the logits of the alignment (b t 1+length), and
        "ctc/<m>/valid", the valid steps (b t).

        Args:
            values: (b t ...) float; or unsigned integer pixels 0..255, scaled to
                0..1. The values of a step are flattened.
            mask: (b t) bool.
            train: Passed through.

        Returns:
            The tokens of `encoder`.

        Raises:
            ConfigError: The values are token ids or scalars, the sequence is shorter
                than `length`, or `encoder` is not an encoder.
        """
        self._check(values)
        # Video encoders scale pixels themselves, but here the alignment comes first.
        if jnp.issubdtype(values.dtype, jnp.unsignedinteger):
            values = values / jnp.float32(255)
        x = einops.rearrange(values, "b t ... -> b t (...)")
        align = CTCAlignment(self.length, name="align")
        aligned, logits = align(Tokens(x, mask), train=train)
        # An encoder returns tokens only. What is stored here is in `Outputs.aux` of
        # every model, where the loss term reads it; see `models/encoder_aux.py`.
        self.sow(AUX, f"ctc/{self.modality}", logits)
        self.sow(AUX, f"ctc/{self.modality}/valid", mask)
        return self.encoder(aligned.values, aligned.mask, train=train)

    def _check(self, values: Array) -> None:
        """Raises ConfigError unless the values and the options fit."""
        where = f"config.model.encoders.{self.modality}"
        if not callable(self.encoder):
            raise ConfigError(
                "C11",
                f"{where}.encoder={shown(self.encoder)} is not a group of fields.",
                f"{where}.encoder = dict(name=...) in the config file",
            )
        if values.ndim == 2:
            raise ConfigError(
                "C26",
                f"encoder 'ctc_aligned' expects vectors (b, t, f), got "
                f"{values.dtype.name} of shape {values.shape}.",
                "align audio or video to the text, not the text",
            )
        if values.shape[1] < self.length:
            raise ConfigError(
                "C26",
                f"{where}.length={self.length:d} is more than the {values.shape[1]:d} "
                f"steps of {shown_name(self.modality)}: they cannot be aligned.",
                f"--{where}.length={values.shape[1]} or less",
            )
