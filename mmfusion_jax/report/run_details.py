"""Model, time, data, configuration and environment."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmfusion_jax.config.load import flatten, format_value
from mmfusion_jax.report import formatting
from mmfusion_jax.results.experiment_result import ExperimentResult
from mmfusion_jax.results.model_result import DeviceSpan, ModelResult
from mmfusion_jax.results.run_identity import data_sha256

HASH_LENGTH = 12
"""Number of hexadecimal digits of a hash that are shown; result.json has all of it."""


@dataclass(frozen=True)
class Component:
    """Parameters of one component."""

    name: str
    count: str
    fraction: str
    percent: str


@dataclass(frozen=True)
class Parameters:
    """Parameters by component, the largest first."""

    components: list[Component]
    total: str


@dataclass(frozen=True)
class Time:
    """Rows of the table of times: the fused model, and unimodal models."""

    fused: list[list[str]]
    unimodal: list[list[str]]


@dataclass(frozen=True)
class Dataset:
    """Number of examples by split, and metadata."""

    title: str
    counts: list[list[str]]
    metadata: list[list[str]]


@dataclass(frozen=True)
class Reproduce:
    """Words of the command, environment and configuration."""

    command: list[str]
    environment: list[list[str]]
    config: list[list[str]]


def parameters(result: ExperimentResult) -> Parameters:
    """Returns the number of parameters by component."""
    counts = result.model.parameters
    total = counts.total
    components = []
    for name, number in sorted(counts.components.items(), key=lambda c: -c[1]):
        percent = 100 * number / total if total else 0.0
        components.append(
            Component(
                name, formatting.count(number), f"{percent:.1f} %", f"{percent:.2f}"
            )
        )
    return Parameters(components, formatting.count(total))


def device(result: ExperimentResult) -> str:
    """Returns number and kind of the devices."""
    return f"{result.device.count} × {result.device.kind}"


def precision(result: ExperimentResult) -> str:
    """Returns the type of the activations, the precision of products, the platform."""
    config = result.config
    dtype = formatting.text(config.get("compute_dtype", "float32"))
    # Results of older versions do not have it: JAX's default was used.
    products = formatting.text(config.get("matmul_precision", "default"))
    return f"{dtype}, products {products}, on {result.device.platform}"


def time(result: ExperimentResult) -> Time:
    """Returns the times of every run."""
    runs = result.runs
    return Time(
        fused=[_time_row(formatting.run_name(run), run) for run in runs],
        unimodal=[
            _time_row(f"{formatting.run_name(run)}, {name}", stage)
            for run in runs
            for name, stage in run.stages.items()
        ],
    )


def dataset(result: ExperimentResult) -> Dataset:
    """Returns splits and metadata of the dataset."""
    about = result.data
    return Dataset(
        title=about.title,
        counts=[
            [name, formatting.count(number)] for name, number in about.counts.items()
        ],
        metadata=[
            [name.replace("_", " "), formatting.text(value)]
            for name, value in about.facts.items()
            if name not in ("warnings", "hints")
        ],
    )


def reproduce(result: ExperimentResult) -> Reproduce:
    """Returns command, versions and configuration."""
    return Reproduce(
        # At spaces and not by shlex, which would remove the quotes: the page breaks
        # lines between the words, and they are copied as a command.
        command=result.command.split(" "),
        environment=[
            ["commit", result.git or "unknown"],
            ["precision", precision(result)],
            ["device", device(result)],
            *_device_rows(result),
            *_data_rows(result),
            ["config hash", result.config_sha256[:HASH_LENGTH]],
            ["written", result.created],
            *map(list, result.versions.items()),
        ],
        config=[
            [f"config.{name}", format_value(value) or '""']
            for name, value in flatten(result.config).items()
        ],
    )


def _data_rows(result: ExperimentResult) -> Iterator[list[str]]:
    """Yields a row for the fingerprint of the data of every fold."""
    folds = {run.fold: run.identity.data for run in result.runs}
    for fold, data in folds.items():
        suffix = f", fold {fold}" if len(folds) > 1 else ""
        yield [f"data fingerprint{suffix}", data_sha256(data)[:HASH_LENGTH]]


def _device_rows(result: ExperimentResult) -> Iterator[list[str]]:
    """Yields a row for every run on other devices than those of the result."""
    last = result.device.kind, result.device.count
    for run in result.runs:
        for stage, one in {"": run, **run.stages}.items():
            if {(span.kind, span.count) for span in one.devices} - {last}:
                name = ", ".join(filter(None, (formatting.run_name(run), stage)))
                yield [f"device, {name}", _device_history(one.devices)]


def _device_history(spans: Sequence[DeviceSpan]) -> str:
    """Returns the devices of a run in their order, such as "2 × cpu; 1 × TPU v4"."""
    return "; ".join(
        f"{span.count} × {span.kind}"
        + (f" from step {span.step}, where it was resumed" if span.step else "")
        for span in spans
    )


FILES = {
    "predictions.csv": "label, prediction and probabilities of every validation and "
    "test example",
    "predictions.json": "outputs of the model on the test split, by id",
    "calibration.json": "temperature and conformal scores of the validation split",
    "predictor.json": "shapes, classes and scaling, for the command predict",
    "metrics.jsonl": "losses and metrics during the training",
    "checkpoints": "weights of the selected and of the last step",
}
"""Name in the folder of a run -> its content."""


def files(workdir: Path, result: ExperimentResult) -> list[list[str]]:
    """Returns what the folder of every run contains: a name and a description."""
    folders = [workdir / run.folder for run in result.runs]
    return [
        [name, about]
        for name, about in FILES.items()
        if all((folder / name).exists() for folder in folders)
    ]


def _time_row(name: str, run: ModelResult) -> list[str]:
    """Returns a row of the table of times."""
    times, step = run.times, run.times.step_s
    timed = formatting.is_number(step.median)
    span = f" ({formatting.seconds(step.p10)}–{formatting.seconds(step.p90)})"
    stall = times.data_stall_fraction
    return [
        name,
        f"{run.step} (epoch {run.epoch:.0f})",
        formatting.count(run.steps),
        run.ended,
        formatting.seconds(times.compile_s),
        formatting.seconds(step.median) + (span if timed else ""),
        formatting.score(formatting.FRACTION, stall)
        if formatting.is_number(stall)
        else formatting.DASH,
        formatting.seconds(times.total_s),
        str(run.skipped_steps),
    ]
