"""Trains one fold and seed, resuming if possible."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np

from mmfusion_jax.analysis.cost import count_macs_per_example, count_parameters
from mmfusion_jax.analysis.diagnosis import leave_out
from mmfusion_jax.analysis.modality_weights import mean_modality_weights
from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.dataset_checks import check_splits
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.errors import (
    CheckpointError,
    describe_exception,
    shown,
    shown_name,
)
from mmfusion_jax.metrics.calibration import calibrate
from mmfusion_jax.metrics.nonfinite import compute_scores, rows_are_finite
from mmfusion_jax.metrics.predictions_table import write_predictions_csv
from mmfusion_jax.metrics.score_info import with_loss
from mmfusion_jax.models.transfer import copy_submodules
from mmfusion_jax.results.calibration_file import CALIBRATION_FILE
from mmfusion_jax.results.json_file import as_read, to_json, write_json
from mmfusion_jax.results.model_result import (
    RUN_FILE,
    Baseline,
    DeviceSpan,
    Diagnosis,
    Evaluation,
    ModelResult,
    read_run,
)
from mmfusion_jax.results.predictions_file import write_predictions
from mmfusion_jax.results.run_identity import RunIdentity
from mmfusion_jax.results.saved_file import read_saved
from mmfusion_jax.runner.diagnosis import Diagnoser
from mmfusion_jax.runner.identity import (
    CONFIG,
    DEVICES,
    RUN,
    check_identity,
)
from mmfusion_jax.runner.predictor import write_predictor
from mmfusion_jax.runner.programs import Programs
from mmfusion_jax.runner.run_checkpoints import (
    device_spans,
    discard_after_missing_best,
    log,
    not_saved,
    open_checkpoints,
    require_saved,
    restore_selected,
)
from mmfusion_jax.tasks import constant_baseline_scores
from mmfusion_jax.training.checkpoint.manager import CheckpointManager
from mmfusion_jax.training.evaluation import collect
from mmfusion_jax.training.loop import Loop
from mmfusion_jax.training.metrics_log import MetricsLogger
from mmfusion_jax.training.plan import SelectionState, TrainPlan
from mmfusion_jax.training.signals import GracefulShutdown
from mmfusion_jax.training.state import TrainState
from mmfusion_jax.training.timing import peak_memory
from mmfusion_jax.types import Batch, PyTree
from mmfusion_jax.weights.convert import load


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
    """Variables of a trained model, to copy encoders from."""

    params: PyTree
    stats: PyTree


@dataclasses.dataclass(frozen=True)
class FinalScores:
    """What is known of a run that has ended.

    Attributes:
        valid: Scores of the selected checkpoint on the validation split, if any.
        valid_collected: Result of `collect` of the checkpoint there; {} without it.
        collected: Result of `collect` of the checkpoint on the test split.
        loss: Loss of the checkpoint on the test split.
        last: Scores of the last step on the test split.
    """

    valid: Evaluation | None
    valid_collected: Mapping[str, np.ndarray]
    collected: Mapping[str, np.ndarray]
    loss: float
    last: Evaluation


class Trainer:
    """Trains and evaluates an experiment, one fold and seed at a time.

    Compiled steps are kept: one object serves every fold and seed whose data have the
    same shapes.

    Args:
        spec: The experiment.
        data: Any fold of the dataset; other folds are given to the methods.

    Attributes:
        spec: The experiment.
        components: Its model, loss, optimizer and executor.
        plan: Its steps and evaluations.
        programs: The compiled functions of one seed.
        seeds_programs: Those of several seeds at once.
    """

    def __init__(self, spec: ExperimentSpec, data: Dataset):
        self.spec = spec
        pipeline = build_data.build_pipeline(spec, data, spec.seed)
        per_epoch = pipeline.steps_per_epoch
        steps = spec.training.epochs * per_epoch
        self.components = build.build_components(spec, data, steps)
        self.plan = build.build_plan(spec, self.components.task, per_epoch)
        self.programs = Programs(spec, self.components, pipeline.dummy_batch())
        self.seeds_programs = dataclasses.replace(self.programs, seeds=True)

    def train(
        self,
        data: Dataset,
        identity: RunIdentity,
        folder: Path,
        title: str,
        shutdown: GracefulShutdown,
        pretrained: Callable[[], Sequence[PretrainedModel]] = tuple,
    ) -> ModelResult:
        """Trains, or resumes, or returns the result of a finished run.

        Args:
            data: The fold.
            identity: The run.
            folder: Folder of this run.
            title: Name of the run, for the progress bar.
            shutdown: Records signals of the user and the system.
            pretrained: Returns models to copy encoders from; called by a new run only.

        Raises:
            ConfigError: The folder belongs to another run.
            CheckpointError: The result or the checkpoints of an earlier training are
                corrupted or were trained on other data; or the selected checkpoint is
                not on disk.
        """
        if (found := self.finished(folder, identity)) is not None:
            return found
        pipeline = build_data.build_pipeline(self.spec, data, identity.seed)
        self.prepare(folder, data, identity)
        # Every process trains and saves, since Orbax and collectives need all of them;
        # only the first one writes logs and results.
        first = jax.process_index() == 0
        with open_checkpoints(
            folder, self.spec.distributed.save_timeout
        ) as checkpoints:
            state, progress, recorded = self.restore_or_start(
                checkpoints, identity, pretrained
            )
            logger = MetricsLogger(folder if first else None, title, int(state.step))
            loop = Loop(
                plan=self.plan,
                step=self.programs.train_step,
                batches=functools.partial(self._batches, pipeline),
                evaluate=lambda state: self.evaluate(state.variables, pipeline),
                state=state,
                saver=checkpoints,
                logger=logger,
                shutdown=shutdown,
                progress=progress,
                identity=recorded,
                require_best=functools.partial(require_saved, checkpoints),
                gradients=self.programs.gradients,
            )
            with logger:
                logger.log(f"{title}: {describe_start(int(state.step), self.plan)}")
                loop.run()
            # The best step may be the last one, which is still being written.
            checkpoints.wait()
            selected = self.selected(checkpoints, loop)
            scores = FinalScores(
                *self._on_valid(selected.variables, pipeline),
                *self.collect(selected.variables, pipeline, "test"),
                self.evaluate(loop.state.variables, pipeline, ("test",))["test"],
            )
            result = self.result(loop, selected, pipeline, scores)
        if first:
            self.write(folder, data, scores, result)
        return as_read(result)

    def _on_valid(
        self, variables: PyTree, pipeline: Pipeline
    ) -> tuple[Evaluation | None, dict[str, np.ndarray]]:
        """Returns scores and predictions of the validation split, if there is one."""
        if "valid" not in pipeline.dataset.sources:
            return None, {}
        collected, loss = self.collect(variables, pipeline, "valid")
        return self.scores(collected, loss), collected

    def finished(self, folder: Path, identity: RunIdentity) -> ModelResult | None:
        """Returns the result of a finished run in `folder`; None if there is none.

        Raises:
            ConfigError: The result is that of another run.
            CheckpointError: The result is corrupted, or is of other data.
        """
        if (result := read_run(folder)) is not None:
            check_identity(str(folder / RUN_FILE), result.identity, identity)
            self._check_result(result, folder / RUN_FILE)
        return result

    def prepare(self, folder: Path, data: Dataset, identity: RunIdentity) -> None:
        """Checks the labels and writes `predictor.json`.

        Args:
            folder: Folder of the run.
            data: The fold.
            identity: The run.

        Raises:
            DataError: A label is invalid.
        """
        self.check_labels(data)
        if jax.process_index() == 0:
            write_predictor(folder, data, self.components.task, identity)

    def write(
        self, folder: Path, data: Dataset, scores: FinalScores, result: ModelResult
    ) -> None:
        """Writes the predictions, their calibration and the result of a run."""
        # run.json is last: a folder with this file is a finished run, which is not
        # trained again, so it must have the predictions too.
        parts = {"valid": scores.valid_collected, "test": scores.collected}
        found = {
            split: (_ids(data, split, len(part["truth"])), part)
            for split, part in parts.items()
            if part
        }
        ids, test = found["test"]
        write_predictions(folder, ids, test["truth"], test["prediction"])
        task = self.components.task.info()
        calibration = calibrate(task, scores.valid_collected, test)
        # That of an earlier result must not stay beside this one.
        (folder / CALIBRATION_FILE).unlink(missing_ok=True)
        if calibration is not None:
            write_json(folder / CALIBRATION_FILE, calibration)
        write_predictions_csv(folder, task, found, calibration)
        write_json(folder / RUN_FILE, result)

    def _check_result(self, result: ModelResult, path: Path) -> None:
        """Raises CheckpointError unless a stored result fits the label."""
        task, found = self.components.task, result.test.scores.keys()
        names = with_loss(task.metrics().infos).keys()
        problem = result.plot_data.problem(task.info())
        if found != names:
            problem = f"score {shown(min(found ^ names))} is missing or unknown"
        if problem:
            fix = f"delete {path} and rerun: its checkpoints are kept"
            raise CheckpointError("K05", f"{path} is corrupted: {problem}.", fix)

    def evaluate(
        self, variables: PyTree, pipeline: Pipeline, splits: Sequence[str] = ()
    ) -> dict[str, Evaluation]:
        """Returns the scores of each split that the dataset has."""
        results = {}
        for split in splits or ("valid", "test"):
            if split in pipeline.dataset.sources:
                collected, loss = self.collect(variables, pipeline, split)
                results[split] = self.scores(collected, loss)
        return results

    def collect(
        self, variables: PyTree, pipeline: Pipeline, split: str, without: str = ""
    ) -> tuple[dict[str, np.ndarray], float]:
        """Returns what the metrics need of every example of `split`, and the loss.

        Args:
            variables: Variables of the model.
            pipeline: The data.
            split: The split.
            without: Modality that is masked in all examples; "" for none.
        """
        variables = self.with_prior(variables, pipeline.dataset)
        batches = self.eval_batches(pipeline, split, without)
        return collect(self.programs.eval_step, variables, batches)

    def with_prior(self, variables: PyTree, data: Dataset) -> PyTree:
        """Adds the prediction for examples without any modality that the model reads.

        It is what is known of the labels without the inputs.
        """
        task = self.components.task
        return {**variables, "prior": task.prior(data.label("train", task.label))}

    def eval_batches(
        self, pipeline: Pipeline, split: str, without: str = ""
    ) -> Iterator[Batch]:
        """Yields the batches of a split, on the devices.

        Args:
            pipeline: The data.
            split: The split.
            without: Modality that is masked in all examples; "" for none.
        """
        put = functools.partial(self.components.executor.put, train=False)
        return (put(leave_out(b, without)) for b in pipeline.evaluate(split))

    def best_state(self, folder: Path) -> TrainState:
        """Returns the selected state of a run that was trained in `folder`.

        Raises:
            CheckpointError: The folder has no checkpoint, or another one than that of
                its result.
        """
        return restore_selected(folder, self.programs.abstract_state)

    def _start(self, seed: int, pretrained: Sequence[PretrainedModel]):
        """Returns a new state, with encoders and heads of pretrained models."""
        state = self.programs.init(seed)
        params, stats = self._load_weights(state.params, state.stats)
        for source in pretrained:
            # Heads only if the model has unimodal heads, as late fusion does.
            for prefix in ("encoders_", "head_"):
                if any(name.startswith(prefix) for name in params):
                    params, stats = copy_submodules(
                        params, stats, source.params, source.stats, prefix
                    )
        # Parameters that were replaced are arrays of other trees, or of the host: the
        # first step donates its state and would delete them.
        copies = self.components.executor.copy((params, stats))
        return state.replace(params=copies[0], stats=copies[1])

    def _load_weights(self, params: PyTree, stats: PyTree) -> tuple[PyTree, PyTree]:
        """Returns the variables with the weights of files, where some are given."""
        for line in build.random_encoders(self.spec):
            log(line)
        trees = {"params": dict(params), "batch_stats": dict(stats)}
        for modality, (mapping, path) in build.pretrained_weights(self.spec).items():
            name = f"encoders_{modality}"
            # An encoder without BatchNorm has no entry in "batch_stats".
            template = {
                kind: tree[name] for kind, tree in trees.items() if name in tree
            }
            loaded = load(mapping, path, template)
            for kind, filled in loaded.variables.items():
                trees[kind][name] = filled
            suffix = f" ({len(loaded.unused)} unused keys)" * bool(loaded.unused)
            log(f"{shown_name(modality)}: loaded weights from {path}{suffix}")
        return trees["params"], trees["batch_stats"]

    def restore_or_start(
        self,
        checkpoints: CheckpointManager,
        identity: RunIdentity,
        pretrained: Callable[[], Sequence[PretrainedModel]],
    ) -> tuple[TrainState, SelectionState, dict[str, Any]]:
        """Returns the newest intact state, or a new one.

        Args:
            checkpoints: Those of the run.
            identity: The run.
            pretrained: Returns models to copy encoders from; called by a new run only.

        Returns:
            The state, the selection state, and what checkpoints record of the run.

        Raises:
            CheckpointError: There was a checkpoint, and none is left.
        """
        recorded = {RUN: to_json(identity), CONFIG: {**self.spec.source}}
        while (
            found := checkpoints.restore_latest(self.programs.abstract_state)
        ) is not None:
            state, meta = found
            progress = SelectionState.restore(meta["progress"])
            if not discard_after_missing_best(checkpoints, int(state.step), progress):
                spans = device_spans(meta.get(DEVICES, []), int(state.step))
                return state, progress, {**recorded, DEVICES: to_json(spans)}
        folder = checkpoints.folder.parent
        if (saved := read_saved(folder)) is not None:
            raise CheckpointError(
                "K01",
                f"{checkpoints.folder}: step {saved.step:d} was saved, but no "
                "checkpoint is left.",
                f"restore this folder; or delete {folder}, to train this run from the "
                "beginning",
            )
        state = self._start(identity.seed, pretrained())
        recorded[DEVICES] = to_json(device_spans([], 0))
        return state, SelectionState(), recorded

    def _batches(self, pipeline: Pipeline, start: int, stop: int) -> Iterator[Batch]:
        """Yields the training batches of some steps, on the devices."""
        put = functools.partial(self.components.executor.put, train=True)
        return map(put, pipeline.train(start, stop))

    def check_labels(self, data: Dataset) -> None:
        """Checks all labels on the host, before anything is trained on them."""
        check_splits(data, "train", "test")
        task = self.components.task
        for split in data.sources:
            task.check(data.label(split, task.label), split)

    def _baseline(self, data: Dataset) -> Baseline:
        """Returns the constant baseline and its scores on the test split."""
        task = self.components.task
        train, test = (data.label(split, task.label) for split in ("train", "test"))
        return constant_baseline_scores(task, train, test)

    def scores(self, collected: Mapping[str, np.ndarray], loss: float) -> Evaluation:
        """Returns the scores of collected predictions."""
        return compute_scores(self.components.task.metrics(), collected, loss)

    def selected(self, checkpoints: CheckpointManager, loop: Loop) -> TrainState:
        """Returns the state that the selection split chose; else the last one.

        Raises:
            CheckpointError: Its checkpoint is not on disk.
        """
        step, scored = loop.done, loop.progress.best_score is not None
        if scored:
            step = loop.progress.best_step
        if step == loop.done and not checkpoints.is_saved(step, scored=scored):
            loop.save_again()
        require_saved(checkpoints, step, scored=scored)
        if not scored:
            return loop.state
        # Of the last state, which has the shapes and shardings of the selected one.
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            loop.state,
        )
        state = checkpoints.restore_best(abstract)[0]
        if int(state.step) != step:  # the best one was corrupted
            raise not_saved(checkpoints, step)
        return state

    def result(
        self, loop: Loop, selected: TrainState, pipeline: Pipeline, scores: FinalScores
    ) -> ModelResult:
        """Returns the result of a run that has ended.

        Args:
            loop: The training.
            selected: Selected checkpoint.
            pipeline: The data of the run.
            scores: Scores of the checkpoint and of the last step.
        """
        last, collected = loop.state, scores.collected
        step = int(selected.step)
        # `PlotData` has finite values only; that others exist is in the scores.
        finite_rows = rows_are_finite(collected)
        finite = {name: x[finite_rows] for name, x in collected.items()}
        return ModelResult(
            model=self.spec.model.model.name,
            baseline=self._baseline(pipeline.dataset),
            parameters=count_parameters(selected.params),
            step=step,
            epoch=step / self.plan.steps_per_epoch,
            steps=int(last.step),
            ended="early" if loop.stopped_early else "finished",
            valid=scores.valid,
            test=self.scores(collected, scores.loss),
            last=scores.last,
            best_test=loop.progress.best_test,
            plot_data=self.components.task.plot_data(finite),
            modality_weights={**mean_modality_weights(collected)},
            skipped_steps=int(last.skipped_steps["total"]),
            times=loop.clock.summary(),
            macs_per_example=self.macs_per_example,
            peak_memory=peak_memory(),
            diagnosis=self._diagnose(selected, pipeline),
            identity=msgspec.convert(loop.identity[RUN], RunIdentity),
            devices=msgspec.convert(loop.identity[DEVICES], list[DeviceSpan]),
        )

    @functools.cached_property
    def _diagnoser(self) -> Diagnoser:
        """Diagnoses the checkpoints of all runs."""
        return Diagnoser(self.spec, self.components)

    def _diagnose(self, state: TrainState, pipeline: Pipeline) -> Diagnosis | None:
        """Returns the diagnosis of a checkpoint; None if it fails or is off."""
        if not self.spec.training.diagnosis:
            return None
        scores_without = lambda modality: (
            self.scores(
                *self.collect(state.variables, pipeline, "test", modality)
            ).scores
        )
        try:
            return self._diagnoser.diagnose(state, pipeline, scores_without)
        except Exception as error:  # a trained model must not be lost for this
            log(f"no diagnosis: {describe_exception(error)}")
            return None

    @functools.cached_property
    def macs_per_example(self) -> int | None:
        """Multiply-accumulates of one example, counted without running the model."""
        model = build.build_model(self.spec, self.components.task, None)
        variables = self.programs.abstract_state.variables
        try:
            return count_macs_per_example(
                model, variables, self.programs.dummy_batch
            ).total
        except Exception as error:  # a trained model must not be lost for this number
            log(f"MACs cannot be counted: {describe_exception(error)}")
            return None


def _ids(data: Dataset, split: str, count: int) -> list[str]:
    """Returns the ids of the `count` examples of a split that are evaluated."""
    ids, source = data.example_id_list(split), data.source(split)
    if len(ids) == count:
        return ids
    # Examples of weight 0 have no prediction.
    return [name for i, name in enumerate(ids) if source[i]["weight"] > 0]


def describe_start(step: int, plan: TrainPlan) -> str:
    """Returns the first line of a run: the first step compiles for minutes."""
    if not plan.steps:
        return "not trained, since config.train.epochs=0: evaluates the initial weights"
    if step >= plan.steps:
        return "already finished"
    if step:
        return f"resuming from step {step}"
    return f"training for {plan.steps} steps (the first step includes compilation)"
