"""Logistic and ridge regression on the pooled steps of ICT-MMMO.

    python experiments/mmmo/regression.py FOLDER

FOLDER holds mmmo.npz. Every feature is pooled over the real steps of a clip: mean,
deviation and maximum; a clip without text has the mean of the others. The penalties are
chosen within the training clips. Prints, as JSON, test scores under the protocol
"fixed": of the official split, and of 5 folds of the complete clips (mean and deviation
over the folds), without and with the clips that have no text to train on.
"""

import functools
import json
import sys
from typing import Any

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.datasets.ict_mmmo import TARGET, load_ict_mmmo
from mmfusion_jax.data.in_memory import InMemory

FOLDS = 5
ALL = ("text", "audio", "video")
CHOICES = (("text",), ("audio",), ("video",), ("audio", "video"), ALL)


def pooled(source: InMemory, name: str) -> np.ndarray:
    """Mean, deviation and maximum over real steps, (n 3f); NaN where there is none."""
    rows = []
    for x, mask in zip(source.inputs[name], source.masks[name], strict=True):
        real = x[mask] if mask.any() else np.full_like(x[:1], np.nan)
        rows.append(np.concatenate([real.mean(0), real.std(0), real.max(0)]))
    return np.stack(rows)


def answers(data: Dataset, chosen: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What logistic regression says of "positive" and ridge of "score", on test."""
    x = {
        split: np.concatenate([pooled(source, name) for name in chosen], axis=1)
        for split, source in data.sources.items()
        if isinstance(source, InMemory)
    }
    classes: Any = GridSearchCV(
        make_pipeline(*_first(), LogisticRegression(max_iter=5000)),
        {"logisticregression__C": np.logspace(-4, 0, 5)},
        cv=5,
    ).fit(x["train"], data.label("train", "positive"))
    line = make_pipeline(*_first(), RidgeCV(np.logspace(0, 5, 11)))
    line.fit(x["train"], data.label("train", "score"))
    return classes.predict(x["test"]), line.predict(x["test"])


def scores(data: Dataset, chosen: tuple[str, ...]) -> dict[str, float]:
    """Accuracy of "positive"; side of 3, error and correlation of "score"."""
    flag, said = answers(data, chosen)
    truth = data.label("test", "score")
    return {
        "accuracy": float(np.mean(flag == data.label("test", "positive"))),
        "acc2": float(np.mean((said > TARGET.neutral) == (truth > TARGET.neutral))),
        "mae": float(np.abs(said - truth).mean()),
        "r": float(np.corrcoef(said, truth)[0, 1]),
    }


def _first() -> tuple[SimpleImputer, StandardScaler]:
    """What is done to the features before any regression."""
    return SimpleImputer(keep_empty_features=True), StandardScaler()


def constant(data: Dataset) -> dict[str, float]:
    """What always saying the same gives: the larger class, the training mean."""
    y = {split: data.label(split, "score") for split in data.sources}
    share = float(np.mean(data.label("test", "positive")))
    error = float(np.abs(y["test"] - y["train"].mean()).mean())
    return {"accuracy": max(share, 1 - share), "mae": error}


def over_folds(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and deviation of each score."""
    made = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        made[name] = {"mean": float(values.mean()), "std": float(values.std(ddof=1))}
    return made


def main() -> None:
    """Prints the tables."""
    folder = sys.argv[1]
    data = load_ict_mmmo(folder, protocol="fixed_epochs")
    official = {"constant": constant(data)}
    official |= {"+".join(chosen): scores(data, chosen) for chosen in CHOICES}
    tables: dict[str, Any] = {"official": official}
    for name, textless in (("5 folds", False), ("5 folds, textless", True)):
        tables[name] = folded(folder, textless)
    print(json.dumps(tables, indent=2))


def folded(folder: str, textless: bool) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and deviation over 5 folds, for each choice of modalities."""
    make = functools.partial(load_ict_mmmo, folder, folds=FOLDS, protocol="fixed_epochs")
    folds = [make(fold=number, textless=textless) for number in range(FOLDS)]
    table = {"constant": over_folds([constant(fold) for fold in folds])}
    for chosen in CHOICES:
        rows = [scores(fold, chosen) for fold in folds]
        table["+".join(chosen)] = over_folds(rows)
    return table


if __name__ == "__main__":
    main()
