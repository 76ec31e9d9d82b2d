"""Encoders, which map the raw array and mask of one modality to Tokens."""

from typing import TYPE_CHECKING

from mmfusion_jax.lazy import attach, by_name

ENCODERS = {
    "audio_cnn": "mmfusion_jax.encoders.audio_conv:AudioConv",
    "bert": "mmfusion_jax.encoders.bert:Bert",
    "conv1d": "mmfusion_jax.encoders.signal_conv:SignalConv",
    "conv_lstm": "mmfusion_jax.encoders.conv_lstm:ConvLSTM",
    "ctc_aligned": "mmfusion_jax.encoders.ctc_aligned:CTCAligned",
    "feature_tokens": "mmfusion_jax.encoders.feature_tokens:FeatureTokens",
    "image_cnn": "mmfusion_jax.encoders.image_conv:ImageConv",
    "lstm": "mmfusion_jax.encoders.lstm:LSTMEncoder",
    "precomputed": "mmfusion_jax.encoders.precomputed:Precomputed",
    "r3d": "mmfusion_jax.encoders.r3d:R3D",
    "resnet": "mmfusion_jax.encoders.resnet:ResNet",
    "resnext_3d": "mmfusion_jax.encoders.resnext3d:ResNeXt3D",
    "vit": "mmfusion_jax.encoders.vit:ViT",
    "wav2vec2": "mmfusion_jax.encoders.wav2vec2:Wav2Vec2",
}
"""Short name -> import path."""

PUBLIC = by_name(ENCODERS.values())
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax.encoders.audio_conv import AudioConv as AudioConv
    from mmfusion_jax.encoders.bert import Bert as Bert
    from mmfusion_jax.encoders.conv_lstm import ConvLSTM as ConvLSTM
    from mmfusion_jax.encoders.ctc_aligned import CTCAligned as CTCAligned
    from mmfusion_jax.encoders.feature_tokens import FeatureTokens as FeatureTokens
    from mmfusion_jax.encoders.image_conv import ImageConv as ImageConv
    from mmfusion_jax.encoders.lstm import LSTMEncoder as LSTMEncoder
    from mmfusion_jax.encoders.precomputed import Precomputed as Precomputed
    from mmfusion_jax.encoders.r3d import R3D as R3D
    from mmfusion_jax.encoders.resnet import ResNet as ResNet
    from mmfusion_jax.encoders.resnext3d import ResNeXt3D as ResNeXt3D
    from mmfusion_jax.encoders.signal_conv import SignalConv as SignalConv
    from mmfusion_jax.encoders.vit import ViT as ViT
    from mmfusion_jax.encoders.wav2vec2 import Wav2Vec2 as Wav2Vec2
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
