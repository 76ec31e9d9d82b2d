"""One modality: raw array and mask to Tokens."""

from mmfusion_jax.encoders.audio_conv import AudioConv
from mmfusion_jax.encoders.bert import Bert
from mmfusion_jax.encoders.conv_lstm import ConvLSTM
from mmfusion_jax.encoders.feature_tokens import FeatureTokens
from mmfusion_jax.encoders.image_conv import ImageConv
from mmfusion_jax.encoders.lstm import LSTMLast
from mmfusion_jax.encoders.precomputed import Vectors
from mmfusion_jax.encoders.r3d import R3D
from mmfusion_jax.encoders.resnet import ResNet
from mmfusion_jax.encoders.resnext3d import ResNeXt3D
from mmfusion_jax.encoders.signal_conv import SignalConv
from mmfusion_jax.encoders.vit import ViT
from mmfusion_jax.encoders.wav2vec2 import Wav2Vec2

ENCODERS = {
    "audio_conv": AudioConv,
    "bert": Bert,
    "conv_lstm": ConvLSTM,
    "feature_tokens": FeatureTokens,
    "image_conv": ImageConv,
    "lstm": LSTMLast,
    "r3d": R3D,
    "resnet": ResNet,
    "resnext_3d": ResNeXt3D,
    "signal_conv": SignalConv,
    "vectors": Vectors,
    "vit": ViT,
    "wav2vec2": Wav2Vec2,
}
