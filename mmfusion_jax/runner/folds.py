"""The folds of an experiment with their data."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

from mmfusion_jax.config import build_data
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.label_checks import label_warnings
from mmfusion_jax.errors import shorten, shown
from mmfusion_jax.runner.run_checkpoints import log
from mmfusion_jax.runner.workdir import RunKey, fold_seed_pairs


def runs_with_data(
    spec: ExperimentSpec, workdir: Path
) -> Iterator[tuple[RunKey, Dataset]]:
    """Yields every fold and seed with its data; a fold is prepared once."""
    for keys, data in folds_with_data(spec, workdir):
        for key in keys:
            yield key, data


def folds_with_data(
    spec: ExperimentSpec, workdir: Path, *, verbose: bool = False
) -> Iterator[tuple[list[RunKey], Dataset]]:
    """Yields the runs of every fold with its data.

    Args:
        spec: The experiment.
        workdir: The work folder.
        verbose: Print which data are used.
    """
    # All seeds of a fold come before the next fold, so one fold is in memory.
    pairs = fold_seed_pairs(spec, workdir)
    for fold, keys in itertools.groupby(pairs, key=lambda key: key.fold):
        data = build_data.build_dataset(spec, fold)
        # The ids of all stages, before the first is trained.
        build_data.check_ids(spec, data)
        data = with_label_warnings(data, spec.data.label)
        if verbose:
            for line in dataset_lines(data, spec.data.label):
                log(line)
        yield list(keys), data


def with_label_warnings(data: Dataset, label: str) -> Dataset:
    """Returns a dataset whose warnings name labels that cannot be learned or scored."""
    names = data.classes.get(label) or data.flags.get(label) or ()
    if label not in (*data.classes, *data.flags, *data.values):
        return data  # an error that names all labels follows
    labels = {split: data.label(split, label) for split in data.sources}
    found = label_warnings(labels, label, names)
    given = data.facts.get("warnings", ())
    facts = {**data.facts, "warnings": [*given, *found]}
    return dataclasses.replace(data, facts=facts) if found else data


def dataset_lines(data: Dataset, label: str) -> Iterator[str]:
    """Yields which data are used, with the hints and warnings of the dataset."""
    counts = ", ".join(f"{len(s)} {split}" for split, s in data.sources.items())
    yield f"data: {data.title}: {counts}; label {shown(label)}"
    yield from data.facts.get("hints", ())
    for warning in data.facts.get("warnings", ()):
        # A warning that lists clips has several lines.
        first, *others = warning.split("\n")
        yield f"warning: {shorten(first)}"
        yield from map(shorten, others)
