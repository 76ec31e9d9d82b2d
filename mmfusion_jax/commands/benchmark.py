"""Compilation, step times, memory and data stalls of a config on this machine."""

import collections
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.errors import join_names, shorten, shown_name
from mmfusion_jax.report.formatting import seconds
from mmfusion_jax.results.experiment_result import Device
from mmfusion_jax.results.model_result import StepTime
from mmfusion_jax.runner import provenance
from mmfusion_jax.training.state import TrainState, create_state
from mmfusion_jax.training.step import Step
from mmfusion_jax.training.timing import is_ready, peak_memory
from mmfusion_jax.types import Batch

NUM_WARMUP_STEPS = 2  # steps that are not timed, beside the first
# Names of events that JAX records.
HITS, MISSES = ("/jax/compilation_cache/cache_" + end for end in ("hits", "misses"))


@dataclasses.dataclass(frozen=True)
class Timing:
    """Time of repeated calls: of one call, in seconds, and examples per second."""

    step_s: StepTime
    examples_per_s: float


@dataclasses.dataclass(frozen=True)
class FirstCall:
    """First call of a function, which compiles it.

    Attributes:
        first_call_s: Its time in seconds.
        from_cache: True if all programs came from the compilation cache.
        peak_bytes: The highest memory use so far.
    """

    first_call_s: float
    from_cache: bool
    peak_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calls(FirstCall, Timing):
    """First call of a function, and repeated calls.

    Attributes:
        compile_s: Time of the first call minus that of one step, in seconds.
    """

    compile_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineTiming(Timing):
    """Training steps on batches of the dataset.

    Attributes:
        data_stall_fraction: Fraction of the step time for which the devices waited for
            data, 0..1.
    """

    data_stall_fraction: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostDevice(Device):
    """Devices, and number of CPU cores of the host."""

    cpu_cores: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurements:
    """Speed of a config on this machine.

    Attributes:
        config: The config, as JSON values.
        model: Short name of the model.
        data: Title of the dataset.
        batch_size: Number of examples per step.
        steps: Number of timed steps of every kind.
        init: Creation of the state.
        forward: The model without gradients.
        train_step: The training step on one batch, repeated.
        pipeline: The training step on batches of the dataset.
        device: The devices.
        versions: Package -> version.
        git: Commit of the library; "" if unknown.
    """

    config: dict[str, Any]
    model: str
    data: str
    batch_size: int
    steps: int
    init: FirstCall
    forward: Calls
    train_step: Calls
    pipeline: PipelineTiming
    device: HostDevice
    versions: dict[str, str]
    git: str


def measure(spec: ExperimentSpec, steps: int) -> Measurements:
    """Returns all measurements of a config.

    Args:
        spec: The experiment.
        steps: Number of timed steps of every kind.
    """
    data = build_data.build_dataset(spec, build_data.fold_numbers(spec)[0])
    pipeline = build_data.build_pipeline(spec, data, seed=0)
    parts = build.build_components(spec, data, steps)
    executor, size = parts.executor, pipeline.batch_size
    step = executor.compile(parts.train_step(executor.axis))
    forward = executor.compile_eval(
        lambda v, b: parts.model.apply(v, b, train=False).prediction
    )
    blank = pipeline.dummy_batch()
    init = lambda: create_state(parts.model, parts.tx, blank, jax.random.key(0))
    rows = next(iter(pipeline.train(0, 1)))

    state, first = _time_first_call(lambda: executor.create(init))
    batch = executor.put(rows, train=False)
    variables = state.variables
    # Before the training step, which donates the state that `variables` is part of.
    forward_calls = _time_calls(lambda: forward(variables, batch), steps, size)
    trainer = RepeatedStep(step, state, executor.put(rows, train=True))
    train_calls = _time_calls(trainer, steps, size)
    # One more than steps: the first is dispatched before the time starts.
    batches = (executor.put(b, train=True) for b in pipeline.train(0, steps + 1))
    return Measurements(
        config={**spec.source},
        model=spec.model.model.name,
        data=data.title,
        batch_size=size,
        steps=steps,
        init=first,
        forward=forward_calls,
        train_step=train_calls,
        pipeline=_time_pipeline(trainer, batches, steps, size),
        device=_device(),
        versions=provenance.versions(),
        git=provenance.commit(),
    )


@dataclasses.dataclass
class RepeatedStep:
    """Repeats a training step, passing its state on to the next one.

    Attributes:
        step: Compiled training step.
        state: State of the next step; the one before is donated.
        batch: Batch on the devices.
    """

    step: Step
    state: TrainState
    batch: Batch

    def __call__(self) -> Any:
        self.state, metrics = self.step(self.state, self.batch)
        return metrics


def show(found: Measurements) -> None:
    """Prints measurements as a table."""
    console, device = Console(highlight=False, markup=False), found.device
    console.print(
        f"{shown_name(found.model)} on {shorten(found.data)}, batch "
        f"{found.batch_size:d}, {shown_name(found.config['compute_dtype'])}; "
        f"{device.count:d} x "
        f"{shown_name(device.kind)}, {device.cpu_cores or 0:d} CPU cores; median of "
        f"{found.steps:d} steps"
    )
    table = Table("", "compile", "step", "p10-p90", "examples/s", "peak memory")
    parts = {
        "init": found.init,
        "forward": found.forward,
        "train step": found.train_step,
    }
    for name, part in parts.items():
        repeated = isinstance(part, Calls)
        took = part.compile_s if repeated else part.first_call_s
        suffix = " (from the cache)" if part.from_cache else ""
        row = _step_cells(part) if repeated else ["", "", ""]
        table.add_row(
            shown_name(name),
            f"{seconds(took)}{suffix}",
            *row,
            f"{part.peak_bytes / 1e6:,.0f} MB",
        )
    table.add_row("with real data", "", *_step_cells(found.pipeline), "")
    console.print(table)
    stall = found.pipeline.data_stall_fraction
    console.print(f"data loading stalls: {100 * stall:.1f} % of step time")
    versions = [f"{k} {shown_name(v)}" for k, v in found.versions.items()]
    if found.git:
        versions.append(f"commit {shown_name(found.git)}")
    console.print(join_names(versions), style="dim")


def _step_cells(part: Timing) -> list[str]:
    """Returns the cells of the median, the percentiles and the throughput."""
    step = part.step_s
    span = f"{seconds(step.p10)} - {seconds(step.p90)}"
    return [seconds(step.median), span, f"{part.examples_per_s:.1f}"]


def _time_calls(call: Callable[[], Any], steps: int, size: int) -> Calls:
    """Times the first call, which compiles, and `steps` more."""
    _, first = _time_first_call(call)
    times = []
    for number in range(NUM_WARMUP_STEPS + steps):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        # The first steps after compilation are slower: caches and allocators are cold.
        if number >= NUM_WARMUP_STEPS:
            times.append(time.perf_counter() - begun)
    step_s = _percentiles(times)
    return Calls(
        first_call_s=first.first_call_s,
        from_cache=first.from_cache,
        compile_s=max(first.first_call_s - (step_s.median or 0.0), 0.0),
        step_s=step_s,
        examples_per_s=size * len(times) / sum(times),
        peak_bytes=peak_memory().bytes,
    )


def _time_first_call(call: Callable[[], Any]) -> tuple[Any, FirstCall]:
    """Returns the result of a first call, and its time."""
    with _cache_events() as events:
        begun = time.perf_counter()
        result = jax.block_until_ready(call())
        took = time.perf_counter() - begun
    # A call may compile several programs.
    cached = events[HITS] > 0 and events[MISSES] == 0
    return result, FirstCall(took, cached, peak_memory().bytes)


def _time_pipeline(
    trainer: RepeatedStep, batches: Iterator[Batch], steps: int, size: int
) -> PipelineTiming:
    """Times steps on real batches; one step is dispatched ahead of the host.

    A wait counts if the step in flight had ended when the batch came: the devices stood
    idle for at most that long. Waits during a step cost nothing.
    """
    trainer.batch = next(batches)
    running = trainer()
    times, waited = [], 0.0
    since = time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        trainer.batch = next(batches)
        if is_ready(running):
            waited += time.perf_counter() - asked
        # As in `train.loop`: the step before is awaited and the next one dispatched, so
        # the devices compute while the host reads the next batch.
        jax.block_until_ready(running)
        running = trainer()
        now = time.perf_counter()
        times.append(now - since)
        since = now
    jax.block_until_ready(running)
    return PipelineTiming(
        step_s=_percentiles(times),
        examples_per_s=size * len(times) / sum(times),
        data_stall_fraction=waited / max(sum(times), 1e-9),
    )


def _percentiles(times: list[float]) -> StepTime:
    """Returns median, 10th and 90th percentile."""
    low, median, high = np.percentile(times, [10, 50, 90]).tolist()
    return StepTime(median, low, high)


@contextlib.contextmanager
def _cache_events() -> Iterator[collections.Counter[str]]:
    """Counts the hits and misses of the compilation cache within the context."""
    events: collections.Counter[str] = collections.Counter()
    # JAX before 0.9 cannot remove a listener, which then ignores further events.
    listening = True

    def listen(event: str, **_: Any) -> None:
        if listening:
            events.update([event])

    jax.monitoring.register_event_listener(listen)
    try:
        yield events
    finally:
        listening = False
        if hasattr(jax.monitoring, "unregister_event_listener"):  # JAX 0.9 and later
            jax.monitoring.unregister_event_listener(listen)


def _device() -> HostDevice:
    """Returns the devices of all processes, and the cores of this host."""
    device = jax.devices()[0]
    return HostDevice(
        kind=device.device_kind,
        platform=device.platform,
        count=jax.device_count(),
        cpu_cores=os.cpu_count(),
    )
