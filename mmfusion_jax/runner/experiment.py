"""Runs every fold and seed, unimodal stages first, and writes the report."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmfusion_jax.config import build_data
from mmfusion_jax.config.resolve import unimodal_spec
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.fingerprint import fingerprint
from mmfusion_jax.errors import (
    CheckpointError,
    ConfigError,
    DivergedError,
    shorten,
    shown_name,
)
from mmfusion_jax.report import write_report
from mmfusion_jax.results.experiment_result import (
    RESULT_FILE,
    ExperimentResult,
    RunEvaluation,
    RunResult,
    read_result,
)
from mmfusion_jax.results.json_file import as_read, to_json, write_json
from mmfusion_jax.results.model_result import RUN_FILE, ModelResult, read_run
from mmfusion_jax.results.run_identity import (
    DataFingerprint,
    RunIdentity,
    config_sha256,
    sha256_json,
)
from mmfusion_jax.runner.folds import folds_with_data, runs_with_data
from mmfusion_jax.runner.identity import (
    check_checkpoints,
    check_config,
    check_identity,
    check_result_config,
)
from mmfusion_jax.runner.make_result import (
    experiment_result,
    print_summary,
    run_result,
)
from mmfusion_jax.runner.parallel_seeds import SeedRun, train_seeds, trains_at_once
from mmfusion_jax.runner.run_checkpoints import check_step, log
from mmfusion_jax.runner.trainer import PretrainedModel, Trainer
from mmfusion_jax.runner.workdir import (
    CHECKPOINTS,
    RunKey,
    check_is_folder,
    check_workdir,
    fold_seed_pairs,
    has_runs,
)
from mmfusion_jax.runner.workdir_lock import locked
from mmfusion_jax.training.signals import GracefulShutdown
from mmfusion_jax.training.state import TrainState


class Experiment:
    """An experiment with its work folder, and its trainers, each built once.

    Args:
        spec: The experiment.
        workdir: The work folder.
    """

    def __init__(self, spec: ExperimentSpec, workdir: Path):
        self.spec = spec
        self.workdir = workdir
        self._trainers: dict[str, Trainer] = {}
        self._fingerprints: dict[int, DataFingerprint] = {}

    def trainer(self, data: Dataset, stage: str = "") -> Trainer:
        """Returns the trainer of the model, or of one of its unimodal stages."""
        # One trainer for all folds and seeds, so that steps are compiled once: the data
        # of all folds have the same shapes.
        if stage not in self._trainers:
            spec = unimodal_spec(self.spec, stage) if stage else self.spec
            try:
                self._trainers[stage] = Trainer(spec, data)
            except ConfigError as error:
                if error.code != "C05" or not has_runs(self.workdir):
                    raise
                raise _batch_size_of_run(self.spec, error) from error
        return self._trainers[stage]

    def identity(self, key: RunKey, data: Dataset, stage: str = "") -> RunIdentity:
        """Returns what a run, or one of its unimodal stages, depends on.

        Args:
            key: The run.
            data: Its fold.
            stage: Modality of the stage; "" for the model.

        Raises:
            CheckpointError: The processes of this run have different data.
        """
        if key.fold not in self._fingerprints:
            found = fingerprint(data)
            _check_processes(found)
            self._fingerprints[key.fold] = found
        sha256 = config_sha256(self.spec.source)
        data_of_fold = self._fingerprints[key.fold]
        return RunIdentity(key.fold, key.seed, stage, sha256, data_of_fold)

    def train(
        self, keys: Sequence[RunKey], data: Dataset, shutdown: GracefulShutdown
    ) -> list[RunResult]:
        """Trains the seeds of a fold: unimodal stages first, then the model.

        Args:
            keys: The seeds of one fold.
            data: The fold.
            shutdown: Records signals of the user and the system.
        """
        names = (*self.spec.pretrain_unimodal, "")
        # All seeds at once, one stage after the other; or one seed after the other.
        if self._parallel(keys, data):
            found = {
                name: self._train_stage(name, keys, data, shutdown) for name in names
            }
        else:
            rows = [
                {name: self._train_stage(name, [key], data, shutdown) for name in names}
                for key in keys
            ]
            found = {name: [row[name][0] for row in rows] for name in names}
        return [
            run_result(
                key,
                found[""][i],
                {name: found[name][i] for name in self.spec.pretrain_unimodal},
            )
            for i, key in enumerate(keys)
        ]

    def _train_stage(
        self,
        stage: str,
        keys: Sequence[RunKey],
        data: Dataset,
        shutdown: GracefulShutdown,
    ) -> list[ModelResult]:
        """Trains a unimodal stage, or the model, of one seed or of several at once."""
        trainer = self.trainer(data, stage)
        name = f"{shown_name(stage)} only" if stage else self.spec.model.model.name
        runs = [
            SeedRun(
                self.identity(key, data, stage),
                self.folder(key, stage),
                tuple if stage else self._pretrained_models(key, data),
            )
            for key in keys
        ]
        if len(runs) > 1:
            return train_seeds(trainer, data, runs, _title(name, keys), shutdown)
        (run,) = runs
        title = _title(name, keys)
        return [
            trainer.train(
                data, run.identity, run.folder, title, shutdown, run.pretrained
            )
        ]

    def _parallel(self, keys: Sequence[RunKey], data: Dataset) -> bool:
        """Returns whether the seeds of a fold train at once; prints why."""
        count = sum(read_run(self.folder(key)) is None for key in keys)
        return count > 1 and trains_at_once(self.trainer(data), count)

    def evaluate(self, key: RunKey, data: Dataset) -> RunEvaluation:
        """Returns the scores of every split at the selected checkpoint of a run."""
        trainer, state = self.trainer(data), self.best_state(key, data)
        pipeline = build_data.build_pipeline(self.spec, data, key.seed)
        splits = [
            split for split in ("train", "valid", "test") if split in data.sources
        ]
        scores = trainer.evaluate(state.variables, pipeline, splits)
        found = RunEvaluation(
            key.fold,
            key.seed,
            key.folder,
            int(state.step),
            scores,
            {split: len(data.sources[split]) for split in splits},
        )
        return as_read(found)

    def best_state(self, key: RunKey, data: Dataset, stage: str = "") -> TrainState:
        """Returns the selected state of a trained run, or of one of its stages.

        Args:
            key: The run.
            data: Its fold.
            stage: Modality of the stage; "" for the model.

        Raises:
            ConfigError: The files of the run belong to another one.
            CheckpointError: It has no checkpoint, another one than that of its result,
                or was trained on other data.
        """
        folder, identity = self.folder(key, stage), self.identity(key, data, stage)
        trainer = self.trainer(data, stage)
        check_checkpoints(folder / CHECKPOINTS, identity, self.spec.source)
        trainer.finished(folder, identity)
        return trainer.best_state(folder)

    def check_runs(self, keys: Sequence[RunKey], data: Dataset) -> None:
        """Checks that the runs of a fold and their stages belong to this experiment.

        Args:
            keys: The seeds of one fold.
            data: The fold.

        Raises:
            ConfigError: A file is of another config, fold or seed.
            CheckpointError: Its data were others.
        """
        for key in keys:
            for stage in (*self.spec.pretrain_unimodal, ""):
                folder = self.folder(key, stage)
                identity = self.identity(key, data, stage)
                check_checkpoints(folder / CHECKPOINTS, identity, self.spec.source)
                if (result := read_run(folder)) is not None:
                    check_identity(str(folder / RUN_FILE), result.identity, identity)

    def check_finished(self, result: ExperimentResult) -> None:
        """Checks that a result is that of this experiment and its data.

        Args:
            result: Content of `result.json`.

        Raises:
            ConfigError: It is of another config, fold or seed.
            CheckpointError: Its data were others.
        """
        path = self.workdir / RESULT_FILE
        check_result_config(path, result)
        check_config(str(path), result.config, self.spec.source)
        runs = {(run.fold, run.seed): run for run in result.runs}
        for key, data in runs_with_data(self.spec, self.workdir):
            if (run := runs.get((key.fold, key.seed))) is None:
                raise ConfigError(
                    "C09",
                    f"{path} does not have fold {key.fold}, seed {key.seed}.",
                    f"delete {path} and rerun: finished runs are kept",
                )
            check_identity(str(path), run.identity, self.identity(key, data))
            if not any((self.folder(key) / CHECKPOINTS).glob("[0-9]*")):
                folder = self.folder(key)
                log(f"warning: {folder} does not contain a checkpoint")

    def folder(self, key: RunKey, stage: str = "") -> Path:
        """Returns the folder of a run, or of one of its unimodal stages."""
        folder = self.workdir / key.folder
        return folder / "stages" / stage if stage else folder

    def _pretrained_models(
        self, key: RunKey, data: Dataset
    ) -> Callable[[], Sequence[PretrainedModel]]:
        """Returns a function that reads the trained unimodal stages of a run."""

        # A function, because a run that resumes or is finished does not read them.
        def read() -> list[PretrainedModel]:
            states = [
                self.best_state(key, data, name) for name in self.spec.pretrain_unimodal
            ]
            return [PretrainedModel(state.params, state.stats) for state in states]

        return read


def train(
    spec: ExperimentSpec,
    workdir: Path,
    command: str,
    shutdown: GracefulShutdown | None = None,
) -> ExperimentResult:
    """Trains what is not trained yet and writes `result.json` and `report.html`.

    Args:
        spec: The experiment.
        workdir: The work folder. An interrupted experiment resumes; a finished one
            stays as it is, or gets the seeds that are missing.
        command: The command line, for the report.
        shutdown: Handles signals; by default, the second one ends the process.

    Raises:
        ConfigError: The folder belongs to another config.
        CheckpointError: A file of the work folder is corrupted, was trained on other
            data, or another process writes to it.
        MissingDependencyError: E06, the folder cannot be used.
        Interrupted: A signal arrived; everything is saved.
    """
    # Without the lock, which a folder that is only read does not need.
    if result := _finished(spec, workdir):
        return result
    with locked(workdir):
        check_workdir(spec, workdir, record=False)
        return _train(spec, workdir, command, shutdown or GracefulShutdown())


def _finished(spec: ExperimentSpec, workdir: Path) -> ExperimentResult | None:
    """Returns and prints the result of a finished experiment; None if it is not."""
    check_is_folder(workdir)
    result = read_result(workdir)
    if result is None or len(result.runs) != len(fold_seed_pairs(spec, workdir)):
        return None
    check_workdir(spec, workdir, create=False)
    Experiment(spec, workdir).check_finished(result)
    log(
        f"{workdir} already contains a finished experiment; use a new --workdir to "
        "rerun."
    )
    print_summary(result, workdir / "report.html")
    return result


def _train(
    spec: ExperimentSpec, workdir: Path, command: str, shutdown: GracefulShutdown
) -> ExperimentResult:
    """Trains what is not trained yet, and writes the result."""
    experiment, runs, data = Experiment(spec, workdir), [], None
    for keys, data in folds_with_data(spec, workdir, verbose=True):
        experiment.check_runs(keys, data)
        # After this check: what is refused changes nothing.
        check_workdir(spec, workdir)
        with shutdown:  # not while data are prepared, where there is nothing to save
            runs += experiment.train(keys, data, shutdown)
    assert data is not None  # every experiment has a fold and a seed
    # As read: callers get the same values for a new result and for a finished one.
    trainer = experiment.trainer(data)
    result = as_read(experiment_result(spec, command, data, trainer, runs))
    if jax.process_index() == 0:
        write_json(workdir / RESULT_FILE, result)
        print_summary(result, write_report(workdir, result))
    return result


def check_finite(undefined: Sequence[str]) -> None:
    """Raises DivergedError if scores are not defined.

    Args:
        undefined: Result of `undefined_in_runs` or `undefined_in_evaluations`.
    """
    if undefined:
        more = f"; and {len(undefined) - 1} more" if len(undefined) > 1 else ""
        raise DivergedError(
            "N02",
            f"{shorten(undefined[0])}{more}.",
            "look for very large values in these examples, or train with "
            "--config.optim.clip_norm=1.0 or a lower --config.optim.learning_rate",
        )


def evaluate(spec: ExperimentSpec, workdir: Path) -> list[RunEvaluation]:
    """Returns the scores of the selected checkpoints of a finished experiment.

    Raises:
        ConfigError: The folder belongs to another config.
        CheckpointError: A run has no checkpoint, another one than that of its result,
            or was trained on other data.
    """
    check_workdir(spec, workdir, create=False)
    experiment = Experiment(spec, workdir)
    found = [
        experiment.evaluate(key, data) for key, data in runs_with_data(spec, workdir)
    ]
    result = read_result(workdir)
    steps = {(run.fold, run.seed): run.step for run in result.runs} if result else {}
    for one in found:
        step = steps.get((one.fold, one.seed), one.step)
        check_step(workdir / RESULT_FILE, step, one.step)
    return found


def _batch_size_of_run(spec: ExperimentSpec, error: ConfigError) -> ConfigError:
    """Returns C05 for a workdir with runs, whose batch size cannot change any more."""
    rows = spec.data.batch_size // spec.optimizer.gradient_accumulation_steps
    counts = [n for n in range(1, jax.device_count()) if rows % n == 0]
    return ConfigError(
        "C05",
        str(error.args[0]),
        f"this workdir was begun with batch_size={spec.data.batch_size:d}: use "
        f"{' or '.join(map(str, counts))} devices, such as CUDA_VISIBLE_DEVICES=0; or "
        "another --workdir with another batch size",
    )


def _check_processes(found: DataFingerprint) -> None:
    """Raises CheckpointError if the processes of this run have different data."""
    if jax.process_count() == 1:
        return
    own = np.frombuffer(bytes.fromhex(sha256_json(to_json(found))), np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(own))
    other = [i for i, row in enumerate(rows) if (row != rows[0]).any()]
    if other:
        raise CheckpointError(
            "K07",
            f"process {other[0]:d} of this run has other data than process 0.",
            "give all processes the same data",
        )


def _title(model: str, keys: Sequence[RunKey]) -> str:
    """Returns the title of a run, with fold and seed if there are several."""
    key, *others = keys
    if others:  # the seeds are named where they are trained
        suffix = f" fold {key.fold}"
        return f"{model}{suffix}"
    suffix = "" if key.folder == "." else f" fold {key.fold} seed {key.seed}"
    return f"{model}{suffix}"
