"""Comparison of the outline of a dataset with the dataset."""

from typing import Any

from mmfusion_jax.data.dataset import Dataset


def same_kinds(real: Dataset, outline: Dataset) -> None:
    """Fails unless labels, modalities, types and splits are those of the data."""
    for field in ("name", "classes", "values", "flags"):
        assert getattr(real, field) == getattr(outline, field), field
    assert real.sources.keys() == outline.sources.keys()
    one, other = real.source("train")[0], outline.source("train")[0]
    assert one.keys() == other.keys()
    for part in ("inputs", "masks"):
        form = lambda x: (x.ndim, x.dtype)
        kinds = [{k: form(x) for k, x in e[part].items()} for e in (one, other)]
        assert kinds[0] == kinds[1], part
    assert labels(one) == labels(other)


def labels(example: dict[str, Any]) -> dict[str, Any]:
    """The shape and kind of every label."""
    return {k: (x.shape, x.dtype.kind) for k, x in example["labels"].items()}


def same_shapes(real: Dataset, outline: Dataset, *, sizes: bool = True) -> None:
    """Fails unless the shapes, and the sizes, are those of the data too."""
    same_kinds(real, outline)
    assert real.title == outline.title
    one, other = real.source("train")[0], outline.source("train")[0]
    for part in ("inputs", "masks"):
        for name, x in one[part].items():
            assert x.shape == other[part][name].shape, name
    if sizes:
        counts = lambda data: {split: len(x) for split, x in data.sources.items()}
        assert counts(real) == counts(outline)
