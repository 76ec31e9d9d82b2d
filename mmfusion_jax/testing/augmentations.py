"""Checks of augmentations."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.data import dataset_checks
from mmfusion_jax.data.dataset import Example
from mmfusion_jax.errors import UserError, shorten, shown, shown_name
from mmfusion_jax.testing.datasets import PARTS, example_form, first_difference
from mmfusion_jax.testing.report import (
    CounterexampleError,
    NotCheckedError,
    Report,
    check_is_object,
    described,
    run_properties,
)

EXAMPLE_SHAPES = (
    ((20, 8), np.float32),
    ((2, 12, 12, 3), np.uint8),
    ((12,), np.int32),
    ((4000,), np.float32),
)
"""Shapes of inputs that augmentations are tried with."""

SEEDS = 20


def check_augmentation(
    augmentation: Any, example: Example | None = None, *, name: str = ""
) -> Report:
    """Checks that an augmentation does what every augmentation must.

    Example:
        >>> import mmfusion_jax as mmf
        >>> augment = mmf.data.RandomImage("video")  # or an augmentation of yours
        >>> report = mmf.testing.check_augmentation(augment)
        >>> "same seed same result" in report.checked
        True

    Args:
        augmentation: `(example, rng) -> example`, with the field `modality`.
        example: An example of a dataset. By default the first of `EXAMPLE_SHAPES` that
            the augmentation accepts.
        name: Name of the augmentation in messages; its class by default.

    Returns:
        The properties that hold, and those that were not checked.

    Raises:
        AssertionError: A property does not hold; one sentence for each.
    """
    check_is_object(augmentation, "an augmentation")
    name = name or type(augmentation).__name__
    if example is None:
        example = _example_for(augmentation, name)
    case = AugmentationCase(augmentation, example)
    return run_properties(name, case, AUGMENTATION_PROPERTIES)


def _example_for(augmentation: Any, part: str) -> Example:
    """Returns the first example that an augmentation changes, or accepts."""
    modality, accepted = getattr(augmentation, "modality", "audio"), None
    first: Exception | None = None
    for shape, dtype in EXAMPLE_SHAPES:
        example = _made_example(modality, shape, dtype)
        try:
            got = [augmentation(copy.deepcopy(example), _rng(s)) for s in range(3)]
        except Exception as error:  # an augmentation may raise anything
            first = first or error
            continue
        accepted = accepted or example
        if isinstance(got[0], Mapping) and any(
            first_difference(example, x) for x in got
        ):
            return example
    if first is not None and accepted is None:
        problem = described(first)
        raise AssertionError(
            f"{shown_name(part)}: no example of the kit fits, the first raises "
            f"{problem}; give an example"
        ) from first
    assert accepted is not None  # every shape was accepted or raised
    return accepted


def _made_example(modality: str, shape: tuple[int, ...], dtype: Any) -> Example:
    """An example of one modality with some padding, and another one."""
    rng = _rng(0)
    values = rng.standard_normal(shape).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        values = rng.integers(1, 100, shape).astype(dtype)
    mask = np.arange(shape[0]) < max(1, 3 * shape[0] // 4)
    values[~mask] = 0
    return {
        "inputs": {modality: values, "other": np.ones((2, 3), np.float32)},
        "masks": {modality: mask, "other": np.ones(2, bool)},
        "labels": {"label": np.int32(1)},
        "weight": np.float32(1),
    }


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@dataclasses.dataclass
class AugmentationCase:
    """An augmentation and an example.

    Attributes:
        augmentation: The augmentation.
        example: The example.
    """

    augmentation: Any
    example: Example

    def run(self, seed: int, example: Example | None = None) -> Example:
        """Returns the augmented copy of the example, or of another one."""
        copied = copy.deepcopy(self.example if example is None else example)
        return self.augmentation(copied, _rng(seed))

    @property
    def modality(self) -> str:
        """Name of the modality that is changed."""
        return getattr(self.augmentation, "modality", "")


def form_of_the_example(case: AugmentationCase) -> None:
    """Names, shapes, dtypes and masks have the form of the example."""
    want = example_form(case.example)
    for seed in range(SEEDS):
        example = case.run(seed)
        try:
            dataset_checks.check_example(example, f"its result with seed {seed:d}")
        except UserError as error:
            raise CounterexampleError(shorten(error.args[0])) from error
        got = example_form(example)
        for key in sorted(set(want) | set(got)):
            if want.get(key) != got.get(key):
                raise CounterexampleError(
                    f"{shown(key)} becomes {shown(got.get(key))} with seed {seed:d} "
                    f"instead of {shown(want.get(key))}"
                )


def same_seed_same_result(case: AugmentationCase) -> None:
    """The same generator gives the same result."""
    state = np.random.get_state()[1].tobytes()  # pyright: ignore
    for seed in range(SEEDS):
        if what := first_difference(case.run(seed), case.run(seed)):
            raise CounterexampleError(
                f"{what} differs when it runs again with seed {seed:d}"
            )
    if np.random.get_state()[1].tobytes() != state:  # pyright: ignore
        raise CounterexampleError("it draws from np.random instead of its generator")


def seeds_differ(case: AugmentationCase) -> None:
    """Different generators give different results."""
    first = case.run(0)
    if not any(first_difference(first, case.run(seed)) for seed in range(1, SEEDS)):
        raise CounterexampleError(f"the result is the same for {SEEDS} seeds")


def example_is_not_changed(case: AugmentationCase) -> None:
    """The example that is passed in is not changed in place."""
    for seed in range(SEEDS):
        example = copy.deepcopy(case.example)
        case.augmentation(example, _rng(seed))
        if what := first_difference(case.example, example):
            raise CounterexampleError(
                f"{what} of the given example is changed in place with seed {seed:d}"
            )


def other_modalities(case: AugmentationCase) -> None:
    """Other modalities, labels and the weight are not changed."""
    if not case.modality:
        raise NotCheckedError("it does not have the field modality")
    for seed in range(SEEDS):
        got = case.run(seed)
        for part in PARTS:
            for name, x in case.example[part].items():
                other = part == "labels" or name != case.modality
                if other and not np.array_equal(x, got[part][name]):
                    raise CounterexampleError(
                        f"{part} {shown(name)} changes with seed {seed:d}, but it "
                        f"augments {shown(case.modality)}"
                    )
        if got["weight"] != case.example["weight"]:
            raise CounterexampleError(f"the weight changes with seed {seed:d}")


def finite_and_present(case: AugmentationCase) -> None:
    """Values are finite, and a present modality stays present."""
    for seed in range(SEEDS):
        got = case.run(seed)
        for name, x in got["inputs"].items():
            mask = case.example["masks"][name]
            if np.asarray(x).dtype.kind == "f" and not np.isfinite(x).all():
                raise CounterexampleError(
                    f"input {shown(name)} is not finite with seed {seed:d}"
                )
            if name == case.modality and mask.any() and not got["masks"][name].any():
                raise CounterexampleError(
                    f"every step of {shown(name)} is masked with seed {seed:d}"
                )


def missing_modality(case: AugmentationCase) -> None:
    """A missing modality stays missing and is not changed."""
    names = [case.modality] if case.modality else list(case.example["masks"])
    example = copy.deepcopy(case.example)
    for name in names:
        example["masks"][name] = np.zeros_like(example["masks"][name])
        example["inputs"][name] = np.zeros_like(example["inputs"][name])
    for seed in range(SEEDS):
        got = case.run(seed, example)
        if what := first_difference(example, got):
            raise CounterexampleError(
                f"{what} changes with seed {seed:d} although the modality is missing"
            )


def masked_values_are_not_read(case: AugmentationCase) -> None:
    """Values of masked steps do not become valid, and change no valid value."""
    for name, mask in case.example["masks"].items():
        x = np.asarray(case.example["inputs"][name])
        if mask.all() or x.dtype.kind not in "fiu":
            continue
        dirty = copy.deepcopy(case.example)
        dirty["inputs"][name][~mask] = 1e30 if x.dtype.kind == "f" else 77
        for seed in range(SEEDS):
            want, got = case.run(seed), case.run(seed, dirty)
            if not np.array_equal(want["masks"][name], got["masks"][name]):
                raise CounterexampleError(
                    f"the mask of {shown(name)} depends on masked values with seed "
                    f"{seed:d}"
                )
            valid = got["masks"][name]
            moved = want["inputs"][name][valid] != got["inputs"][name][valid]
            if np.any(moved):
                moved = moved.reshape(len(moved), -1).any(axis=1)
                step = int(np.flatnonzero(valid)[np.argmax(moved)])
                raise CounterexampleError(
                    f"step {step:d} of {shown(name)} changes with masked values and "
                    f"seed {seed:d}"
                )


AUGMENTATION_PROPERTIES = (
    form_of_the_example,
    same_seed_same_result,
    seeds_differ,
    example_is_not_changed,
    other_modalities,
    finite_and_present,
    missing_modality,
    masked_values_are_not_read,
)
"""All properties, in the order in which they are checked."""
