"""Every encoder of the table does what an encoder must: the kit checks it."""

import pytest
from groups import in_ci
from loaded_tables import ENCODERS

from mmfusion_jax import testing
from mmfusion_jax.encoders.precomputed import Precomputed
from mmfusion_jax.testing import modules
from mmfusion_jax.testing.module_properties import COMMON

ATTENTION = {"hidden_dim": 8, "num_layers": 1, "num_heads": 2, "mlp_dim": 8}
FRAMES = (4, 9, 10, 3)
SMALL = {
    "audio_cnn": ({"hidden_dim": 6, "channels": 4, "pool": 3, "dropout": 0.0}, (23, 5)),
    "bert": (
        ATTENTION | {"vocab_size": 50, "max_position_embeddings": 16, "dropout": 0.0},
        (8,),
    ),
    "conv1d": ({"hidden_dim": 4, "pools": (2, 1)}, (8, 2)),
    "conv_lstm": ({"hidden_dim": 4}, (6, 4)),
    "ctc_aligned": (
        {"length": 3, "encoder": Precomputed(), "modality": "audio"},
        (6, 3),
    ),
    "feature_tokens": (
        {"hidden_dim": 4, "features_per_token": 2, "dropout": 0.0},
        (4, 6),
    ),
    "image_cnn": ({"channels": (3, 4)}, (3, 9, 9, 1)),
    "lstm": ({"hidden_dim": 4}, (6, 3)),
    "r3d": ({"blocks": (1,), "base_channels": 4}, FRAMES),
    "resnet": ({"blocks": (1,), "kind": "basic", "base_channels": 4}, FRAMES),
    "resnext_3d": ({"blocks": (1,), "base_channels": 4}, FRAMES),
    "vit": (ATTENTION | {"patch_size": 4}, (3, 8, 8, 3)),
    "wav2vec2": (
        ATTENTION
        | {"channels": 4, "kernels": (10, 3), "strides": (5, 2), "dropout": 0.0}
        | {"pos_conv_kernel": 6, "pos_conv_groups": 2},
        (90,),
    ),
}
"""Encoder -> options that make it small and the shape of an example. An encoder that is
not here is checked with its defaults and an input of the kit."""


UNEVEN = {
    **{f"audio_cnn, {t}": ("audio_cnn", {}, (t, 5)) for t in (24, 25)},
    **{f"conv1d, {t}": ("conv1d", {"pools": (3, 2)}, (t, 2)) for t in (12, 17, 19)},
    "conv1d, frames": ("conv1d", {"pools": (2, 1)}, (5, 8, 8, 1)),
    **{
        f"{name}, frames": (name, {"frame_channels": (3, 2)}, (5, 8, 9, 1))
        for name in ("conv_lstm", "lstm")
    },
    "conv1d, ids": ("conv1d", {"pools": (3,), "vocab_size": 20}, (11,)),
    "r3d, stages": ("r3d", {"blocks": (1, 1)}, (5, 9, 10, 3)),
    "resnext_3d, 5": ("resnext_3d", {"blocks": (1,)}, (5, 9, 10, 3)),
    **{f"wav2vec2, {t}": ("wav2vec2", {}, (t,)) for t in (91, 97)},
}
"""Encoders that reduce the number of steps, at lengths that are not multiples, or the
pixels of every step: name -> encoder, its changed options, shape of an example."""

ABOUT_PADDING = (
    *("shapes_and_dtypes", "masked_values", "padding_length", "padding_position"),
    *("missing_stays_missing", "subsets_of_modalities"),
)


@pytest.mark.parametrize("name", in_ci(UNEVEN))
def test_lengths_that_are_not_multiples(name, monkeypatch):
    # The others are checked below, and do not depend on the length.
    wanted = [p for p in COMMON if p.__name__ in ABOUT_PADDING]
    assert len(wanted) == len(ABOUT_PADDING)
    monkeypatch.setattr(modules, "COMMON", wanted)
    encoder, options, shape = UNEVEN[name]
    options = SMALL[encoder][0] | options
    # One padded step fills no window, and several do.
    for extra in (1, 4):
        report = testing.check_encoder(
            ENCODERS[encoder](**options), shape, name=name, extra_padding=extra
        )
        assert "padding length" in report.checked


@pytest.mark.parametrize("name", in_ci(ENCODERS, "precomputed", "conv_lstm"))
def test_properties(name):
    options, shape = SMALL.get(name, ({}, None))
    report = testing.check_encoder(ENCODERS[name](**options), shape, name=name)
    assert len(report.checked) + len(report.not_checked) == 19
    not_checked = report.not_checked.get("second derivatives exist")
    assert not_checked in (None, "it does not have parameters")
