"""Encoders, which map the raw array and mask of one modality to Tokens."""

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
