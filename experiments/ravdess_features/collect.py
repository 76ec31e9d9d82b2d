"""Collects finished runs and the reference into one table.

    python experiments/ravdess_features/collect.py RUNS REFERENCE.json > results.json

RUNS contains the workdirs fixed_epochs, fixed_epochs_none, validation and
validation_none.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmfusion_jax.results.experiment_result import RunResult, read_result
from mmfusion_jax.results.model_result import ModelResult

FOLDS = 5


def mean_std(
    runs: Sequence[RunResult], results: Sequence[ModelResult], split: str
) -> dict:
    """Returns mean, standard deviations over seeds and over folds, and fold means."""
    seeds = sorted({run.seed for run in runs})
    table = np.zeros((len(seeds), FOLDS))
    for run, result in zip(runs, results, strict=True):
        scores = getattr(result, split).scores
        table[seeds.index(run.seed), run.fold] = scores["accuracy"]
    return {
        "mean": round(float(table.mean()), 4),
        # Of the means over the other axis: how far a table of one seed, or of other
        # actors, would differ from this one.
        "std of seeds": round(float(table.mean(axis=1).std(ddof=1)), 4),
        "std of folds": round(float(table.mean(axis=0).std(ddof=1)), 4),
        "folds": table.mean(axis=0).round(4).tolist(),
        "runs": len(runs),
    }


def rows(workdir: Path, name: str, stages: Sequence[str] = ()) -> dict[str, dict]:
    """Returns the rows of a model and of its unimodal stages."""
    result = read_result(workdir)
    if result is None:
        return {}
    runs = result.runs
    found: dict[str, list[ModelResult]] = {
        stage: [run.stages[stage] for run in runs] for stage in stages
    }
    found[name] = [*runs]
    splits = ["test"] + (["valid"] if runs[0].valid else [])
    made = {}
    for title, results in found.items():
        made[title] = {split: mean_std(runs, results, split) for split in splits}
        made[title]["parameters"] = results[0].parameters.total
    made["majority"] = {"test": result.baseline.scores["accuracy"].mean}
    return made


def main() -> None:
    """Prints the table as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder of the workdirs")
    parser.add_argument("reference", type=Path, help="output of reference.py")
    options = parser.parse_args()
    reference = json.loads(options.reference.read_text(encoding="utf-8"))
    made = {}
    for protocol in ("fixed_epochs", "validation"):
        found = rows(options.runs / protocol, "cfn_sr", ("audio", "video"))
        found |= rows(options.runs / f"{protocol}_none", "concatenation")
        made[protocol] = {"networks": found, "regression": reference[protocol]}
    print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
