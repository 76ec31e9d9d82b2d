"""Parameters, operations, shapes and memory of a config, before any training."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from mmfusion_jax.analysis.cost import (
    Macs,
    StepMemory,
    bytes_of,
    compiled_memory,
    count_macs_per_example,
    count_parameters,
    output_shapes,
)
from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.outline import Zeros
from mmfusion_jax.errors import shorten, shown_name
from mmfusion_jax.report.formatting import count
from mmfusion_jax.results.model_result import Parameters
from mmfusion_jax.training.state import create_state
from mmfusion_jax.types import Batch

DEPTH = 2  # the tables show modules down to this depth, --json shows all


@dataclasses.dataclass(frozen=True)
class Memory:
    """Size of the arrays of a training, in bytes."""

    parameters: int
    statistics: int
    optimizer: int
    batch: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspection:
    """Sizes and shapes of a config, without training.

    Attributes:
        config: The config, as JSON values.
        model: Short name of the model.
        data: Title of the dataset.
        data_read: False if the shapes and classes are the known ones of a dataset whose
            files are not there.
        steps_per_epoch, steps: Number of training steps.
        parameters: Number of parameters.
        macs_per_example: Multiply-accumulates of the forward pass of one example.
        inputs: Input or label -> type and shape of a batch.
        outputs: Module -> type and shape of its output.
        bytes: Size of the arrays.
        bytes_per_step: Memory of a training step; None if it was not compiled.
    """

    config: dict[str, Any]
    model: str
    data: str
    data_read: bool
    steps_per_epoch: int
    steps: int
    parameters: Parameters
    macs_per_example: Macs
    inputs: dict[str, str]
    outputs: dict[str, str]
    bytes: Memory
    bytes_per_step: StepMemory | None = None


def inspect_config(spec: ExperimentSpec, *, compiled: bool) -> Inspection:
    """Returns the sizes and shapes of a config.

    Args:
        spec: The experiment.
        compiled: Also compile the training step and return XLA's memory analysis.
    """
    spec = dataclasses.replace(spec, parallel="jit")  # pmap has the same shapes
    data = build_data.describe_dataset(spec, build_data.fold_numbers(spec)[0])
    pipeline = build_data.build_pipeline(spec, data, seed=0)
    steps = spec.training.epochs * pipeline.steps_per_epoch
    parts = build.build_components(spec, data, steps)
    # Only shapes from here on: no array is created and no model is run.
    batch = jax.eval_shape(lambda b: b, pipeline.dummy_batch())
    init = lambda b: create_state(parts.model, parts.tx, b, jax.random.key(0))
    state = jax.eval_shape(init, batch)
    macs = count_macs_per_example(parts.model, state.variables, batch)
    memory = None
    if compiled:
        # Donated as in training, where the new state uses the memory of the old one.
        lowered = jax.jit(parts.train_step(None), donate_argnums=0).lower(state, batch)
        memory = compiled_memory(lowered.compile())
    return Inspection(
        config={**spec.source},
        model=spec.model.model.name,
        data=data.title,
        data_read=not isinstance(data.source("train"), Zeros),
        steps_per_epoch=pipeline.steps_per_epoch,
        steps=steps,
        parameters=count_parameters(state.params),
        macs_per_example=macs,
        inputs=_shapes(batch),
        outputs=output_shapes(parts.model, state.variables, batch),
        bytes=Memory(
            parameters=bytes_of(state.params),
            statistics=bytes_of(state.stats),
            optimizer=bytes_of(state.opt_state),
            batch=bytes_of(batch),
        ),
        bytes_per_step=memory,
    )


def show(found: Inspection) -> None:
    """Prints an inspection as tables."""
    console = Console(highlight=False, markup=False)
    console.print(
        f"{shown_name(found.model)} on {shorten(found.data)}: "
        f"{found.steps_per_epoch:d} steps per epoch, {found.steps:d} in total"
    )
    if not found.data_read:
        console.print(
            "no data was read: shapes and classes are the known ones; sizes may differ",
        )
    for table in _tables(found):
        console.print(table)
    console.print(f"counted: {shorten(found.macs_per_example.counted)}", style="dim")


def _tables(found: Inspection) -> Iterator[Table]:
    """Yields the tables of parameters, shapes and memory."""
    parameters = found.parameters.components
    macs = found.macs_per_example.components
    sizes = Table(
        "component", title="Parameters and MACs per example", title_justify="left"
    )
    sizes.add_column("parameters", justify="right")
    sizes.add_column("MACs per example", justify="right")
    # Modules without parameters, such as attention over tokens, have operations too.
    for name in [*parameters, *(n for n in macs if n not in parameters)]:
        row = count(parameters.get(name, 0)), count(macs.get(name, 0))
        sizes.add_row(shown_name(name), *row)
    sizes.add_section()
    total = found.parameters.total, found.macs_per_example.total
    sizes.add_row("total", *map(count, total))
    yield sizes

    shapes = Table("module", "returns", title="Shapes", title_justify="left")
    for name, shape in found.inputs.items():
        shapes.add_row(shorten(name), shape)
    shapes.add_section()
    for name, shape in found.outputs.items():
        if name.count("/") < DEPTH:
            shapes.add_row(shorten(name), shape)
    yield shapes

    memory = Table("memory", title="Memory", title_justify="left")
    memory.add_column("MB", justify="right")
    for group in (found.bytes, found.bytes_per_step):
        for name, size in dataclasses.asdict(group).items() if group else ():
            memory.add_row(shown_name(name), f"{size / 1e6:,.2f}")
        memory.add_section()
    yield memory


def _shapes(batch: Batch) -> dict[str, str]:
    """Returns name of an input or label -> its type and shape."""
    arrays = {"input " + name: x for name, x in batch.inputs.items()}
    arrays |= {"label " + name: x for name, x in batch.labels.items()}
    return {name: f"{x.dtype.name} {x.shape}" for name, x in arrays.items()}
