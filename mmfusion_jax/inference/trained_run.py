"""Finds a trained run in a folder and builds its model without the training data."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from mmfusion_jax.config import build
from mmfusion_jax.config.base import with_defaults
from mmfusion_jax.config.optimizer import build_optimizer
from mmfusion_jax.config.registry import is_import_path, package_of
from mmfusion_jax.config.resolve import resolve, unimodal_spec
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.errors import (
    CheckpointError,
    ConfigError,
    shorten,
    shown,
    shown_name,
)
from mmfusion_jax.results.calibration_file import Calibration, read_calibration
from mmfusion_jax.results.config_file import CONFIG_FILE, read_config
from mmfusion_jax.results.experiment_result import read_result
from mmfusion_jax.results.export_file import is_exported
from mmfusion_jax.results.json_file import Number
from mmfusion_jax.results.model_result import ModelResult, read_run
from mmfusion_jax.results.predictor_file import (
    PREDICTOR_FILE,
    PredictorInfo,
    read_predictor,
)
from mmfusion_jax.runner.predictor import outline_of
from mmfusion_jax.runner.run_checkpoints import restore_selected
from mmfusion_jax.training.state import create_state
from mmfusion_jax.types import Model, PyTree

OWN = ("mmfusion_jax", "optax")
"""Packages whose parts a stored config can name."""


@dataclasses.dataclass(frozen=True)
class TestScores:
    """Score of a run on the test split, by its selection metric.

    Attributes:
        metric: Name of the metric.
        score: With all modalities.
        without: Modality -> score if all examples lack it; {} if not measured.
    """

    metric: str
    score: Number
    without: Mapping[str, Number]


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A model with its trained variables.

    Attributes:
        folder: Folder of the run.
        spec: The experiment.
        info: What the run stores for the use of its model.
        model: Maps a Batch to Outputs.
        variables: Its variables, on the host.
        step: Step of the checkpoint.
        calibration: Calibration of the run; None if it has none.
        remarks: Sentences about the run, such as which of several seeds it is.
        scores: Its scores on the test split; None if the training has not ended.
    """

    folder: Path
    spec: ExperimentSpec
    info: PredictorInfo
    model: Model
    variables: PyTree
    step: int
    calibration: Calibration | None
    remarks: tuple[str, ...] = ()
    scores: TestScores | None = None


def read_trained_run(path: Path, packages: Collection[str] = ()) -> TrainedRun:
    """Reads a run and restores its selected checkpoint.

    Args:
        path: A workdir, or the folder of one of its runs.
        packages: Other packages whose parts the config can name.

    Raises:
        CheckpointError: The folder has no trained run, or a file of it is corrupted.
        ConfigError: The config names a part of another package.
    """
    if is_exported(path):
        from mmfusion_jax.inference.exported_folder import read_exported  # imports this

        return read_exported(path, packages)
    folder, remarks = find_run(path)
    info = read_predictor(folder)
    if info is None:
        raise no_run(path)
    config = _config_of(folder)
    check_packages(config, packages, folder)
    spec = resolve(with_defaults(config))
    if stage := info.identity.stage:
        spec = unimodal_spec(spec, stage)
    model, abstract = build_for_prediction(spec, info)
    state = restore_selected(folder, abstract)
    variables = {"params": state.params, "batch_stats": state.stats}
    result = read_run(folder)
    if result is None:
        remarks = (*remarks, f"the training has not ended: step {int(state.step):d}")
    return TrainedRun(
        folder,
        spec,
        info,
        model,
        jax.device_get(variables),
        int(state.step),
        read_calibration(folder),
        remarks,
        None if result is None else _test_scores(spec, result),
    )


def _test_scores(spec: ExperimentSpec, result: ModelResult) -> TestScores:
    """Returns the test scores of a result."""
    name = spec.training.selection_metric
    without = result.diagnosis.without if result.diagnosis else {}
    return TestScores(
        name,
        result.test.scores.get(name),
        {modality: scores.get(name) for modality, scores in without.items()},
    )


def find_run(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Returns the folder of a run, and a remark if there were several.

    Of several seeds or folds, the run with the best validation score is returned.

    Args:
        path: A workdir, or the folder of a run.

    Raises:
        CheckpointError: The folder has no run.
    """
    if (path / PREDICTOR_FILE).is_file():
        return path, ()
    folders = sorted(one.parent for one in path.glob(f"fold_*/seed_*/{PREDICTOR_FILE}"))
    if not folders:
        raise no_run(path)
    if len(folders) == 1:
        return folders[0], ()
    result = read_result(path)
    if result is None:
        raise CheckpointError(
            "K09",
            f"{path} contains {len(folders)} runs, and the experiment is not finished.",
            f"finish the training, or use one of them: --run={shorten(folders[0])}",
        )
    name = result.selection_metric
    sign = 1 if result.metrics[name].higher_is_better else -1
    scored = {}
    for run in result.runs:
        score = run.valid.scores.get(name) if run.valid else None
        if score is not None:
            scored[path / run.folder] = sign * score
    # Never by the test score, which would then be that of a selected run.
    first = path / result.runs[0].folder
    best = max(scored, key=lambda folder: scored[folder], default=first)
    label = result.metrics[name].label
    reason = f"the one with the best validation {shown_name(label)}"
    if not scored:
        reason = "the first one: they do not have a validation score"
    where = best.relative_to(path)
    return best, (f"{where} of {len(result.runs)} runs, {reason}",)


def no_run(path: Path) -> CheckpointError:
    """Returns the error for a folder without a run that can make predictions."""
    what = "does not exist" if not path.exists() else "is not a folder"
    if path.is_dir():
        what = f"does not contain {PREDICTOR_FILE}, which a training writes"
    return CheckpointError(
        "K09",
        f"--run={shorten(path)} {what}.",
        "specify the workdir of a training, such as --run=runs/cfn_sr, or an exported "
        "folder; a run of an older version must be trained again",
    )


def _config_of(folder: Path) -> dict[str, Any]:
    """Returns the config of a run, which is in its workdir."""
    # Of a run, or of a unimodal stage of it.
    for path in (folder, *folder.absolute().parents[:4]):
        if (found := read_config(path)) is not None:
            return found.config
    raise CheckpointError(
        "K09",
        f"{folder} does not have a {CONFIG_FILE}.",
        f"restore {CONFIG_FILE}; result.json of the workdir has the config too",
    )


def check_packages(
    config: Mapping[str, Any], packages: Collection[str], folder: Path
) -> None:
    """Raises ConfigError if a stored config names code of another package.

    A folder may come from somebody else, and building the model would run this code.

    Args:
        config: The config.
        packages: Packages that are allowed.
        folder: Where it is stored.
    """
    for where, name in _import_paths(config, "config"):
        package = package_of(name)
        if package not in (*OWN, *packages):
            raise ConfigError(
                "C39",
                f"{folder}: {shorten(where)}={shown(name)} would run code of the "
                f"package {shown(package)}.",
                f"if you trust it: --packages={shorten(package)}, or "
                f"packages=({shown(package)},) in Python",
            )


def _import_paths(value: Any, where: str):
    """Yields the fields of a config whose value is an import path."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _import_paths(item, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _import_paths(item, where)
    elif isinstance(value, str) and is_import_path(value):
        yield where, value


def build_for_prediction(
    spec: ExperimentSpec, info: PredictorInfo
) -> tuple[Model, PyTree]:
    """Returns the model and the shapes of its training state, on the first device.

    Args:
        spec: The experiment.
        info: Shapes and classes of its data.
    """
    data = outline_of(info)
    task = build.build_task(spec, data)
    model = build.build_model(spec, task, None)
    batch = Pipeline(data, batch_size=1).dummy_batch()
    # The number of steps is that of a schedule, which has no state.
    tx = build_optimizer(spec.optimizer, 1)
    state = jax.eval_shape(
        lambda key: create_state(model, tx, batch, key), jax.random.key(0)
    )
    one = SingleDeviceSharding(jax.local_devices()[0])
    abstract = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one)
    return model, jax.tree.map(abstract, state)
