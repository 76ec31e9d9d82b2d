"""Batches are a function of data, seed and step; loaders declare what they take."""

import inspect
import pkgutil

import numpy as np
import pytest

from mmfusion_jax.data.dataset import (
    RUN_ARGUMENTS,
    Dataset,
    check_disjoint,
    dataset_loader,
    loader_info,
    unique_ids,
)
from mmfusion_jax.data.dataset_checks import check_dataset
from mmfusion_jax.data.pipeline import Pipeline, TrainBatches
from mmfusion_jax.data.registry import DATASETS
from mmfusion_jax.errors import DataError


class Numbers:
    """Example i contains the value i."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {
            "inputs": {"audio": np.full((2, 1), index, np.float32)},
            "masks": {"audio": np.ones(2, bool)},
            "labels": {"digit": np.int32(index % 3)},
            "weight": np.float32(1),
        }


def jitter(example, rng):
    moved = example["inputs"]["audio"] + rng.random()
    return {**example, "inputs": {"audio": moved.astype(np.float32)}}


DATA = Dataset(
    "numbers",
    "numbers (made up)",
    {"train": Numbers(10), "test": Numbers(5)},
    classes={"digit": ("a", "b", "c")},
    augment=jitter,
)


def seen(batches):
    """The examples of rows of weight 1, without the augmentation."""
    values = [np.floor(b.inputs["audio"][b.weight > 0, 0, 0]) for b in batches]
    return np.concatenate(values).astype(int)


def test_every_epoch_has_every_example_once_in_another_order():
    pipeline = Pipeline(DATA, batch_size=4, seed=1)
    batches = list(pipeline.train(0, 6))
    assert pipeline.steps_per_epoch == 3
    first, second = seen(batches[:3]), seen(batches[3:])
    assert sorted(first) == sorted(second) == list(range(10))
    assert list(first) != list(second)
    assert [b.weight.sum() for b in batches[:3]] == [4, 4, 2]


@pytest.mark.parametrize("start", range(6))
def test_resuming_at_any_step_gives_the_same_batches(start):
    pipeline = Pipeline(DATA, batch_size=4, seed=1)
    full = list(pipeline.train(0, 6))
    rest = list(pipeline.train(start, 6))
    assert len(rest) == 6 - start
    for got, want in zip(rest, full[start:], strict=True):
        np.testing.assert_array_equal(got.inputs["audio"], want.inputs["audio"])
        np.testing.assert_array_equal(got.labels["digit"], want.labels["digit"])


def test_processes_share_the_rows_of_one_batch():
    make = lambda process: TrainBatches(Numbers(10), 4, 6, 1, process, jitter)
    for step in range(6):
        full = make((0, 1))[step].inputs["audio"]
        parts = [make((index, 2))[step].inputs["audio"] for index in range(2)]
        np.testing.assert_array_equal(np.concatenate(parts), full)


def test_evaluation_keeps_the_order_and_pads_with_weight_zero():
    batches = list(Pipeline(DATA, batch_size=4).evaluate("test"))
    assert list(seen(batches)) == [0, 1, 2, 3, 4]
    assert batches[1].weight.tolist() == [1, 0, 0, 0]
    assert not batches[1].masks["audio"][1:].any()


def test_seeds_differ():
    one, two = (seen(Pipeline(DATA, 4, seed=s).train(0, 3)) for s in (1, 2))
    assert list(one) != list(two)


def test_a_speaker_in_two_splits_is_rejected():
    with pytest.raises(DataError, match="'ann' is in splits 'train' and 'test'"):
        check_disjoint({"train": ["ann", "bob"], "test": ["ann"]})


def test_labels_come_from_the_examples():
    assert DATA.label("test", "digit").tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("name", DATASETS)
def test_loaders_declare_what_they_take(name):
    load = pkgutil.resolve_name(DATASETS[name])
    info = loader_info(load)
    names = inspect.signature(load).parameters
    assert DATASETS[name] == f"{load.__module__}:{load.__qualname__}" and load.__doc__
    assert set(info.takes) == names.keys() & set(RUN_ARGUMENTS)
    assert info.outline is not None
    outline = inspect.signature(info.outline).parameters.values()
    named = {p.name for p in outline if p.kind is not p.VAR_KEYWORD}
    assert named <= names.keys()
    for parameter in outline:
        if parameter.name in named:
            assert parameter.default == names[parameter.name].default


def test_loader_info_of_other_functions():
    def load(*, file: str = "") -> Dataset:
        return DATA

    assert loader_info(load).takes == () and loader_info(load).outline is None
    assert loader_info(load).has_files({"file": "x"})
    assert not loader_info(load).has_files({"data_dir": ""})
    declared = dataset_loader(takes=("seed",), has_files=lambda _: True)(load)
    assert declared is load and loader_info(load).takes == ("seed",)
    assert loader_info(load).has_files({})
    with pytest.raises(ValueError, match="known: fold, folds, protocol, seed, label"):
        dataset_loader(takes=("folder",))


def test_every_example_has_an_id():
    made = lambda **ids: Dataset(
        "numbers",
        "numbers",
        {"train": Numbers(2), "test": Numbers(3)},
        {"digit": ("0", "1", "2")},
        example_ids=ids,
    )
    data = made(test=["a", "b", "c"])
    check_dataset(data, "digit")
    assert data.example_id_list("test") == ["a", "b", "c"]
    assert data.example_id_list("train") == ["train/0", "train/1"]
    with pytest.raises(DataError, match="D25.*3 examples and 2 example_ids"):
        check_dataset(made(test=["a", "b"]), "digit")
    with pytest.raises(DataError, match="D25.*example_ids of split 'test' has 'a'"):
        check_dataset(made(test=["a", "b", "a"]), "digit")
    found = unique_ids({"train": ["a", "a"], "valid": [], "test": [7, 8]})
    assert found == {"test": ["7", "8"]}
