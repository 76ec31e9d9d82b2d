"""Compilation, step times, memory and data stalls of a config on this machine."""

import collections
import contextlib
import dataclasses
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from mmfusion_jax.config import build
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.report.formatting import seconds
from mmfusion_jax.runner import provenance
from mmfusion_jax.train.state import TrainState, create_state
from mmfusion_jax.train.step import Step
from mmfusion_jax.train.timing import is_ready
from mmfusion_jax.types import Batch

NUM_WARMUP_STEPS = 2  # steps that are not timed, beside the first
HITS, MISSES = ("/jax/compilation_cache/cache_" + end for end in ("hits", "misses"))


def measure(spec: ExperimentSpec, steps: int) -> dict[str, Any]:
    """Returns all measurements of a config, as JSON values.

    Every part has "first_call_s", "compile_s" (the first call minus one step),
    "from_cache" (whether everything came from the compilation cache), "step_s",
    "examples_per_s" and "peak_bytes", the highest memory use so far.

    Args:
        spec: The experiment.
        steps: Number of timed steps of every kind.
    """
    data = build.build_dataset(spec, build.fold_numbers(spec)[0])
    pipeline = build.build_pipeline(spec, data, seed=0)
    parts = build.build_components(spec, data, steps)
    executor, size = parts.executor, pipeline.batch_size
    step = executor.compile(parts.train_step(executor.axis))
    forward = executor.compile_eval(
        lambda v, b: parts.model.apply(v, b, train=False).prediction
    )
    blank = pipeline.dummy_batch()
    init = lambda: create_state(parts.model, parts.tx, blank, jax.random.key(0))
    rows = next(iter(pipeline.train(0, 1)))

    found = {}
    state, found["init"] = _time_first_call(lambda: executor.create(init))
    batch = executor.put(rows, train=False)
    variables = state.variables
    found["forward"] = _time_calls(lambda: forward(variables, batch), steps, size)
    trainer = RepeatedStep(step, state, executor.put(rows, train=True))
    found["train_step"] = _time_calls(trainer, steps, size)
    batches = (executor.put(b, train=True) for b in pipeline.train(0, steps + 1))
    found["pipeline"] = _time_pipeline(trainer, batches, steps, size)
    return {
        "config": spec.source,
        "data": data.title,
        "batch_size": size,
        "steps": steps,
        **found,
        "device": _device(),
        "versions": provenance.versions(),
        "git": provenance.commit(),
    }


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


def show(found: Mapping[str, Any]) -> None:
    """Prints measurements as a table."""
    console, device = Console(highlight=False), found["device"]
    console.print(
        f"{found['config']['model']['name']} on {found['data']}, batch "
        f"{found['batch_size']}, {found['config']['compute_dtype']}; "
        f"{device['count']} x {device['kind']}, {device['cpu_cores']} CPU cores; "
        f"median of {found['steps']} steps",
        markup=False,
    )
    heads = ("", "compile", "step", "p10-p90", "examples/s", "peak memory")
    table = Table(*heads)
    for name in ("init", "forward", "train_step"):
        part = found[name]
        cached = " (from the cache)" if part["from_cache"] else ""
        compiled = seconds(part.get("compile_s", part["first_call_s"])) + cached
        row = [compiled, *_step_cells(part), f"{part['peak_bytes'] / 1e6:,.0f} MB"]
        table.add_row(name.replace("_", " "), *row)
    table.add_row("with real data", "", *_step_cells(found["pipeline"]), "")
    console.print(table)
    stall = found["pipeline"]["data_stall_fraction"]
    console.print(f"data loading stalls: {100 * stall:.1f} % of step time")
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    commit = f", commit {found['git']}" if found["git"] else ""
    console.print(f"{versions}{commit}", markup=False, style="dim")


def _step_cells(part: Mapping[str, Any]) -> list[str]:
    if "step_s" not in part:
        return ["", "", ""]
    step = part["step_s"]
    span = f"{seconds(step['p10'])} - {seconds(step['p90'])}"
    return [seconds(step["median"]), span, f"{part['examples_per_s']:.1f}"]


def _time_calls(call: Callable[[], Any], steps: int, size: int) -> dict[str, Any]:
    """Times the first call, which compiles, and `steps` more."""
    _, found = _time_first_call(call)
    times = []
    for number in range(NUM_WARMUP_STEPS + steps):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        if number >= NUM_WARMUP_STEPS:
            times.append(time.perf_counter() - begun)
    found |= _timings(times, size)
    compiled = found["first_call_s"] - found["step_s"]["median"]
    return {**found, "compile_s": max(compiled, 0.0), "peak_bytes": _peak_bytes()}


def _time_first_call(call: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """Returns the result of a first call, and its time."""
    with _cache_events() as events:
        begun = time.perf_counter()
        result = jax.block_until_ready(call())
        took = time.perf_counter() - begun
    cached = events[HITS] > 0 and events[MISSES] == 0
    return result, {
        "first_call_s": took, "from_cache": cached, "peak_bytes": _peak_bytes()
    }  # fmt: skip


def _time_pipeline(
    trainer: RepeatedStep, batches: Iterator[Batch], steps: int, size: int
) -> dict[str, Any]:
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
        jax.block_until_ready(running)
        running = trainer()
        now = time.perf_counter()
        times.append(now - since)
        since = now
    jax.block_until_ready(running)
    return {
        **_timings(times, size),
        "data_stall_fraction": waited / max(sum(times), 1e-9),
    }


def _timings(times: list[float], size: int) -> dict[str, Any]:
    """Returns the median and percentiles of step times, and examples per second."""
    low, median, high = (float(x) for x in np.percentile(times, [10, 50, 90]))
    return {
        "step_s": {"median": median, "p10": low, "p90": high},
        "examples_per_s": size * len(times) / sum(times),
    }


@contextlib.contextmanager
def _cache_events() -> Iterator[collections.Counter[str]]:
    """Counts the hits and misses of the compilation cache within the context."""
    events: collections.Counter[str] = collections.Counter()
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


def _peak_bytes() -> int:
    """Returns the peak memory of the device, or else of this process."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _device() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "kind": device.device_kind,
        "platform": device.platform,
        "count": jax.device_count(),
        "cpu_cores": os.cpu_count(),
    }
