"""Parameters, operations, shapes and memory of a config, before any training."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from mmfusion_jax.analysis.cost import (
    COUNTED,
    bytes_of,
    compiled_memory,
    count_macs,
    count_parameters,
    output_shapes,
)
from mmfusion_jax.config import build
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.outline import Zeros
from mmfusion_jax.errors import printable
from mmfusion_jax.report.formatting import count
from mmfusion_jax.train.state import create_state
from mmfusion_jax.types import Batch

DEPTH = 2  # the tables show modules down to this depth, --json shows all


def inspect_config(spec: ExperimentSpec, *, compiled: bool) -> dict[str, Any]:
    """Returns what the shapes tell, as JSON values.

    Args:
        spec: The experiment.
        compiled: Also compile the training step and return XLA's memory analysis.
    """
    spec = dataclasses.replace(spec, parallel="jit")  # pmap has the same shapes
    data = build.describe_dataset(spec, build.fold_numbers(spec)[0])
    pipeline = build.build_pipeline(spec, data, seed=0)
    steps = spec.training.epochs * pipeline.steps_per_epoch
    parts = build.build_components(spec, data, steps)
    batch = jax.eval_shape(lambda b: b, pipeline.dummy_batch())
    init = lambda b: create_state(parts.model, parts.tx, b, jax.random.key(0))
    state = jax.eval_shape(init, batch)
    forward = lambda v, b: parts.model.apply(v, b, train=False)
    macs = count_macs(forward, state.variables, jax.tree.map(_single_example, batch))
    found = {
        "config": spec.source,
        "data": data.title,
        "data_read": not isinstance(data.source("train"), Zeros),
        "steps_per_epoch": pipeline.steps_per_epoch,
        "steps": steps,
        "parameters": count_parameters(state.params),
        "macs_per_example": {**macs, "counted": COUNTED},
        "inputs": _shapes(batch),
        "outputs": output_shapes(parts.model, state.variables, batch),
        "bytes": {
            "parameters": bytes_of(state.params),
            "statistics": bytes_of(state.stats),
            "optimizer": bytes_of(state.opt_state),
            "batch": bytes_of(batch),
        },
    }
    if compiled:
        lowered = jax.jit(parts.train_step(None), donate_argnums=0).lower(state, batch)
        found["bytes_per_step"] = compiled_memory(lowered.compile())
    return found


def show(found: Mapping[str, Any]) -> None:
    """Prints an inspection as tables."""
    console = Console(highlight=False)
    console.print(
        f"{found['config']['model']['name']} on {found['data']}: "
        f"{found['steps_per_epoch']} steps per epoch, {found['steps']} in total",
        markup=False,
    )
    if not found["data_read"]:
        console.print(
            "no data was read: shapes and classes are the known ones; sizes may differ",
            markup=False,
        )
    for table in _tables(found):
        console.print(table)
    console.print(f"counted: {COUNTED}", markup=False, style="dim")


def _tables(found: Mapping[str, Any]) -> Iterator[Table]:
    parameters = found["parameters"]["components"]
    macs = found["macs_per_example"]["components"]
    sizes = Table(
        "component", title="Parameters and MACs per example", title_justify="left"
    )
    sizes.add_column("parameters", justify="right")
    sizes.add_column("MACs per example", justify="right")
    for name in [*parameters, *(n for n in macs if n not in parameters)]:
        row = count(parameters.get(name, 0)), count(macs.get(name, 0))
        sizes.add_row(name, *row)
    sizes.add_section()
    total = found["parameters"]["total"], found["macs_per_example"]["total"]
    sizes.add_row("total", *map(count, total))
    yield sizes

    shapes = Table("module", "returns", title="Shapes", title_justify="left")
    for name, shape in found["inputs"].items():
        shapes.add_row(printable(name), shape)
    shapes.add_section()
    for name, shape in found["outputs"].items():
        if name.count("/") < DEPTH:
            shapes.add_row(printable(name), shape)
    yield shapes

    memory = Table("memory", title="Memory", title_justify="left")
    memory.add_column("MB", justify="right")
    for group in ("bytes", "bytes_per_step"):
        for name, size in found.get(group, {}).items():
            memory.add_row(name, f"{size / 1e6:,.2f}")
        memory.add_section()
    yield memory


def _single_example(x: Any) -> jax.ShapeDtypeStruct:
    """The shape of one row of `x`."""
    return jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)


def _shapes(batch: Batch) -> dict[str, str]:
    """Name of an input or label -> its type and shape."""
    arrays = {f"input {name}": x for name, x in batch.inputs.items()}
    arrays |= {f"label {name}": x for name, x in batch.labels.items()}
    return {name: f"{x.dtype} {x.shape}" for name, x in arrays.items()}
