"""Batches are a function of data, seed and step; every example once an epoch."""

import numpy as np
import pytest

from mmfusion_jax.data.dataset import Dataset, Subset, check_disjoint
from mmfusion_jax.data.pipeline import Pipeline, TrainBatches
from mmfusion_jax.errors import DataError


class Numbers:
    """Example i is the number i."""

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
    """The examples of real rows, without the augmentation."""
    values = [np.floor(b.inputs["audio"][b.weight > 0, 0, 0]) for b in batches]
    return np.concatenate(values).astype(int)


def test_every_example_once_an_epoch_and_another_order_in_the_next():
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
    whole = list(pipeline.train(0, 6))
    rest = list(pipeline.train(start, 6))
    assert len(rest) == 6 - start
    for got, want in zip(rest, whole[start:], strict=True):
        np.testing.assert_array_equal(got.inputs["audio"], want.inputs["audio"])
        np.testing.assert_array_equal(got.labels["digit"], want.labels["digit"])


def test_processes_share_the_rows_of_one_batch():
    make = lambda process: TrainBatches(Numbers(10), 4, 6, 1, process, jitter)
    for step in range(6):
        whole = make((0, 1))[step].inputs["audio"]
        parts = [make((index, 2))[step].inputs["audio"] for index in range(2)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_evaluation_keeps_the_order_and_fills_up_with_weight_zero():
    batches = list(Pipeline(DATA, batch_size=4).evaluate("test"))
    assert list(seen(batches)) == [0, 1, 2, 3, 4]
    assert batches[1].weight.tolist() == [1, 0, 0, 0]
    assert not batches[1].masks["audio"][1:].any()


def test_seeds_differ():
    one, two = (seen(Pipeline(DATA, 4, seed=s).train(0, 3)) for s in (1, 2))
    assert list(one) != list(two)


def test_a_speaker_in_two_splits_is_refused():
    with pytest.raises(DataError, match="'ann' is in split 'train' and in split"):
        check_disjoint({"train": ["ann", "bob"], "test": ["ann"]})


def test_labels_come_from_the_examples():
    assert DATA.label("test", "digit").tolist() == [0, 1, 2, 0, 1]
    half = Subset(Numbers(10), [7, 8])
    assert [half[i]["labels"]["digit"] for i in range(2)] == [1, 2]
