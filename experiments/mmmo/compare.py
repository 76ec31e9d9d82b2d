"""Runs of a model on `score` beside regression on the same folds and the same clips.

    python experiments/mmmo/compare.py FOLDER RUN [RUN ...]

FOLDER holds mmmo.npz; RUN is the work folder of a training on the 5 folds. Where all of
its folds have the same seeds, prints, as JSON, the mean of every score, with its
deviation over the seeds (of the means over the folds) and over the folds (of the means
over the seeds); and what every test clip says of the model and of regression on all
three modalities: the difference of their absolute errors and of their rights, averaged
over the seeds, with its standard error and the p of Wilcoxon's ranks over the clips.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from regression import ALL, FOLDS, answers
from scipy.stats import wilcoxon

from mmfusion_jax.data.datasets.ict_mmmo import TARGET, load_ict_mmmo

SCORES = ("mae", "corr", "acc2")
Units = dict[int, dict[int, dict[str, Any]]]


def units(run: Path) -> Units:
    """Fold -> seed -> the entry of every training that has ended."""
    found: Units = {}
    for path in sorted(run.glob("fold_*/seed_*/run.json")):
        fold, seed = (int(p.name.split("_")[1]) for p in (path.parents[1], path.parent))
        entry = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(fold, {})[seed] = entry
    return found


def spread(found: Units) -> dict[str, dict[str, float]]:
    """Mean and deviations of each score over whole folds and seeds."""
    made = {}
    for name in SCORES:
        table = np.array(
            [[u["test"][name] for _, u in sorted(s.items())] for s in found.values()]
        )
        made[name] = {
            "mean": float(table.mean()),
            "over seeds": float(table.mean(axis=0).std(ddof=1)),
            "over folds": float(table.mean(axis=1).std(ddof=1)),
        }
    return made


def paired(found: Units, folder: str, textless: bool) -> dict[str, dict[str, float]]:
    """The model against regression, clip by clip."""
    errors, rights = [], []
    for fold, seeds in found.items():
        data = load_ict_mmmo(
            folder,
            fold=fold,
            folds=FOLDS,
            protocol="fixed_epochs",
            keep_clips_without_text=textless,
        )
        truth = data.label("test", "score")
        pairs = [unit["plot_data"]["pairs"] for unit in seeds.values()]
        said = np.array([pair["prediction"] for pair in pairs])
        assert np.allclose([pair["truth"] for pair in pairs], truth, atol=1e-3)
        good = truth > TARGET.neutral
        flag, score = answers(data, ALL)
        own, others = np.abs(said - truth).mean(axis=0), np.abs(score - truth)
        errors.append(own - others)
        right = ((said > TARGET.neutral) == good).mean(axis=0)
        rights.append(right - (flag == good))
    return {"mae": _test(errors), "accuracy": _test(rights)}


def _test(differences: list[np.ndarray]) -> dict[str, float]:
    """Mean difference over all clips, its standard error, and Wilcoxon's p."""
    d = np.concatenate(differences)
    ranks: Any = wilcoxon(d)
    error = float(d.std(ddof=1) / np.sqrt(len(d)))
    return {"difference": float(d.mean()), "error": error, "p": float(ranks.pvalue)}


def main() -> None:
    """Prints a JSON object for every run."""
    folder, *runs = sys.argv[1:]
    for run in map(Path, runs):
        found = units(run)
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        shown: dict[str, Any] = {"run": run.name, "folds": sorted(found)}
        if len({tuple(sorted(seeds)) for seeds in found.values()}) == 1:
            textless = config["data"]["textless"]
            shown |= {
                "scores": spread(found),
                "paired": paired(found, folder, textless),
            }
        print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
