"""A run of a small made-up model, for tests of the demo without a training."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import msgspec
import numpy as np
import sample_results
from small_configs import SHAPES, digits, small

from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.fingerprint import fingerprint
from mmfusion_jax.inference.predictor import Predictor
from mmfusion_jax.inference.trained_run import TestScores, TrainedRun
from mmfusion_jax.results.calibration_file import Calibration
from mmfusion_jax.results.model_result import TaskInfo
from mmfusion_jax.results.predictor_file import (
    ArraySpec,
    PredictorInfo,
    Preprocessing,
    Tokenizer,
)
from mmfusion_jax.results.run_identity import RunIdentity
from mmfusion_jax.types import WEIGHT_PREFIX, Batch, Outputs

TASKS = {
    "classification": TaskInfo("digit", "classification", ["low", "middle", "high"]),
    "regression": TaskInfo("value", "regression", range=(-3.0, 3.0)),
    "multilabel": TaskInfo("flags", "multilabel", flags=["even", "large"]),
}
VOCABULARY = ["", "zero", "one", "two", "three", "four", "five", "six"]


@dataclasses.dataclass(frozen=True)
class MeanModel:
    """The output is a sum over modalities, the weight of each is known.

    Attributes:
        kind: Kind of the label.
    """

    kind: str

    def apply(self, variables: Any, batch: Batch, *, train: bool) -> Outputs:
        total = jnp.zeros(batch.weight.shape)
        present = {m: x.any(axis=1) for m, x in batch.masks.items()}
        for number, name in enumerate(sorted(batch.inputs)):
            values, mask = batch.inputs[name], batch.masks[name]
            axes = tuple(range(2, values.ndim))
            steps = jnp.where(mask, values.astype(jnp.float32).mean(axis=axes), 0)
            total += (number + 1) * steps.sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)
        count = jnp.maximum(sum(present.values()), 1)  # type: ignore[arg-type]
        aux = {WEIGHT_PREFIX + m: one / count for m, one in present.items()}
        outputs = {
            "classification": jnp.stack([-total, 0 * total, total], axis=-1),
            "regression": total,
            "multilabel": jnp.stack([0 * total, total, 0 * total, -total], axis=-1),
        }
        return Outputs(outputs[self.kind], aux)


def predictor(folder: Path, kind: str = "classification", **changes: Any) -> Predictor:
    """A predictor whose run has the inputs of the small digits.

    Args:
        folder: Folder of the run.
        kind: Kind of the label.
        changes: Fields of `TrainedRun`.
    """
    task = TASKS[kind]
    size = {"classification": (3,), "regression": (), "multilabel": (4,)}[kind]
    dtypes = {m: "int32" if m == "text" else "float32" for m in SHAPES}
    identity = msgspec.convert(sample_results.identity(), RunIdentity)
    identity = dataclasses.replace(identity, data=fingerprint(digits()))
    info = PredictorInfo(
        title="small digits (made up)",
        task=task,
        inputs={m: ArraySpec(shape, dtypes[m]) for m, shape in SHAPES.items()},
        labels={task.label: ArraySpec((2,) if task.flags else (), "int32")},
        targets={task.label: (-3.0, 3.0, 0.0, "plain")} if task.range else {},
        prior=np.zeros(size).tolist(),
        preprocessing=Preprocessing(tokenizer=Tokenizer(VOCABULARY, 5, True)),
        identity=identity,
    )
    scores = [0.05, 0.2, 0.4, 0.6] * 5
    rows = 2 if kind == "multilabel" else 1
    calibration = Calibration(20, 1.5, [sorted(scores)] * rows, None)
    run = TrainedRun(
        folder,
        resolve(small("of_cmaer_cat")),
        info,
        MeanModel(kind),  # type: ignore[arg-type]
        {"params": {}, "batch_stats": {}},
        40,
        calibration,
        scores=TestScores("accuracy", 0.75, {"audio": 0.5}),
    )
    return Predictor(dataclasses.replace(run, **changes), 1)


def components() -> SimpleNamespace:
    """What the handlers of the page take from Gradio."""
    return SimpleNamespace(Dropdown=lambda **values: values, skip=lambda: "skipped")
