"""Models to export, with random weights, and what others make of the exported ones."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import small_configs
import tiny_dataset
from ml_collections import ConfigDict
from paths import TESTS

from mmfusion_jax.config import build
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.fingerprint import fingerprint
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.inference.predictor import Predictor
from mmfusion_jax.inference.trained_run import TrainedRun
from mmfusion_jax.results.run_identity import RunIdentity
from mmfusion_jax.runner.predictor import predictor_info

LOSSES = {"label": "cross_entropy", "score": "l1", "flags": "multilabel"}
"""Label of the tiny dataset -> its loss."""


def tones(label: str = "label", **changes) -> ConfigDict:
    """A linear model of both modalities of the tiny dataset."""
    made = tiny_dataset.config(**{"data.label": label, "train.epochs": 2})
    made.model = dict(name="concat_fc", hidden_dims=(4,), encoders={})
    for name in ("audio", "video"):
        made.model.encoders[name] = dict(name="feature_tokens", hidden_dim=4)
    made.losses = dict(task=dict(name=LOSSES[label], weight=1.0))
    made.train.selection_metric = "loss"  # which every label has
    made.update_from_flattened_dict(changes)
    return made


def random_run(config: ConfigDict, data: Dataset, folder: Path) -> TrainedRun:
    """A run of a model that was not trained, in a folder without files."""
    spec = resolve(config)
    parts = build.build_components(spec, data, 3)
    state = small_configs.start(parts, Pipeline(data, batch_size=1).dummy_batch())
    identity = RunIdentity(0, spec.seed, "", "0" * 64, fingerprint(data))
    info = predictor_info(data, parts.task, identity)
    model = build.build_model(spec, parts.task, None)
    variables = jax.device_get({"params": state.params, "batch_stats": state.stats})
    return TrainedRun(folder, spec, info, model, variables, 0, None)


def raw_examples(
    predictor: Predictor, count: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and masks, in turn with all modalities, without one each, and none."""
    rng = np.random.default_rng(0)
    info, names = predictor.run.info, predictor.modalities
    inputs, masks = {}, {}
    for number, name in enumerate(names):
        spec = info.inputs[name]
        shape, dtype = (count, *spec.shape), np.dtype(spec.dtype)
        if np.issubdtype(dtype, np.floating):
            inputs[name] = rng.normal(size=shape).astype(dtype)
        else:
            high = 256 if dtype == np.uint8 else small_configs.WORDS
            inputs[name] = rng.integers(1, high, shape).astype(dtype)
        masks[name] = rng.random(shape[:2]) < 0.8
        masks[name][:, 0] = True
        masks[name][number + 1 :: len(names) + 2] = False
        masks[name][len(names) + 1 :: len(names) + 2] = False
    return inputs, masks


def library_outputs(
    predictor: Predictor, inputs: Mapping[str, Any], masks: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Predictions and weights of this package, of scaled inputs, a row at a time."""
    from mmfusion_jax.types import Batch

    rows = []
    for i in range(len(masks[predictor.modalities[0]])):
        take = lambda part, i=i: {m: part[m][i : i + 1] for m in predictor.modalities}
        batch = Batch(take(inputs), take(masks))
        rows.append(jax.device_get(predictor._step(predictor._variables, batch)))
    joined = jax.tree.map(lambda *x: np.concatenate(x), *rows)
    weights = {f"weights/{name}": x for name, x in joined["weights"].items()}
    return {"prediction": joined["prediction"], **weights}


def outputs_elsewhere(
    folder: Path, scratch: Path, inputs: Mapping[str, Any], masks: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Predictions of an exported folder in a process without this package."""
    import flatbuffers  # its folder, in case it is not with the other libraries

    arrays = {f"inputs/{name}": x for name, x in inputs.items()}
    arrays |= {f"masks/{name}": x for name, x in masks.items()}
    np.savez(scratch / "in.npz", **arrays)
    keep = ("PATH", "HOME", "JAX_PLATFORMS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    done = subprocess.run(
        [
            *(sys.executable, "-P", str(TESTS / "subprocess_reload.py"), "README.md"),
            *(str(scratch / "in.npz"), str(scratch / "out.npz")),
        ],
        cwd=folder,
        env={name: os.environ[name] for name in keep if name in os.environ}
        | {"PYTHONPATH": str(Path(flatbuffers.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(scratch / "out.npz"))
