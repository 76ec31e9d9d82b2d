"""Datasets do what a dataset must: the testing kit checks them."""

import pkgutil

import pytest
import tiny_dataset

from mmfusion_jax import testing
from mmfusion_jax.data.dataset import loader_info
from mmfusion_jax.data.registry import DATASETS

REAL = {
    "mmmo": ("mmmo", "score"),
    "mosi_utterances": ("mosi", "polarity"),
    "ravdess_features": ("ravdess", "emotion"),
    "stress_predict": ("stress_predict", "stress"),
}
"""Dataset -> its folder in the real data, label."""


def loader(name):
    return pkgutil.resolve_name(DATASETS[name])


@pytest.mark.parametrize("label", ["label", "score", "flags"])
def test_made_up_tones(label):
    report = testing.check_dataset(tiny_dataset.tones(), label)
    assert "examples in one split" in report.checked


@pytest.mark.ci
def test_the_embedded_digits(cache_dir):
    pytest.importorskip("espeakng_loader")
    report = testing.check_dataset(
        loader("digits")(cache_dir=cache_dir / "digits"), "digit"
    )
    assert "groups in one split" in report.checked


@pytest.mark.ci
@pytest.mark.parametrize("name", REAL)
def test_real_datasets(name, real_data):
    folder, label = REAL[name]
    if not (real_data / folder).is_dir():
        pytest.skip(f"{real_data / folder} does not exist")
    report = testing.check_dataset(loader(name)(str(real_data / folder)), label)
    assert "labels in range" in report.checked


# The outline of clips requires their labels.csv; test_clips.py checks such folders.
@pytest.mark.parametrize("name", sorted(DATASETS.keys() - {"clips"}))
def test_outlines(name):
    info = loader_info(loader(name))
    assert info.outline is not None
    data = info.outline()
    label = next(iter({**data.classes, **data.values, **data.flags}))
    # All examples of an outline are 0: that must be all the kit finds.
    with pytest.raises(AssertionError) as found:
        testing.check_dataset(data, label, max_examples=2)
    (line,) = str(found.value).splitlines()
    assert line.endswith("has the inputs of example 0 of split 'train'")
