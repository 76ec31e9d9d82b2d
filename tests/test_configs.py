"""Every config and every word after its colon loads, and names what exists."""

from pathlib import Path

import pytest

from mmfusion_jax.config_check import check_config
from mmfusion_jax.config_file import load_config

FOLDER = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize("word", ["", ":ravdess", ":ravdess_features", ":clips"])
def test_cfn_sr(word):
    config = load_config(f"{FOLDER / 'cfn_sr.py'}{word}")
    assert config.model.name == "cfn_sr"


def test_the_released_code_is_one_word():
    config = load_config(f"{FOLDER / 'cfn_sr.py'}:ravdess_official")
    video = config.model.encoders.video
    assert config.data.name == "ravdess" and config.data.augment_per_frame
    assert config.model.parity == "official"
    assert (video.stem_relu, video.channel_order) == (False, "bgr")
    check_config({"data.name": config.data.name, "model.name": config.model.name})
