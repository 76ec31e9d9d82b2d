"""One modality: raw array and mask to Tokens."""

from mmfusion_jax.encoders.audio_conv import AudioConv
from mmfusion_jax.encoders.bert import Bert
from mmfusion_jax.encoders.conv_lstm import ConvLSTM
from mmfusion_jax.encoders.feature_tokens import FeatureTokens
from mmfusion_jax.encoders.lstm_last import LSTMLast
from mmfusion_jax.encoders.resnext3d import ResNeXt3D

ENCODERS = {
    "audio_conv": AudioConv,
    "bert": Bert,
    "conv_lstm": ConvLSTM,
    "feature_tokens": FeatureTokens,
    "lstm": LSTMLast,
    "resnext_3d": ResNeXt3D,
}
