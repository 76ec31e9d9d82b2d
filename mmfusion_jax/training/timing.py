"""Measures the time of training steps and other phases, and memory."""

import dataclasses
import math
import resource
import sys

import jax
import numpy as np

from mmfusion_jax.results.model_result import PeakMemory, StepTime, Times
from mmfusion_jax.types import PyTree


@dataclasses.dataclass
class StepTimer:
    """Time of this process by phase, in seconds.

    One step is dispatched ahead of the host while the next batch is fetched. Waiting
    for a batch counts as a data stall only if that step had ended when the batch
    arrived, since the devices were then idle for at most that long.

    Attributes:
        steps: Time of every step after the first.
        compile: Time of the first step, which includes compilation.
        data_stall: Time for which the devices were idle and waited for data.
        evaluate: Time of evaluations.
        save: Time to start checkpoints.
        total: Time of the whole run.
    """

    steps: list[float] = dataclasses.field(default_factory=list)
    compile: float = 0.0
    data_stall: float = 0.0
    evaluate: float = 0.0
    save: float = 0.0
    total: float = 0.0

    def summary(self) -> Times:
        """Returns the times as `run.json` has them; NaN where nothing was timed."""
        # A run of one step has no step after the compilation.
        steps = self.steps or [math.nan]
        low, median, high = np.percentile(steps, [10, 50, 90]).tolist()
        training = max(sum(steps), 1e-9)
        return Times(
            step_s=StepTime(median, low, high),
            compile_s=self.compile or math.nan,
            data_stall_fraction=min(self.data_stall / training, 1.0)
            if self.steps
            else math.nan,
            evaluate_s=self.evaluate,
            save_s=self.save,
            total_s=self.total,
        )


def is_ready(value: PyTree) -> bool:
    """Returns whether an asynchronous computation has finished; does not block."""
    ready = lambda leaf: getattr(leaf, "is_ready", lambda: True)()
    return all(ready(leaf) for leaf in jax.tree.leaves(value))


def peak_memory() -> PeakMemory:
    """Returns the highest memory use of the device, or else of this process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return PeakMemory(int(stats["peak_bytes_in_use"]), "device")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In kilobytes, except on macOS.
    return PeakMemory(peak if sys.platform == "darwin" else 1024 * peak, "process")
