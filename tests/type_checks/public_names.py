"""Read by Pyright in tests/test_public_names.py; three names are unknown."""

from pathlib import Path
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
block = mmf.fusion.Identity()
assert_type(
    mmf.models.Fused({"audio": encoder}, 8, block).pooled_streams, tuple[str, ...]
)
found = mmf.results.read_predictions(Path("runs/cfn_sr"))
assert_type(found, mmf.results.Predictions | None)
assert_type(mmf.testing.check_fusion(block), mmf.testing.Report)
_ = mmf.encoders.AudioConf  # unknown
_ = mmf.losses.InfoNCEE  # unknown
_ = mmf.testing.check_fusions  # unknown
