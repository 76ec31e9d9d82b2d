"""A whole experiment: every fold and seed, unimodal stages first, then the report."""

import dataclasses
import datetime
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mmfusion_jax.config import build
from mmfusion_jax.config.instantiate import Config
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.errors import ConfigError, DivergedError, suggest
from mmfusion_jax.report import write_report
from mmfusion_jax.report.console_summary import summary_lines
from mmfusion_jax.runner import provenance
from mmfusion_jax.runner.trainer import PretrainedModel, Trainer, log
from mmfusion_jax.runner.workdir import RunKey, check_workdir, fold_seed_pairs
from mmfusion_jax.tasks import UNDEFINED, undefined_scores
from mmfusion_jax.train.signals import GracefulShutdown


class Experiment:
    """A config, its work folder, and the models it needs, each built once.

    Args:
        config: resolved.
        workdir: holds everything of the experiment.
    """

    def __init__(self, config: Config, workdir: Path):
        self.config = config
        self.workdir = workdir
        self._runs: dict[str, Trainer] = {}

    def trainer(self, data: Dataset, stage: str = "") -> Trainer:
        """The model of the config, or of one of its unimodal stages."""
        if stage not in self._runs:
            config = unimodal_config(self.config, stage) if stage else self.config
            self._runs[stage] = Trainer(config, data)
        return self._runs[stage]

    def train(
        self, unit: RunKey, data: Dataset, interrupt: GracefulShutdown
    ) -> dict[str, Any]:
        """Trains the stages of a unit, then its model on their encoders."""
        stages = {
            name: self.trainer(data, name).train(
                data,
                unit.seed,
                self.folder(unit, name),
                _title(f"{name} only", unit),
                interrupt,
            )
            for name in self.config.warm_start
        }
        entry = self.trainer(data).train(
            data,
            unit.seed,
            self.folder(unit),
            _title(self.config.model.name, unit),
            interrupt,
            self._pretrained_models(unit, data),
        )
        return {**dataclasses.asdict(unit), **entry, "stages": stages}

    def evaluate(self, unit: RunKey, data: Dataset) -> dict[str, Any]:
        """Scores of every split at the chosen checkpoint of a unit."""
        run = self.trainer(data)
        state = run.best_state(self.folder(unit))
        reader = build.pipeline(self.config, data, unit.seed)
        splits = [
            split for split in ("train", "valid", "test") if split in data.sources
        ]
        scores = run.evaluate(state.variables, reader, splits)
        return {**dataclasses.asdict(unit), "step": int(state.step), **scores}

    def folder(self, unit: RunKey, stage: str = "") -> Path:
        """Where a unit, or one of its unimodal stages, lies."""
        folder = self.workdir / unit.folder
        return folder / "stages" / stage if stage else folder

    def _pretrained_models(
        self, unit: RunKey, data: Dataset
    ) -> Callable[[], Sequence[PretrainedModel]]:
        """The trained stages of a unit, read when they are asked for."""

        def read() -> list[PretrainedModel]:
            names = self.config.warm_start
            states = [
                self.trainer(data, name).best_state(self.folder(unit, name))
                for name in names
            ]
            return [PretrainedModel(state.params, state.stats) for state in states]

        return read


def train(config: Config, workdir: Path, command: str) -> dict[str, Any]:
    """Trains what is not trained yet and writes `result.json` and `report.html`.

    Args:
        config: resolved.
        workdir: holds everything of the experiment; one that was interrupted goes on,
            one that is finished is left as it is, or is given the seeds it lacks.
        command: what the user typed, for the report.

    Raises:
        ConfigError: if the folder belongs to another config.
        Interrupted: after saving.
    """
    check_workdir(config, workdir)
    path = workdir / "result.json"
    if path.exists():
        result = json.loads(path.read_text(encoding="utf-8"))
        if len(result["runs"]) == len(fold_seed_pairs(config, workdir)):
            log(f"{workdir} is finished; to repeat it, choose another --workdir.")
            _print_summary(result, workdir / "report.html")
            return result
    experiment, entries = Experiment(config, workdir), []
    data, interrupt = None, GracefulShutdown()
    for unit, data in runs_with_data(config, workdir, announce=True):
        with interrupt:  # not while data are prepared, where there is nothing to save
            entries.append(experiment.train(unit, data, interrupt))
    assert data is not None
    result = provenance.to_json(
        _result(config, command, data, experiment.trainer(data), entries)
    )
    if jax.process_index() == 0:
        provenance.write_json(path, result)
        _print_summary(result, write_report(workdir, result))
    return result


def check_finite(entries: Iterable[Mapping[str, Any]]) -> None:
    """Raises DivergedError if a score of runs, or of their stages, is not defined.

    Args:
        entries: of runs, as `train` and `evaluate` give them.
    """
    found = undefined_scores(entries)
    if found:
        more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
        raise DivergedError(
            "N02",
            f"{found[0]}{more}.",
            "look for values that are very large in these examples, or train with "
            "--config.optim.clip_norm=1.0 or a lower --config.optim.learning_rate",
        )


def evaluate(config: Config, workdir: Path) -> list[dict[str, Any]]:
    """Scores of the chosen checkpoints of a finished experiment, a unit each.

    Raises:
        ConfigError: if the folder belongs to another config.
        CheckpointError: if there is nothing to evaluate.
    """
    check_workdir(config, workdir, create=False)
    experiment = Experiment(config, workdir)
    return [
        experiment.evaluate(unit, data)
        for unit, data in runs_with_data(config, workdir)
    ]


def unimodal_config(config: Config, stage: str) -> ConfigDict:
    """The config of a unimodal stage: the same recipe, one encoder and its head."""
    encoders = config.model.encoders
    head = {k: v for k, v in config.model.items() if k in ("dropout", "audio_readout")}
    if stage not in encoders:
        raise ConfigError(
            "C13",
            f"config.warm_start names {stage!r}, which has no encoder.",
            suggest(stage, encoders),
        )
    made = config.copy_and_resolve_references()
    made.unlock()
    made.model = ConfigDict(
        {"name": "unimodal", "encoders": {stage: encoders[stage].to_dict()}, **head}
    )
    task = config.losses.task.to_dict()
    if task["name"] == "multiplicative":  # it compares modalities; a stage has one
        task = {"name": "cross_entropy"}
    made.losses = ConfigDict({"task": task})
    made.optim.groups = {}
    made.warm_start = ()
    return made


def runs_with_data(config: Config, workdir: Path, *, announce: bool = False):
    """Every unit with its data; a fold is prepared once."""
    data, fold = None, None
    for unit in fold_seed_pairs(config, workdir):
        if data is None or unit.fold != fold:
            data, fold = build.dataset(config, unit.fold), unit.fold
            build.check_ids(config, data)  # of all stages, before the first is trained
            if announce:
                _print_dataset(data, config)
        yield unit, data


def _print_dataset(data: Dataset, config: Config) -> None:
    """Says which data are used; the embedded set names the way to the paper's."""
    counts = ", ".join(f"{len(s)} {split}" for split, s in data.sources.items())
    log(f"data: {data.title}: {counts}; label {config.data.label!r}")
    for hint in data.facts.get("hints", ()):
        log(hint)
    for warning in data.facts.get("warnings", ()):
        log(f"warning: {warning}")


def _title(model: str, unit: RunKey) -> str:
    place = "" if unit.folder == "." else f" fold {unit.fold} seed {unit.seed}"
    return f"{model}{place}"


def _result(
    config: Config,
    command: str,
    data: Dataset,
    run: Trainer,
    entries: list[dict[str, Any]],
) -> dict[str, Any]:
    """Everything that is known of a finished experiment, as JSON values."""
    task = run.parts.task
    names = config.warm_start
    scores = task.scores()
    device = jax.devices()[0]
    return {
        "command": command,
        "config": json.loads(config.to_json()),
        "data": {
            "name": data.name,
            "title": data.title,
            "facts": dict(data.facts),
            "counts": {split: len(source) for split, source in data.sources.items()},
        },
        "model": {"name": config.model.name, "parameters": entries[0]["parameters"]},
        "protocol": config.protocol,
        "task": {"label": task.label, **task.to_json()},
        "select": config.train.select,
        "definitions": dict(scores.DEFINITIONS),
        "baseline": {
            "says": entries[0]["baseline"]["says"],
            "scores": _mean_std(e["baseline"]["scores"] for e in entries),
        },
        "runs": entries,
        "summary": {
            "test": _mean_std(e["test"] for e in entries),
            "last": _mean_std(e["last"] for e in entries),
            "flattering": _best_test(entries),
            "shares": _mean_std(s for e in entries if (s := e.get("shares"))),
            "stages": {
                name: {"test": _mean_std(e["stages"][name]["test"] for e in entries)}
                for name in names
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
    """The best scores of the test split over all epochs, which no one should quote."""
    found = [entry["flattering"] for entry in entries if entry["flattering"]]
    return _mean_std({"score": best["score"]} for best in found) if found else None


def _mean_std(scores: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation over the runs (n - 1) and their number, by score.

    NaN where the score of one run is not defined; empty where there is no run.
    """
    rows = [{**row} for row in scores]
    for row in rows:
        row.pop(UNDEFINED, None)
    made = {}
    for name in rows[0] if rows else ():
        values = np.array([row[name] for row in rows], np.float64)  # NaN for None
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        made[name] = {"mean": float(values.mean()), "std": spread, "n": len(values)}
    return made


def _print_summary(result: Mapping[str, Any], report: Path) -> None:
    """The last lines on the screen."""
    for line in summary_lines(result):
        log(line)
    log(f"report: {report}")
