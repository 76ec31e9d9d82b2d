"""Tables of trained configs: a row for each, mean and deviation over the seeds."""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfusion_jax.metrics.rounding import format_number

HEADS = ("model", "modalities", "test accuracy", "validation", "macro F1", "MIS")
SCORES = {"test": ("accuracy", "macro_f1", "mis"), "valid": ("accuracy",)}


def train(config: str, folder: Path, *options: str) -> dict[str, Any]:
    """The result of one config, trained to its end; goes on where it was broken off.

    Args:
        config: with the word after its colon, such as "mea.py:mmmo".
        folder: of the run.
        options: such as "--config.seed=1".

    Raises:
        SystemExit: with the status of the training, if it failed and said why.
    """
    command = [sys.executable, "-m", "mmfusion_jax.main", f"--config=configs/{config}"]
    done = subprocess.run([*command, *options, f"--workdir={folder}"], check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def row(
    name: str, modalities: Sequence[str], runs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Mean and deviation over the seeds."""
    found: dict[str, Any] = {"model": name, "modalities": list(modalities)}
    for split, scores in SCORES.items():
        for score in scores:
            if values := [run[split][score] for run in runs if score in run[split]]:
                found[f"{split}_{score}"] = spread(values)
    found["parameters"] = runs[0]["parameters"]["total"]
    found["seeds"] = len(runs)
    return found


def step_s(runs: Sequence[Mapping[str, Any]], which: str = "median") -> float:
    """Seconds of a step: the median over runs of their "median", or "p10"."""
    return statistics.median(run["times"]["step_s"][which] for run in runs)


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, and the standard deviation where there are several values."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "std": deviation}


def shown(found: Mapping[str, float | None] | None) -> str:
    """A score as ".905 ± .011", without the deviation if there is none."""
    if not found:
        return "not defined"
    text = format_number(found["mean"])
    return text if found["std"] is None else f"{text} ± {format_number(found['std'])}"


def markdown(table: Sequence[Mapping[str, Any]]) -> str:
    """The table as a README has it."""
    heads = (*HEADS, "parameters", "step", "seeds")
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for found in table:
        step = f"{1000 * found['step_s']:.0f} ms" if "step_s" in found else ""
        cells = [found["model"], ", ".join(found["modalities"])]
        scores = ("test_accuracy", "valid_accuracy", "test_macro_f1", "test_mis")
        cells += [shown(found.get(score)) for score in scores]
        cells += [f"{found['parameters']:,}", step, str(found["seeds"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(path: Path, table: Sequence[Mapping[str, Any]], **facts: Any) -> None:
    """The table and what belongs to it, as JSON."""
    text = json.dumps({"table": table, **facts}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
