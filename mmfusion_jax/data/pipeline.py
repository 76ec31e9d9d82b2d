"""Batches addressed by the step number, so that the step is the only reader state.

The batch of step n is a function of the dataset, the seed and n: a run that resumes at
step n needs nothing else, whatever it had prefetched before it stopped.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from mmfusion_jax.data.dataset import Augment, Dataset, Example, Source
from mmfusion_jax.data.dataset_checks import check_example, mismatch
from mmfusion_jax.errors import DataError, join_names
from mmfusion_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Cuts a dataset into batches for this process.

    Every epoch is a new permutation and contains every example once; its last batch is
    padded with rows of weight 0. Every process reads its own contiguous rows of every
    batch.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> mask = np.ones((2, 4), bool)
        >>> source = mmf.data.InMemory(
        ...     {"audio": np.ones((2, 4, 3))},
        ...     {"audio": mask},
        ...     {"pitch": np.array([0, 1])},
        ... )
        >>> data = mmf.data.Dataset(
        ...     "tones", "Tones", {"train": source}, {"pitch": ("low", "high")}
        ... )
        >>> pipeline = mmf.data.Pipeline(data, batch_size=2, seed=0)
        >>> batch = next(pipeline.train(0, 1))
        >>> batch.inputs["audio"].shape, batch.weight.tolist()
        ((2, 4, 3), [1.0, 1.0])

    Attributes:
        dataset: Dataset to read.
        batch_size: Number of examples of the global batch.
        seed: Seed of the order and of the augmentation.
        num_read_threads: Number of prefetching threads.
        prefetch: Number of prefetched batches.
        process: Index of this process and number of processes.
    """

    dataset: Dataset
    batch_size: int
    seed: int = 0
    num_read_threads: int = 2
    prefetch: int = 4
    process: tuple[int, int] = (0, 1)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.dataset.source("train")) // self.batch_size)

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        """Yields the batches of steps start..stop-1 of training, NumPy leaves."""
        source = self.dataset.source("train")
        if not len(source):
            raise DataError("D12", f"split 'train' of {self.dataset.title} is empty.")
        batches = TrainBatches(
            source, self.batch_size, stop, self.seed, self.process, self.dataset.augment
        )
        return self._read(batches, start)

    def evaluate(self, split: str) -> Iterator[Batch]:
        """Every example of `split` once, in order, NumPy leaves."""
        return self._read(
            EvalBatches(self.dataset.source(split), self.batch_size, self.process), 0
        )

    def dummy_batch(self) -> Batch:
        """Returns a fully masked batch of the right shapes, for this process."""
        rows = self.batch_size // self.process[1]
        return collate([dummy_example(self.dataset.source("train")[0])] * rows)

    def _read(self, batches: Any, start: int) -> Iterator[Batch]:
        options = grain.ReadOptions(
            num_threads=self.num_read_threads, prefetch_buffer_size=self.prefetch
        )
        iterator = iter(grain.MapDataset.source(batches).to_iter_dataset(options))
        # The state of the reader is the index of the next batch, and hence the step. No
        # grain iterator is saved: its order depends on the number of workers.
        iterator.set_state({"next_index": start})
        return iterator


@dataclasses.dataclass(frozen=True)
class TrainBatches:
    """The training batches of one process, by step."""

    source: Source
    batch_size: int
    steps: int
    seed: int
    process: tuple[int, int]
    augment: Augment | None

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        size = len(self.source)
        epoch, batch = divmod(int(step), -(-size // self.batch_size))
        # A permutation that is computed index by index, with another one for each range
        # of `size` indices, that is for each epoch: any batch can be computed without
        # those before it.
        order = grain.MapDataset.range(size).seed(self.seed).shuffle()
        examples = []
        for row in _rows(batch * self.batch_size, self.batch_size, self.process):
            if row >= size:
                # The last batch of an epoch has the shapes of all others, so the step
                # is not compiled again; rows of weight 0 count for nothing.
                examples.append(dummy_example(self.source[0]))
                continue
            index = int(order[epoch * size + row] or 0)
            example = self.source[index]
            check_present(example, index)
            if self.augment is not None:
                # Seeded with the position and not drawn from one stream: threads read
                # batches in any order, and a resumed run must vary an example as the
                # first run did.
                rng = np.random.default_rng([self.seed, epoch, row])
                example = self.augment(example, rng)
                check_example(example, f"training example {index} after augmentation")
            examples.append(example)
        return collate(examples)


@dataclasses.dataclass(frozen=True)
class EvalBatches:
    """The batches of a split, in order."""

    source: Source
    batch_size: int
    process: tuple[int, int]

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        rows = _rows(int(index) * self.batch_size, self.batch_size, self.process)
        size = len(self.source)
        take = lambda row: (
            self.source[row] if row < size else dummy_example(self.source[0])
        )
        return collate([take(row) for row in rows])


def collate(examples: Sequence[Example]) -> Batch:
    """Stacks examples into a Batch with NumPy leaves.

    Raises:
        DataError: The examples have different names or shapes.
    """
    try:
        parts: dict[str, Any] = {
            part: {
                name: _stack([example[part][name] for example in examples])
                for name in examples[0][part]
            }
            for part in ("inputs", "masks", "labels")
        }
        weight: Any = np.array([example["weight"] for example in examples], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise mismatch(examples) from error
    return Batch(**parts, weight=weight)


def _stack(arrays: Sequence[Any]) -> np.ndarray:
    """Returns arrays along a new first axis, float64 as float32."""
    # JAX would convert it too, but warns where a model asks for the dtype of its input.
    stacked = np.stack(arrays)
    return stacked.astype(np.float32) if stacked.dtype == np.float64 else stacked


def check_present(example: Example, index: int) -> None:
    """Raises DataError if every modality of a training example is missing."""
    if not isinstance(example, dict) or "masks" not in example:
        check_example(example, f"example {index} of split 'train'")
    if not any(mask.any() for mask in example["masks"].values()):
        raise DataError(
            "D14",
            f"example {index} of split 'train': all modalities are missing "
            f"({join_names(example['masks'])}).",
            "remove it from training; in evaluation it gets the class prior",
        )


def dummy_example(example: Example) -> Example:
    """Returns an example of the same shapes, fully masked and of weight 0."""
    zeros = lambda arrays: {k: np.zeros_like(v) for k, v in arrays.items()}
    parts = {part: zeros(example[part]) for part in ("inputs", "masks", "labels")}
    return {**parts, "weight": np.float32(0)}


def _rows(start: int, size: int, process: tuple[int, int]) -> range:
    """Returns the rows of a global batch that this process reads."""
    index, count = process
    # Contiguous rows in the order of the processes, as
    # `jax.make_array_from_process_local_data` joins them.
    local = size // count
    return range(start + index * local, start + (index + 1) * local)
