"""Where the time of a training run went."""

import dataclasses
from typing import Any

import jax
import numpy as np

from mmfusion_jax.types import PyTree


@dataclasses.dataclass
class StepTimer:
    """Where the time of this process went, in seconds.

    One step is in flight while the next batch is fetched. A wait for a batch counts if
    that step had ended when the batch came: the devices stood idle for at most that
    long. Waits during a step cost nothing.
    """

    steps: list[float] = dataclasses.field(default_factory=list)
    compile: float = 0.0
    data: float = 0.0
    evaluate: float = 0.0
    save: float = 0.0
    total: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Medians and shares, as `result.json` has them."""
        low, median, high = np.percentile(self.steps or [0.0], [10, 50, 90])
        training = max(sum(self.steps), 1e-9)
        return {
            "step_s": {"median": median, "p10": low, "p90": high},
            "compile_s": self.compile,
            "data_wait_share": min(self.data / training, 1.0),
            "evaluate_s": self.evaluate,
            "save_s": self.save,
            "total_s": self.total,
        }


def is_ready(value: PyTree) -> bool:
    """Whether a computation that was started is done, asked without waiting for it."""
    ready = lambda leaf: getattr(leaf, "is_ready", lambda: True)()
    return all(ready(leaf) for leaf in jax.tree.leaves(value))
