"""What a run stores for the use of its model without the training data."""

from pathlib import Path

import numpy as np

from mmfusion_jax.data.dataset import Dataset, RegressionTarget
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.results.json_file import write_json
from mmfusion_jax.results.predictor_file import (
    PREDICTOR_FILE,
    ArraySpec,
    PredictorInfo,
    hashed_id,
)
from mmfusion_jax.results.run_identity import RunIdentity
from mmfusion_jax.tasks import Task


def write_predictor(
    folder: Path, data: Dataset, task: Task, identity: RunIdentity
) -> None:
    """Writes `predictor.json` of a run.

    Args:
        folder: Folder of the run.
        data: Its data.
        task: The label that it predicts.
        identity: The run.
    """
    write_json(folder / PREDICTOR_FILE, predictor_info(data, task, identity))


def predictor_info(data: Dataset, task: Task, identity: RunIdentity) -> PredictorInfo:
    """Returns what is needed to use a model without its training data.

    Args:
        data: The training data.
        task: The label that the model predicts.
        identity: The run.
    """
    first = data.source("train")[0]
    spec = lambda x: ArraySpec(np.shape(x), np.asarray(x).dtype.name)
    return PredictorInfo(
        title=data.title,
        task=task.info(),
        inputs={name: spec(x) for name, x in first["inputs"].items()},
        labels={name: spec(x) for name, x in first["labels"].items()},
        targets={
            name: (one.low, one.high, one.neutral, one.family)
            for name, one in data.values.items()
        },
        prior=task.prior(data.label("train", task.label)).tolist(),
        preprocessing=data.preprocessing,
        identity=identity,
        train_ids=[hashed_id(str(name)) for name in data.example_ids.get("train", ())],
    )


def outline_of(info: PredictorInfo) -> Dataset:
    """Returns the training data without their examples: shapes, classes and sizes.

    A model is built from it as from the data, and restores the checkpoints of the run.

    Args:
        info: What the run stores.
    """
    found = info.identity.data
    flags = {
        name: tuple(names)
        for name, names in found.classes.items()
        if name in info.labels and info.labels[name].shape
    }
    return outline_dataset(
        found.dataset,
        info.title,
        {split: part.count for split, part in found.splits.items()},
        {name: (one.shape, one.dtype) for name, one in info.inputs.items()},
        classes={n: tuple(c) for n, c in found.classes.items() if n not in flags},
        values={n: RegressionTarget(*target) for n, target in info.targets.items()},
        flags=flags,
    )
