"""Layers that several encoders, fusion blocks or models use."""

from typing import TYPE_CHECKING

from mmfusion_jax.lazy import attach, by_name

PUBLIC = by_name(
    (
        "mmfusion_jax.layers.attention:Attention",
        "mmfusion_jax.layers.batch_norm:BatchNorm",
        "mmfusion_jax.layers.ctc_alignment:CTCAlignment",
        "mmfusion_jax.layers.mlp:MLP",
        "mmfusion_jax.layers.modality_discriminator:ModalityDiscriminator",
        "mmfusion_jax.layers.projection_heads:ProjectionHeads",
        "mmfusion_jax.layers.recurrent:LSTM",
        "mmfusion_jax.layers.residual_block:ResidualBlock",
        "mmfusion_jax.layers.transformer:Transformer",
        "mmfusion_jax.layers.transformer:TransformerLayer",
        "mmfusion_jax.layers.pooling",
    )
)
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax.layers import pooling as pooling
    from mmfusion_jax.layers.attention import Attention as Attention
    from mmfusion_jax.layers.batch_norm import BatchNorm as BatchNorm
    from mmfusion_jax.layers.ctc_alignment import CTCAlignment as CTCAlignment
    from mmfusion_jax.layers.mlp import MLP as MLP
    from mmfusion_jax.layers.modality_discriminator import (
        ModalityDiscriminator as ModalityDiscriminator,
    )
    from mmfusion_jax.layers.projection_heads import ProjectionHeads as ProjectionHeads
    from mmfusion_jax.layers.recurrent import LSTM as LSTM
    from mmfusion_jax.layers.residual_block import ResidualBlock as ResidualBlock
    from mmfusion_jax.layers.transformer import Transformer as Transformer
    from mmfusion_jax.layers.transformer import TransformerLayer as TransformerLayer
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
