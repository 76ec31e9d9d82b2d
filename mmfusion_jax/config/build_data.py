"""The dataset and the batches of an experiment, from its typed spec."""

import dataclasses
import inspect
from typing import Any

import jax

from mmfusion_jax.config.spec import DataSpec, ExperimentSpec
from mmfusion_jax.data.augment.modality_dropout import Compose, ModalityDropout
from mmfusion_jax.data.dataset import Dataset, is_ids, loader_info
from mmfusion_jax.data.dataset_checks import check_dataset
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.errors import (
    ConfigError,
    shorten,
    shown,
    shown_name,
    suggest,
    type_name,
)


def build_dataset(spec: ExperimentSpec, fold: int) -> Dataset:
    """Returns the dataset; it is prepared first if it must be.

    Args:
        spec: The experiment.
        fold: Number of the fold, for datasets that have folds.

    Raises:
        ConfigError: An option is out of range.
        DataError: The data is missing or corrupted.
    """
    part = spec.data.dataset
    data = part.target(**_dataset_arguments(spec, fold))
    if not isinstance(data, Dataset):
        raise part.error(f"returns {type_name(data)}, not a Dataset")
    check_dataset(data, spec.data.label)
    _check_modalities(data, spec.data)
    return with_augmentations(data, spec)


def describe_dataset(spec: ExperimentSpec, fold: int) -> Dataset:
    """Returns the dataset, or its shapes and classes if its files are not there.

    A dataset that does not declare an outline is read.

    Args:
        spec: The experiment.
        fold: Number of the fold, for datasets that have folds.

    Raises:
        ConfigError: An option is out of range.
        DataError: Files are corrupted, or nothing is known without them.
    """
    dataset = spec.data.dataset
    info = loader_info(dataset.target)
    if info.outline is None or info.has_files(dataset.options):
        return build_dataset(spec, fold)
    arguments = _dataset_arguments(spec, fold)
    try:
        inspect.signature(info.outline).bind(**arguments)
    except TypeError as error:
        raise dataset.error(
            f"has an outline that does not take its arguments: {shorten(error)}"
        ) from error
    data = info.outline(**arguments)
    if not isinstance(data, Dataset):
        raise dataset.error(f"has an outline that returns {type_name(data)}")
    _check_modalities(data, spec.data)
    return with_augmentations(data, spec)


def _dataset_arguments(spec: ExperimentSpec, fold: int) -> dict[str, Any]:
    """Returns the arguments of the dataset: its options and what it takes."""
    values = {
        "fold": fold,
        "folds": spec.data.folds,
        "protocol": spec.protocol,
        "seed": spec.seed,
        "label": spec.data.label,
    }
    takes = loader_info(spec.data.dataset.target).takes
    return {**spec.data.dataset.options, **{name: values[name] for name in takes}}


def with_augmentations(data: Dataset, spec: ExperimentSpec) -> Dataset:
    """Returns a dataset with the augmentations that a config names.

    They follow those of the dataset itself; modality dropout is last.
    """
    steps = [] if data.augment is None else [data.augment]
    steps += [
        part.check_call(part.build(modality=modality), "example", "rng")
        for modality, part in spec.data.augmentations.items()
    ]
    rates = {name: rate for name, rate in spec.data.modality_dropout.items() if rate}
    if rates:
        # Last, so that no augmentation fills a dropped modality again.
        steps.append(ModalityDropout(rates))
    if not steps:
        return data
    return dataclasses.replace(data, augment=Compose(tuple(steps)))


def _check_modalities(data: Dataset, spec: DataSpec) -> None:
    """Raises ConfigError if augmentations or dropout name an unknown modality."""
    dropped = [name for name, rate in spec.modality_dropout.items() if rate]
    groups = {"augmentations": spec.augmentations, "modality_dropout": dropped}
    if not any(groups.values()):
        return
    known = data.source("train")[0]["inputs"]
    for group, names in groups.items():
        for name in names:
            if name not in known:
                raise ConfigError(
                    "C03",
                    f"config.data.{shown_name(group)}.{shown_name(name)} is not a "
                    "modality of the data.",
                    suggest(name, known),
                )


def fold_numbers(spec: ExperimentSpec) -> tuple[int, ...]:
    """Returns the numbers of the folds to run: all of them, or the one that is named.

    Raises:
        ConfigError: The fold does not exist.
    """
    fold, count = spec.data.fold, spec.data.folds
    if fold == "all":
        return tuple(range(count))
    if fold.isdecimal() and int(fold) < count:
        return (int(fold),)
    choices = f"0 to {count - 1}" if count > 1 else "0, the only fold"
    raise ConfigError(
        "C06",
        f"config.data.fold={shown(fold)} is not a fold.",
        f"--config.data.fold=all, or {choices}",
    )


def build_pipeline(spec: ExperimentSpec, data: Dataset, seed: int) -> Pipeline:
    """Returns the batches of a run, for this process."""
    return Pipeline(
        data,
        batch_size=spec.data.batch_size,
        seed=seed,
        num_read_threads=spec.data.num_read_threads,
        process=(jax.process_index(), jax.process_count()),
    )


def check_ids(spec: ExperimentSpec, data: Dataset) -> None:
    """Raises ConfigError if the data has ids that an encoder has no embedding for.

    Such an id would give NaN, and only where it occurs.
    """
    inputs = data.source("train")[0]["inputs"]
    for modality, encoder in spec.model.encoders.items():
        size = encoder.default("vocab_size", 0)
        if modality not in inputs or not size or not is_ids(inputs[modality]):
            continue
        low, high = data.id_range(modality)
        if low < 0 or high >= size:
            field = f"config.model.encoders.{shown_name(modality)}"
            fix = f"--{shorten(field)}.vocab_size={high + 1}"
            if spec.model.weights.get(modality):
                # A larger table does not fit the weights, and its new rows are random.
                fix = (
                    "the ids are of another tokenizer than that of the weights; or "
                    f"--{shorten(field)}.weights= {shorten(fix)}"
                )
            if low < 0:
                fix = "ids start at 0: fix the data"
            raise ConfigError(
                "C30",
                f"{shorten(field)}.vocab_size={size}: "
                f"{data.title} has ids from {low:d} to {high:d}.",
                shorten(fix),
            )
