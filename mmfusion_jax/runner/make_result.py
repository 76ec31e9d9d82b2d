"""Makes the result of an experiment from those of its runs, and prints it."""

import dataclasses
import datetime
from pathlib import Path

import jax

from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.metrics.score_info import with_loss
from mmfusion_jax.report.diagnosis import findings
from mmfusion_jax.results.experiment_result import (
    BaselineSummary,
    DataInfo,
    Device,
    ExperimentResult,
    ModelInfo,
    RunResult,
)
from mmfusion_jax.results.model_result import ModelResult
from mmfusion_jax.results.run_identity import config_sha256
from mmfusion_jax.results.summarize import mean_std, summarize
from mmfusion_jax.results.summary import summary_lines
from mmfusion_jax.runner import provenance
from mmfusion_jax.runner.run_checkpoints import log
from mmfusion_jax.runner.trainer import Trainer
from mmfusion_jax.runner.workdir import RunKey


def run_result(
    key: RunKey, result: ModelResult, stages: dict[str, ModelResult]
) -> RunResult:
    """Returns the result of a run, from that of its model and of its stages."""
    # Not `asdict`, which would make dicts of the nested dataclasses too.
    fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    return RunResult(**dataclasses.asdict(key), **fields, stages=stages)


def experiment_result(
    spec: ExperimentSpec,
    command: str,
    data: Dataset,
    trainer: Trainer,
    runs: list[RunResult],
) -> ExperimentResult:
    """Returns the result of all runs."""
    task = trainer.components.task
    device = jax.devices()[0]
    infos = with_loss(task.metrics().infos)
    return ExperimentResult(
        command=command,
        config={**spec.source},
        config_sha256=config_sha256(spec.source),
        data=DataInfo(
            name=data.name,
            title=data.title,
            facts=dict(data.facts),
            counts={split: len(source) for split, source in data.sources.items()},
        ),
        model=ModelInfo(spec.model.model.name, runs[0].parameters),
        protocol=spec.protocol,
        task=task.info(),
        selection_metric=spec.training.selection_metric,
        metrics={name: info.shown for name, info in infos.items()},
        baseline=BaselineSummary(
            runs[0].baseline.description,
            mean_std(run.baseline.scores for run in runs),
        ),
        runs=runs,
        summary=summarize(runs),
        versions=provenance.versions(),
        git=provenance.commit(),
        device=Device(device.device_kind, device.platform, jax.device_count()),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def print_summary(result: ExperimentResult, path: Path) -> None:
    """Prints the final table and the path of the report."""
    for line in summary_lines(result):
        log(line)
    for line in findings(result):
        log(f"warning: {line}")
    log(f"report: {path}")
