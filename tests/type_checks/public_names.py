"""Pyright reads this in tests/test_public_names.py; two lines have an unknown name."""

from typing import assert_type

import mmfusion_jax as mmf
from mmfusion_jax.data.dataset import Dataset

encoder = mmf.encoders.AudioConv(hidden_dim=8)
assert_type(encoder, mmf.encoders.AudioConv)
model = mmf.models.CFNSR({"audio": encoder}, head_size=8)
assert_type(model.num_heads, int)
assert_type(mmf.datasets.digits(), Dataset)
assert_type(mmf.losses.InfoNCE(("text_audio",)).symmetric, bool)
fusion: type[mmf.fusion.ResidualAttention] = mmf.fusion.ResidualAttention
batch = mmf.Batch(inputs={}, masks={})
_ = mmf.encoders.AudioConf  # unknown
_ = mmf.losses.InfoNCEE  # unknown
