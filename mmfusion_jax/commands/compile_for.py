"""The cost of the steps of a config on chips that are not there."""

import dataclasses
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from mmfusion_jax.analysis.compiled import CompiledStep, compile_step
from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.errors import ConfigError, join_names, shorten, shown, shown_name
from mmfusion_jax.report.formatting import DASH, seconds
from mmfusion_jax.runner import provenance
from mmfusion_jax.training.parallelism import Executor
from mmfusion_jax.training.state import create_state
from mmfusion_jax.training.step import make_eval_step
from mmfusion_jax.training.topology import Topology, find_topology
from mmfusion_jax.types import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompileReport:
    """Cost of a config on one kind of chips.

    Attributes:
        config: The config, as JSON values.
        model: Short name of the model.
        data: Title of the dataset.
        batch_size: Number of examples per step, on all chips.
        topology: Name of the chips.
        platform: JAX's name of the platform.
        chips: Their number.
        steps: "train" and "eval" -> cost of the step.
        versions: Package -> version.
        git: Commit of the library; "" if unknown.
    """

    config: dict[str, Any]
    model: str
    data: str
    batch_size: int
    topology: str
    platform: str
    chips: int
    steps: dict[str, CompiledStep]
    versions: dict[str, str]
    git: str


def compile_for(spec: ExperimentSpec, name: str) -> CompileReport:
    """Compiles the training and the evaluation step of a config.

    No array is created and no data are read: only shapes are used.

    Args:
        spec: The experiment.
        name: Name of the chips, see `training.topology.TOPOLOGIES`.

    Raises:
        ConfigError: The name is unknown, or the batch cannot be split.
        MissingDependencyError: The compiler is not installed.
    """
    topology = find_topology(name)
    if spec.parallel == "pmap":
        raise ConfigError(
            "C10",
            f"--compile_for={shown(name)} cannot compile the step of "
            "--config.parallel=pmap, which has no form for devices of a topology.",
            "--config.parallel=shard_map, or jit",
        )
    data = build_data.describe_dataset(spec, build_data.fold_numbers(spec)[0])
    pipeline = build_data.build_pipeline(spec, data, seed=0)
    steps = spec.training.epochs * pipeline.steps_per_epoch
    devices = topology.devices or tuple(jax.devices()[:1])
    parts = build.build_components(
        spec, data, steps, Executor(spec.parallel, topology=devices)
    )
    # Arrays of a pipeline can be int64, which JAX turns into int32 with a warning.
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype)),
        pipeline.dummy_batch(),
    )
    calls = step_calls(parts, batch)
    return CompileReport(
        config={**spec.source},
        model=spec.model.model.name,
        data=data.title,
        batch_size=pipeline.batch_size,
        topology=name,
        platform=topology.platform,
        chips=topology.count,
        steps={k: compile_step(*call, topology) for k, call in calls.items()},
        versions=provenance.versions() | _compiler(topology),
        git=provenance.commit(),
    )


def step_calls(
    parts: build.TrainingComponents, batch: PyTree
) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Returns "train" and "eval" -> the step as training compiles it, its arguments.

    Args:
        parts: The components; their executor has the devices to compile for.
        batch: Abstract arrays of a batch.
    """
    executor = parts.executor
    # Arguments without shardings: those of the step apply.
    init = lambda b: create_state(parts.model, parts.tx, b, jax.random.key(0))
    state = jax.eval_shape(init, batch)
    prediction = jax.ShapeDtypeStruct(_prior_shape(parts), "float32")
    evaluate = make_eval_step(
        parts.model, parts.objective, parts.task.metrics(), parts.modalities
    )
    variables = {**state.variables, "prior": prediction}
    train = executor.compile(parts.train_step(executor.axis))
    return {
        "train": (train, (state, batch)),
        "eval": (executor.compile_eval(evaluate), (variables, batch)),
    }


def _prior_shape(parts: build.TrainingComponents) -> tuple[int, ...]:
    """Returns the shape of the prediction for an example without any modality."""
    size = parts.task.head_size
    return () if size == 1 else (size,)


def _compiler(topology: Topology) -> dict[str, str]:
    """Returns the version of the compiler."""
    if topology.platform != "tpu":
        return {}
    try:
        return {"libtpu": metadata.version("libtpu")}
    except metadata.PackageNotFoundError:  # TPU_LIBRARY_PATH names a file
        return {}


def show(found: CompileReport) -> None:
    """Prints a report as a table."""
    console = Console(highlight=False, markup=False)
    chips = "chip" if found.chips == 1 else "chips"
    console.print(
        f"{shown_name(found.model)} on {shorten(found.data)}, batch "
        f"{found.batch_size:d} on {shown_name(found.topology)} ({found.chips:d} "
        f"{shown_name(chips)}), "
        f"{shown_name(found.config['compute_dtype'])}; nothing was run"
    )
    table = Table("of one chip")
    for name in found.steps:
        table.add_column(f"{shown_name(name)} step", justify="right")
    rows = [dict(_rows(step, found.batch_size)) for step in found.steps.values()]
    for name in rows[0]:
        table.add_row(shorten(name), *(row[name] for row in rows))
    console.print(table)
    for name, step in found.steps.items():
        if step.problem:
            console.print(f"{shown_name(name)} step: {shorten(step.problem, 400)}")
    versions = [f"{k} {shown_name(v)}" for k, v in found.versions.items()]
    console.print(join_names(versions), style="dim")


def _rows(step: CompiledStep, batch_size: int) -> Iterator[tuple[str, str]]:
    """Yields the rows of a step: name and value."""
    memory, bounds = step.memory, step.roofline
    yield "compile time", seconds(step.compile_s)
    yield "fits the memory", {True: "yes", False: "no", None: DASH}[step.fits]
    for name in ("peak", "arguments", "outputs", "aliased", "temporary", "available"):
        yield (
            f"memory, {shown_name(name)}",
            _bytes(getattr(memory, name) if memory else None),
        )
    yield "FLOP of products", f"{step.flops:.3g}"
    yield "bytes accessed", _bytes(step.bytes_accessed)
    yield "products", _counts(step.products)
    yield "collectives", _counts(step.collectives)
    yield "bytes of collectives", _bytes(step.collective_bytes)
    yield "outputs in donated memory", f"{step.donated:d}"
    for name in ("loops", "float64", "dynamic_shapes", "host_callbacks"):
        yield name.replace("_", " "), f"{getattr(step, name):d}"
    for name in ("compute", "memory", "interconnect"):
        value = getattr(bounds, name) if bounds else None
        yield (
            f"at least, {shown_name(name)}",
            DASH if value is None else _duration(value),
        )
    bound = bounds and bounds.bound
    yield "bound", bound or DASH
    slowest = getattr(bounds, bound) if bound else 0
    yield "examples/s at most", f"{batch_size / slowest:,.0f}" if slowest else DASH


def _counts(counts: Mapping[str, int]) -> str:
    """Returns names and numbers, a line each."""
    return "\n".join(f"{n:d} {shown_name(name)}" for name, n in counts.items()) or "0"


def _bytes(size: float | None) -> str:
    """Returns a size in GB or MB."""
    if size is None:
        return DASH
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB"


def _duration(value: float) -> str:
    """Returns a short time in milliseconds or microseconds."""
    return f"{1e3 * value:,.2f} ms" if value >= 1e-3 else f"{1e6 * value:,.1f} µs"
