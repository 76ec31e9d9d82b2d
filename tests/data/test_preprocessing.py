"""Standardization, padding, noise, and the random crops of the released code."""

import numpy as np
import pytest

from mmfusion_jax.data.augment.crop_and_flip import CropAndFlip, crop_box
from mmfusion_jax.data.preprocessing import (
    RunningMoments,
    Standardizer,
    add_white_noise,
    pad_or_truncate,
)


def test_the_standardizer_fits_all_rows():
    rng = np.random.default_rng(0)
    parts = [rng.normal(50, [1, 3, 0], (n, 3)) for n in (4, 9, 0)]
    standardizer = Standardizer.fit(map(RunningMoments.of, parts))
    rows = np.concatenate(parts)
    np.testing.assert_allclose(standardizer.mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(standardizer.std[:2], rows.std(0)[:2], rtol=1e-6)
    assert standardizer.std[2] == 1  # constant
    got = standardizer(rows)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[:, :2].std(0), 1, rtol=1e-5)
    np.testing.assert_allclose(got.mean(0), 0, atol=1e-5)


def test_padding_is_masked():
    rows, mask = pad_or_truncate(np.ones((2, 3), np.float32), 4)
    assert rows.sum() == 6 and rows.shape == (4, 3) and rows.dtype == np.float32
    assert mask.tolist() == [True, True, False, False]
    rows, mask = pad_or_truncate(np.ones((5, 3)), 4)
    assert rows.shape == (4, 3) and mask.all()


@pytest.mark.parametrize("snr", [-10, 0, 20])
def test_noise_has_the_requested_power(snr):
    wave = 0.3 * np.sin(np.arange(200_000) / 7)
    noise = add_white_noise(wave, snr, np.random.default_rng(0)) - wave
    got = 10 * np.log10(np.mean(wave**2) / np.mean(noise**2))
    assert got == pytest.approx(snr, abs=0.1)


def test_silence_stays_silent():
    assert not add_white_noise(np.zeros(9), -10, np.random.default_rng(0)).any()


def test_crops_are_drawn_as_in_the_released_code():
    """The specification gives 24.9 % full images and a mean area of 0.87."""
    rng = np.random.default_rng(0)
    boxes = np.array([crop_box(rng, 224, 224, (0.8, 1.4)) for _ in range(20_000)])
    full = (boxes[:, 2:] == 224).all(axis=1)
    assert full.mean() == pytest.approx(0.249, abs=0.01)
    area = boxes[~full, 2] * boxes[~full, 3] / 224**2
    assert area.mean() == pytest.approx(0.87, abs=0.01)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= 224).all()


def example(frames=6):
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    return {
        "inputs": {"video": np.stack([image] * frames), "audio": np.ones((4, 13))},
        "masks": {"video": np.ones(frames, bool), "audio": np.ones(4, bool)},
        "labels": {"label": 1},
        "weight": np.float32(1),
    }


def test_one_draw_per_clip_or_per_frame():
    rng = np.random.default_rng(1)
    clip = CropAndFlip()(example(), rng)["inputs"]["video"]
    assert clip.shape == (6, 16, 16, 3) and clip.dtype == np.uint8
    assert (clip == clip[:1]).all()
    each = CropAndFlip(per_frame=True)(example(), rng)["inputs"]["video"]
    assert not (each == each[:1]).all()


def test_flips_half_of_the_time_and_nothing_else_changes():
    given = example()
    video = given["inputs"]["video"].copy()
    flip_only = CropAndFlip(scale=(1.5, 1.6))
    flipped = 0
    for seed in range(200):
        got = flip_only(given, np.random.default_rng(seed))
        assert got["inputs"]["audio"] is given["inputs"]["audio"]
        if not (got["inputs"]["video"] == video).all():
            np.testing.assert_array_equal(got["inputs"]["video"], video[:, :, ::-1])
            flipped += 1
    assert 70 < flipped < 130
    np.testing.assert_array_equal(given["inputs"]["video"], video)


def test_a_missing_video_stays_missing():
    given = example()
    given["masks"]["video"][:] = False
    assert CropAndFlip()(given, np.random.default_rng(0)) is given
