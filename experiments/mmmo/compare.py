"""Compares trained runs on `score` with regression on the same folds and clips.

    python experiments/mmmo/compare.py FOLDER RUN [RUN ...]

FOLDER contains mmmo.npz; RUN is the workdir of a training on the 5 folds. If all folds
of a run have the same seeds, prints, as JSON, the mean of every metric, with its
standard deviation over the seeds (of the means over the folds) and over the folds (of
the means over the seeds), and a paired comparison with regression on all three
modalities: the difference of the absolute errors and of the accuracies of every test
clip, averaged over the seeds, with its standard error and the p-value of Wilcoxon's
signed-rank test over the clips.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from regression import ALL, FOLDS, predict
from scipy.stats import wilcoxon

from mmfusion_jax.data.datasets.ict_mmmo import TARGET, load_ict_mmmo
from mmfusion_jax.results.config_file import read_config
from mmfusion_jax.results.model_result import ModelResult, read_run

METRICS = ("mae", "corr", "acc2")
Runs = dict[int, dict[int, ModelResult]]


def read_runs(workdir: Path) -> Runs:
    """Returns the result of every finished run, by fold and seed."""
    found: Runs = {}
    for path in sorted(workdir.glob("fold_*/seed_*/run.json")):
        fold, seed = (int(p.name.split("_")[1]) for p in (path.parents[1], path.parent))
        if result := read_run(path.parent):
            found.setdefault(fold, {})[seed] = result
    return found


def mean_std(runs: Runs) -> dict[str, dict[str, float]]:
    """Returns mean and standard deviations of each metric over folds and seeds."""
    made = {}
    for name in METRICS:
        table = np.array(
            [[r.test.scores[name] for _, r in sorted(s.items())] for s in runs.values()]
        )
        made[name] = {
            "mean": float(table.mean()),
            "std over seeds": float(table.mean(axis=0).std(ddof=1)),
            "std over folds": float(table.mean(axis=1).std(ddof=1)),
        }
    return made


def compare(
    runs: Runs, folder: str, keep_clips_without_text: bool
) -> dict[str, dict[str, float]]:
    """Returns the paired comparison of a model with regression."""
    errors, accuracies = [], []
    for fold, seeds in runs.items():
        data = load_ict_mmmo(
            folder,
            fold=fold,
            folds=FOLDS,
            protocol="fixed_epochs",
            keep_clips_without_text=keep_clips_without_text,
        )
        y_true = data.label("test", "score")
        pairs = [run.plot_data.pairs for run in seeds.values() if run.plot_data.pairs]
        y_pred = np.array([pair.prediction for pair in pairs])
        # The examples must be in the same order, or the comparison is not paired.
        assert np.allclose([pair.truth for pair in pairs], y_true, atol=1e-3)
        positive = y_true > TARGET.neutral
        logistic, ridge = predict(data, ALL)
        errors.append(np.abs(y_pred - y_true).mean(axis=0) - np.abs(ridge - y_true))
        correct = ((y_pred > TARGET.neutral) == positive).mean(axis=0)
        accuracies.append(correct - (logistic == positive))
    return {"mae": _test(errors), "accuracy": _test(accuracies)}


def _test(differences: list[np.ndarray]) -> dict[str, float]:
    """Returns the mean over all clips, its standard error, and Wilcoxon's p-value."""
    # Every clip is tested in one fold, so no clip counts twice.
    d = np.concatenate(differences)
    test: Any = wilcoxon(d)
    error = float(d.std(ddof=1) / np.sqrt(len(d)))
    return {"difference": float(d.mean()), "error": error, "p": float(test.pvalue)}


def main() -> None:
    """Prints a JSON object for every run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="folder with mmmo.npz")
    parser.add_argument("run", type=Path, nargs="+", help="workdir of a training")
    options = parser.parse_args()
    for workdir in options.run:
        runs = read_runs(workdir)
        recorded = read_config(workdir)
        if recorded is None:
            parser.error(
                f"{workdir} is not the workdir of a training: config.json is missing"
            )
        result: dict[str, Any] = {"run": workdir.name, "folds": sorted(runs)}
        # Means over seeds and over folds need every fold with every seed.
        if len({tuple(sorted(seeds)) for seeds in runs.values()}) == 1:
            keep = recorded.config["data"]["keep_clips_without_text"]
            result |= {
                "metrics": mean_std(runs),
                "paired": compare(runs, options.folder, keep),
            }
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
