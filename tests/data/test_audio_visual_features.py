"""Augmentation of MFCC and facial features; nothing else changes."""

import numpy as np
import pytest

from mmfusion_jax.data.augment.audio_visual_features import (
    BANDS,
    RandomFeatures,
    warp_matrix,
)
from mmfusion_jax.data.preprocessing import Standardizer

MEAN, STD = np.arange(13, dtype=np.float32), np.full(13, 2, np.float32)
STANDARDIZER = Standardizer(MEAN, STD)
EXAMPLE = {
    "inputs": {
        "audio": np.random.default_rng(0).normal(size=(60, 13)).astype(np.float32),
        "video": np.ones((1, 70), np.float32),
    },
    "masks": {"audio": np.ones(60, bool), "video": np.ones(1, bool)},
    "labels": {"emotion": 3},
    "weight": np.float32(1),
}


def varied(seed=0, **options):
    vary = RandomFeatures(STANDARDIZER, **options)
    return vary(EXAMPLE, np.random.default_rng(seed))


def test_without_options_nothing_changes():
    same = varied()
    for name, values in EXAMPLE["inputs"].items():
        np.testing.assert_array_equal(same["inputs"][name], values)


def test_the_seed_decides_and_the_example_is_unchanged():
    before = {name: values.copy() for name, values in EXAMPLE["inputs"].items()}
    options = dict(
        freq_warp=0.1,
        time_stretch=0.1,
        shift=0.1,
        mask=0.2,
        noise=0.1,
        face_noise=0.1,
    )
    first, again, other = (
        varied(1, **options),
        varied(1, **options),
        varied(2, **options),
    )
    for name in before:
        np.testing.assert_array_equal(first["inputs"][name], again["inputs"][name])
        assert not np.array_equal(first["inputs"][name], other["inputs"][name])
        np.testing.assert_array_equal(EXAMPLE["inputs"][name], before[name])
        assert first["inputs"][name].dtype == np.float32
    assert first["labels"] == EXAMPLE["labels"] and first["masks"] == EXAMPLE["masks"]


def test_warping_moves_energy_to_the_warped_frequency():
    band = np.arange(BANDS)
    row = np.arange(BANDS)[:, None]
    cosines = np.cos(np.pi * row * (2 * band + 1) / (2 * BANDS))
    cosines *= np.sqrt(np.where(row == 0, 1, 2) / BANDS)
    np.testing.assert_allclose(warp_matrix(1.0, 13), np.eye(13), atol=1e-12)
    bump = np.exp(-(((band - 20) / 2) ** 2))
    mel = lambda hertz: 2595 * np.log10(1 + hertz / 700)
    hertz = lambda index: 700 * (10 ** ((index + 1) * mel(8000) / 41 / 2595) - 1)
    for factor, side in [(1.2, -1), (0.8, 1)]:
        moved = cosines.T @ warp_matrix(factor, BANDS) @ cosines @ bump
        assert side * (moved.argmax() - 20) >= 2
        assert abs(hertz(moved.argmax()) * factor / hertz(20) - 1) < 0.06


def test_warping_undoes_the_standardization():
    flat = dict(
        EXAMPLE, inputs={**EXAMPLE["inputs"], "audio": np.zeros((60, 13), "f4")}
    )
    got = RandomFeatures(STANDARDIZER, freq_warp=0.3)(flat, np.random.default_rng(0))
    factor = np.exp(0.3 * np.random.default_rng(0).integers(-20, 21) / 20)
    want = (warp_matrix(float(factor), 13) @ MEAN - MEAN) / STD
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(got["inputs"]["audio"][7], want, rtol=1e-4, atol=1e-5)


def test_time_masks_shift_and_stretch():
    hidden = (varied(mask=0.3)["inputs"]["audio"] == 0).all(axis=1)
    assert 0 < hidden.sum() <= 36
    moved = varied(shift=0.2)["inputs"]["audio"]
    steps = [
        np.flatnonzero((EXAMPLE["inputs"]["audio"] == row).all(1))[0] for row in moved
    ]
    assert set(np.diff(steps)) <= {0, 1} and steps != list(range(60))
    paced = varied(3, time_stretch=0.5)["inputs"]["audio"]
    assert not np.array_equal(paced, EXAMPLE["inputs"]["audio"])


@pytest.mark.parametrize("option", ["face_noise", "face_scale_std"])
def test_only_facial_features_change(option):
    got = varied(**{option: 0.2})["inputs"]
    np.testing.assert_array_equal(got["audio"], EXAMPLE["inputs"]["audio"])
    spread = got["video"].std()
    assert (spread > 0.1) if option == "face_noise" else (spread < 1e-6)
    assert not np.array_equal(got["video"], EXAMPLE["inputs"]["video"])
