"""Labels that a model cannot learn from are found, and others are not."""

import numpy as np
import pytest

from mmfusion_jax.data.dataset import Dataset, RegressionTarget
from mmfusion_jax.data.label_checks import label_warnings
from mmfusion_jax.runner.folds import with_label_warnings

CLASSES = ("happy", "sad", "angry")


@pytest.mark.parametrize(
    "labels",
    [
        {"train": [0, 1, 2], "valid": [0, 1], "test": [2, 1]},
        {"train": [0, 1, 2], "test": [2]},  # one example is not a constant label
        {"train": [0, 1], "test": [1, 0]},  # nobody asks for the class 'angry'
    ],
)
def test_usual_classes_give_no_warning(labels):
    arrays = {split: np.array(x) for split, x in labels.items()}
    assert label_warnings(arrays, "emotion", CLASSES) == []


def test_one_class_in_training():
    labels = {"train": np.zeros(5, int), "test": np.array([0, 2, 2])}
    assert label_warnings(labels, "emotion", CLASSES) == [
        "train: all 5 examples have the class 'happy' of label 'emotion'",
        "class 'angry' of label 'emotion' is in test, but not in train",
    ]


def test_a_class_that_training_lacks():
    labels = {
        "train": np.array([0, 2]),
        "valid": np.array([1, 2]),
        "test": np.array([1, 0]),
    }
    assert label_warnings(labels, "emotion", CLASSES) == [
        "class 'sad' of label 'emotion' is in valid, test, but not in train"
    ]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_constant_scores(split):
    labels = {name: np.array([0.5, -1.0, 2.0]) for name in ("train", "valid", "test")}
    assert label_warnings(labels, "score") == []
    labels[split] = np.full(4, 1.5)
    assert label_warnings(labels, "score") == [
        f"{split}: label 'score' is 1.5 in all 4 examples"
    ]
    labels[split] = np.full(4, np.nan)  # another check finds these
    assert label_warnings(labels, "score") == []


def test_flags_without_examples():
    rows = np.array([[0, 1, 1], [0, 1, 0]])
    labels = {"train": rows, "test": np.array([[1, 0, 1], [0, 1, 0]])}
    assert label_warnings(labels, "emotions", CLASSES) == [
        "train: flags of label 'emotions' that are never set in 2 examples: happy",
        "train: flags of label 'emotions' that are always set in 2 examples: sad",
    ]


def test_splits_without_examples_are_not_considered():
    assert label_warnings({"train": np.zeros((0, 3)), "test": np.zeros(0)}, "x") == []


def test_training_warns_of_labels_beside_the_warnings_of_the_data():
    labels = {"train": np.zeros(3, int), "test": np.array([0, 1])}
    arrays = {split: {"emotion": x, "score": 1.0 * x} for split, x in labels.items()}
    data = Dataset(
        "made",
        "made up",
        {split: [{}] * len(x) for split, x in labels.items()},
        {"emotion": CLASSES},
        labels=arrays,
        facts={"warnings": ["embedded data"]},
        values={"score": RegressionTarget(-3, 3)},
    )
    found = with_label_warnings(data, "emotion").facts["warnings"]
    assert found[0] == "embedded data" and len(found) == 3
    assert found[1:] == label_warnings(labels, "emotion", CLASSES)
    (_, score) = with_label_warnings(data, "score").facts["warnings"]
    assert score == "train: label 'score' is 0.0 in all 3 examples"
    assert with_label_warnings(data, "unknown") is data
