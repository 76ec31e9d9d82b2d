"""Runs every fold and seed, unimodal stages first, and writes the report."""

import dataclasses
import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmfusion_jax.config import build
from mmfusion_jax.config.resolve import unimodal_spec
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.errors import DivergedError, shown
from mmfusion_jax.metrics.nonfinite import UNDEFINED, undefined_scores
from mmfusion_jax.metrics.score_info import with_loss
from mmfusion_jax.report import write_report
from mmfusion_jax.report.console_summary import summary_lines
from mmfusion_jax.runner import provenance
from mmfusion_jax.runner.trainer import PretrainedModel, Trainer, log
from mmfusion_jax.runner.workdir import RunKey, check_workdir, fold_seed_pairs
from mmfusion_jax.train.signals import GracefulShutdown

RESULT_FIELDS = {"runs": list, "summary": dict, "metrics": dict, "config": dict}
"""Fields of `result.json` that are checked when it is read -> their types."""


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

    def trainer(self, data: Dataset, stage: str = "") -> Trainer:
        """Returns the trainer of the model, or of one of its unimodal stages."""
        if stage not in self._trainers:
            spec = unimodal_spec(self.spec, stage) if stage else self.spec
            self._trainers[stage] = Trainer(spec, data)
        return self._trainers[stage]

    def train(
        self, key: RunKey, data: Dataset, shutdown: GracefulShutdown
    ) -> dict[str, Any]:
        """Trains the unimodal stages of a run, then the model with their encoders."""
        stages = {
            name: self.trainer(data, name).train(
                data,
                key.seed,
                self.folder(key, name),
                _title(f"{name} only", key),
                shutdown,
            )
            for name in self.spec.pretrain_unimodal
        }
        entry = self.trainer(data).train(
            data,
            key.seed,
            self.folder(key),
            _title(self.spec.model.model.name, key),
            shutdown,
            self._pretrained_models(key, data),
        )
        return {**dataclasses.asdict(key), **entry, "stages": stages}

    def evaluate(self, key: RunKey, data: Dataset) -> dict[str, Any]:
        """Returns the scores of every split at the selected checkpoint of a run."""
        trainer = self.trainer(data)
        state = trainer.best_state(self.folder(key))
        pipeline = build.build_pipeline(self.spec, data, key.seed)
        splits = [
            split for split in ("train", "valid", "test") if split in data.sources
        ]
        scores = trainer.evaluate(state.variables, pipeline, splits)
        return {**dataclasses.asdict(key), "step": int(state.step), **scores}

    def folder(self, key: RunKey, stage: str = "") -> Path:
        """Returns the folder of a run, or of one of its unimodal stages."""
        folder = self.workdir / key.folder
        return folder / "stages" / stage if stage else folder

    def _pretrained_models(
        self, key: RunKey, data: Dataset
    ) -> Callable[[], Sequence[PretrainedModel]]:
        """Returns a function that reads the trained unimodal stages of a run."""

        def read() -> list[PretrainedModel]:
            states = [
                self.trainer(data, name).best_state(self.folder(key, name))
                for name in self.spec.pretrain_unimodal
            ]
            return [PretrainedModel(state.params, state.stats) for state in states]

        return read


def train(spec: ExperimentSpec, workdir: Path, command: str) -> dict[str, Any]:
    """Trains what is not trained yet and writes `result.json` and `report.html`.

    Args:
        spec: The experiment.
        workdir: The work folder. An interrupted experiment resumes; a finished one
            stays as it is, or gets the seeds that are missing.
        command: The command line, for the report.

    Returns:
        The content of `result.json`.

    Raises:
        ConfigError: The folder belongs to another config.
        Interrupted: A signal arrived; everything is saved.
    """
    check_workdir(spec, workdir)
    path = workdir / "result.json"
    if path.exists():
        result = provenance.read_json(
            path, RESULT_FIELDS, f"delete {path} and rerun: finished runs are kept"
        )
        if len(result["runs"]) == len(fold_seed_pairs(spec, workdir)):
            log(
                f"{workdir} already contains a finished experiment; use a new "
                "--workdir to rerun."
            )
            _print_summary(result, workdir / "report.html")
            return result
    experiment, entries = Experiment(spec, workdir), []
    data, shutdown = None, GracefulShutdown()
    for key, data in runs_with_data(spec, workdir, verbose=True):
        with shutdown:  # not while data are prepared, where there is nothing to save
            entries.append(experiment.train(key, data, shutdown))
    assert data is not None
    result = provenance.to_json(
        _result(spec, command, data, experiment.trainer(data), entries)
    )
    if jax.process_index() == 0:
        provenance.write_json(path, result)
        _print_summary(result, write_report(workdir, result))
    return result


def check_finite(entries: Iterable[Mapping[str, Any]]) -> None:
    """Raises DivergedError if a score of runs, or of their stages, is not defined.

    Args:
        entries: Results of runs, as `train` and `evaluate` return them.
    """
    found = undefined_scores(entries)
    if found:
        more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
        raise DivergedError(
            "N02",
            f"{found[0]}{more}.",
            "look for very large values in these examples, or train with "
            "--config.optim.clip_norm=1.0 or a lower --config.optim.learning_rate",
        )


def evaluate(spec: ExperimentSpec, workdir: Path) -> list[dict[str, Any]]:
    """Returns the scores of the selected checkpoints of a finished experiment.

    Raises:
        ConfigError: The folder belongs to another config.
        CheckpointError: A run has no checkpoint.
    """
    check_workdir(spec, workdir, create=False)
    experiment = Experiment(spec, workdir)
    return [
        experiment.evaluate(key, data) for key, data in runs_with_data(spec, workdir)
    ]


def runs_with_data(
    spec: ExperimentSpec, workdir: Path, *, verbose: bool = False
) -> Iterator[tuple[RunKey, Dataset]]:
    """Yields every fold and seed with its data; a fold is prepared once.

    Args:
        spec: The experiment.
        workdir: The work folder.
        verbose: Print which data are used.
    """
    data, fold = None, None
    for key in fold_seed_pairs(spec, workdir):
        if data is None or key.fold != fold:
            data, fold = build.build_dataset(spec, key.fold), key.fold
            build.check_ids(spec, data)  # of all stages, before the first is trained
            if verbose:
                _print_dataset(data, spec.data.label)
        yield key, data


def _print_dataset(data: Dataset, label: str) -> None:
    """Prints which data are used, with the hints and warnings of the dataset."""
    counts = ", ".join(f"{len(s)} {split}" for split, s in data.sources.items())
    log(f"data: {data.title}: {counts}; label {shown(label)}")
    for hint in data.facts.get("hints", ()):
        log(hint)
    for warning in data.facts.get("warnings", ()):
        log(f"warning: {warning}")


def _title(model: str, key: RunKey) -> str:
    suffix = "" if key.folder == "." else f" fold {key.fold} seed {key.seed}"
    return f"{model}{suffix}"


def _result(
    spec: ExperimentSpec,
    command: str,
    data: Dataset,
    trainer: Trainer,
    entries: list[dict[str, Any]],
) -> dict[str, Any]:
    """Returns the content of `result.json`."""
    task = trainer.components.task
    device = jax.devices()[0]
    infos = with_loss(task.metrics().infos)
    return {
        "command": command,
        "config": spec.source,
        "data": {
            "name": data.name,
            "title": data.title,
            "facts": dict(data.facts),
            "counts": {split: len(source) for split, source in data.sources.items()},
        },
        "model": {
            "name": spec.model.model.name,
            "parameters": entries[0]["parameters"],
        },
        "protocol": spec.protocol,
        "task": {"label": task.label, **task.to_json()},
        "selection_metric": spec.training.selection_metric,
        "metrics": {name: info.to_json() for name, info in infos.items()},
        "baseline": {
            "description": entries[0]["baseline"]["description"],
            "scores": _mean_std(e["baseline"]["scores"] for e in entries),
        },
        "runs": entries,
        "summary": {
            "test": _mean_std(e["test"] for e in entries),
            "last": _mean_std(e["last"] for e in entries),
            "best_test": _best_test(entries),
            "modality_weights": _mean_std(
                weights for e in entries if (weights := e.get("modality_weights"))
            ),
            "stages": {
                name: {"test": _mean_std(e["stages"][name]["test"] for e in entries)}
                for name in spec.pretrain_unimodal
            },
        },
        "versions": provenance.versions(),
        "git": provenance.commit(),
        "device": {
            "kind": device.device_kind,
            "platform": device.platform,
            "count": jax.device_count(),
        },
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _best_test(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Returns the best scores of the test split over all epochs, which are biased."""
    found = [entry["best_test"] for entry in entries if entry["best_test"]]
    return _mean_std({"score": best["score"]} for best in found) if found else None


def _mean_std(scores: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns, by score, the mean, the standard deviation (n - 1) and n over the runs.

    NaN where the score of one run is not defined; empty without runs.
    """
    rows = [{**row} for row in scores]
    for row in rows:
        row.pop(UNDEFINED, None)
    made = {}
    for name in rows[0] if rows else ():
        values = np.array([row[name] for row in rows], np.float64)  # NaN for None
        std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        made[name] = {"mean": float(values.mean()), "std": std, "n": len(values)}
    return made


def _print_summary(result: Mapping[str, Any], report: Path) -> None:
    """Prints the final table and the path of the report."""
    for line in summary_lines(result):
        log(line)
    log(f"report: {report}")
