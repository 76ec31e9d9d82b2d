"""Gathers finished runs and the reference into one table.

    python experiments/ravdess_features/collect.py RUNS REFERENCE.json > results.json

RUNS holds the work folders fixed, fixed_none, honest and honest_none.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

FOLDS = 5


def spread(runs: Sequence[Mapping], entries: Sequence[Mapping], split: str) -> dict:
    """Mean, deviation over the seeds of the mean over folds, and every fold's mean."""
    seeds = sorted({run["seed"] for run in runs})
    table = np.zeros((len(seeds), FOLDS))
    for run, entry in zip(runs, entries, strict=True):
        table[seeds.index(run["seed"]), run["fold"]] = entry[split]["accuracy"]
    return {
        "mean": round(float(table.mean()), 4),
        "std of seeds": round(float(table.mean(axis=1).std(ddof=1)), 4),
        "std of folds": round(float(table.mean(axis=0).std(ddof=1)), 4),
        "folds": table.mean(axis=0).round(4).tolist(),
        "runs": len(runs),
    }


def rows(folder: Path, name: str, stages: Sequence[str] = ()) -> dict[str, dict]:
    """The model of a work folder and its unimodal stages."""
    path = folder / "result.json"
    if not path.exists():
        return {}
    result = json.loads(path.read_text(encoding="utf-8"))
    runs = result["runs"]
    found = {stage: [run["stages"][stage] for run in runs] for stage in stages}
    found[name] = runs
    splits = ["test"] + (["valid"] if runs[0]["valid"] else [])
    made = {}
    for title, entries in found.items():
        made[title] = {split: spread(runs, entries, split) for split in splits}
        made[title]["parameters"] = entries[0]["parameters"]["total"]
    made["majority"] = {"test": result["baseline"]["scores"]["accuracy"]["mean"]}
    return made


def main() -> None:
    """Prints the table."""
    runs, reference = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    made = {}
    for protocol in ("fixed", "validation"):
        found = rows(runs / protocol, "cfn_sr", ("audio", "video"))
        found |= rows(runs / f"{protocol}_none", "concatenation")
        made[protocol] = {"networks": found, "regression": reference[protocol]}
    print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
