"""Time, throughput, memory and compilation of training steps and of convolutions."""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import conv3d
import jax
import jax.numpy as jnp
import numpy as np
from accelerator_info import memory_limit, peak_bytes, peak_flops
from measured_rows import is_out_of_memory
from paper_steps import Paper, build_step

from mmfusion_jax.analysis.cost import compiled_memory, count_macs_per_example
from mmfusion_jax.ops.conv.conv3d import grouped_conv3d

ROUNDS, MAX_CALLS = 3, 50
SECONDS = 2.0  # of timed calls
HALVINGS = 3
"""How often a batch that does not fit the memory is halved."""


def measure_step(
    paper: Paper, dtype: str, precision: str, profile: Path | None = None
) -> dict[str, Any]:
    """Returns the figures of a training step of a paper.

    A batch that does not fit the memory is halved, up to `HALVINGS` times, as far as
    the devices can share it.

    Args:
        paper: The paper.
        dtype: "float32" or "bfloat16".
        precision: Of the model's products.
        profile: Folder for a trace of three steps; None for none.
    """
    too_large = []
    while True:
        try:
            figures = _figures(paper, dtype, precision, profile)
            return figures | {"too_large": too_large}
        except Exception as error:
            half, odd = divmod(paper.batch_size, 2)
            last = odd or half % jax.device_count() or len(too_large) == HALVINGS
            if not is_out_of_memory(error) or last:
                raise
            too_large.append(paper.batch_size)
            paper = dataclasses.replace(paper, batch_size=half)
        # The error holds the frames, and so the arrays, of the failed attempt until
        # here.
        jax.clear_caches()


def _figures(
    paper: Paper, dtype: str, precision: str, profile: Path | None
) -> dict[str, Any]:
    """Returns the figures of a training step at one batch size."""
    before = peak_bytes()
    made = build_step(paper, dtype, precision)
    executor = made.parts.executor
    state = jax.device_put(made.state, executor.replicated)
    batch = executor.put(made.batch, train=True)
    step = executor.compile(made.parts.train_step(executor.axis))
    begun = time.perf_counter()
    lowered = step.lower(state, batch)
    traced = time.perf_counter()
    compiled = lowered.compile()
    figures = {
        "batch": paper.batch_size,
        "trace_s": traced - begun,
        "compile_s": time.perf_counter() - traced,
        "parameters": sum(x.size for x in jax.tree.leaves(made.state.params)),
    }
    memory = compiled_memory(compiled)
    figures["compiled_bytes"] = memory.peak
    figures["temporary_bytes"] = memory.temporary
    figures["memory_limit"] = memory_limit()
    figures |= _costs(compiled)

    def call() -> Any:
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics

    figures |= seconds_per_call(call)
    figures["loss"] = float(call()["loss"])
    with _trace(profile):
        for _ in range(3):
            jax.block_until_ready(call())
    after = peak_bytes()
    # The highest use of the process so far: of this row if it rose during it.
    figures["peak_bytes"] = after if after != before else None
    macs = count_macs_per_example(made.parts.model, made.state.variables, made.batch)
    figures["examples_per_s"] = paper.batch_size / figures["seconds"]
    figures["forward_macs_per_example"] = macs.total
    peak = peak_flops(jax.devices()[0].device_kind, dtype, precision)
    figures["mfu"] = _utilization(macs.total, figures["examples_per_s"], peak)
    return figures


def _costs(compiled: Any) -> dict[str, float | None]:
    """Returns FLOPs and bytes according to XLA, which counts a loop's body once."""
    found = compiled.cost_analysis() or {}
    found = found[0] if isinstance(found, list) else found
    return {
        "xla_flops": found.get("flops"),
        "xla_bytes_accessed": found.get("bytes accessed"),
    }


def _utilization(macs: int, examples_per_s: float, peak: float | None) -> float | None:
    """Returns the fraction of the peak; a backward pass counts as two forward ones."""
    if peak is None:
        return None
    return 6 * macs * examples_per_s / (peak * jax.device_count())


def _trace(folder: Path | None) -> contextlib.AbstractContextManager:
    """Returns the profiler, which writes to a folder; nothing for None."""
    if folder is None:
        return contextlib.nullcontext()
    return jax.profiler.trace(str(folder))


def seconds_per_call(
    call: Callable[[], Any], wait: Callable[[Any], Any] = jax.block_until_ready
) -> dict[str, float]:
    """Returns the seconds of a call: "seconds", the least of rounds, and the median.

    Args:
        call: Starts the work.
        wait: Waits for the result of the last call of a round.
    """
    for _ in range(2):  # the first call is slower
        begun = time.perf_counter()
        wait(call())
    took = time.perf_counter() - begun
    number = int(np.clip(SECONDS / ROUNDS / max(took, 1e-6), 1, MAX_CALLS))
    times = []
    for _ in range(1 if took > SECONDS else ROUNDS):
        begun = time.perf_counter()
        for _ in range(number):
            result = call()
        wait(result)
        times.append((time.perf_counter() - begun) / number)
    return {"seconds": min(times), "median_seconds": statistics.median(times)}


def forms() -> dict[str, Mapping[str, Any]]:
    """Returns the forms of the grouped convolution that may be fast on this device."""
    on_cpu = jax.default_backend() == "cpu"
    return {k: v for k, v in conv3d.FORMS.items() if on_cpu or v["method"] != "taps"}


def measure_forms(
    shape: tuple[int, ...], stride: int, dtype: str
) -> dict[str, dict[str, Any]]:
    """Returns, by form, the seconds of a grouped convolution and of its compilation.

    Args:
        shape: (b s h w c).
        stride: Stride along s, h and w.
        dtype: "float32" or "bfloat16".
    """
    rng = np.random.default_rng(0)
    kernel = (3, 3, 3, shape[-1] // conv3d.GROUPS, shape[-1])
    x = jnp.asarray(np.resize(rng.standard_normal(999_983), shape), dtype)
    w = jnp.asarray(0.1 * rng.standard_normal(kernel), dtype)
    found = {}
    for form, options in forms().items():

        def conv(x: jax.Array, w: jax.Array, options: Any = options) -> jax.Array:
            return grouped_conv3d(x, w, stride=stride, groups=conv3d.GROUPS, **options)

        begun = time.perf_counter()
        try:
            forward, both = conv3d.compiled(conv, x, w)
            compile_s = time.perf_counter() - begun
            found[form] = {
                "forward": seconds_per_call(forward)["seconds"],
                "with_gradients": seconds_per_call(both)["seconds"],
                "compile": compile_s,
            }
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            found[form] = {"error": "out of memory"}
    return found
