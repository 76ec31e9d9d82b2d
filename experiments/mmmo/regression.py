"""Logistic and ridge regression on the pooled steps of ICT-MMMO.

    python experiments/mmmo/regression.py FOLDER

FOLDER contains mmmo.npz. Every feature is pooled over the unpadded steps of a clip:
mean, standard deviation and maximum; a clip without text gets the mean of the others.
The penalties are chosen by cross-validation on the training clips. Prints, as JSON,
test metrics under the protocol "fixed_epochs": of the official split, and of 5 folds of
the complete clips (mean and standard deviation over the folds), without and with the
clips that have no text in the training split.
"""

import argparse
import functools
import json
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
INPUTS = (("text",), ("audio",), ("video",), ("audio", "video"), ALL)


def pooled(source: InMemory, modality: str) -> np.ndarray:
    """Returns mean, standard deviation and maximum over steps, (n 3f).

    NaN for a clip without unpadded steps.
    """
    rows = []
    for x, mask in zip(source.inputs[modality], source.masks[modality], strict=True):
        valid = x[mask] if mask.any() else np.full_like(x[:1], np.nan)
        rows.append(np.concatenate([valid.mean(0), valid.std(0), valid.max(0)]))
    return np.stack(rows)


def predict(
    data: Dataset, modalities: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the test predictions of "positive" (logistic) and "score" (ridge)."""
    x = {
        split: np.concatenate([pooled(source, name) for name in modalities], axis=1)
        for split, source in data.sources.items()
        if isinstance(source, InMemory)
    }
    logistic: Any = GridSearchCV(
        make_pipeline(*_preprocessing(), LogisticRegression(max_iter=5000)),
        {"logisticregression__C": np.logspace(-4, 0, 5)},
        cv=5,
    ).fit(x["train"], data.label("train", "positive"))
    ridge = make_pipeline(*_preprocessing(), RidgeCV(np.logspace(0, 5, 11)))
    ridge.fit(x["train"], data.label("train", "score"))
    return logistic.predict(x["test"]), ridge.predict(x["test"])


def evaluate(data: Dataset, modalities: tuple[str, ...]) -> dict[str, float]:
    """Returns accuracy of "positive", and accuracy above 3, MAE and r of "score"."""
    positive, y_pred = predict(data, modalities)
    y_true = data.label("test", "score")
    return {
        "accuracy": float(np.mean(positive == data.label("test", "positive"))),
        "acc2": float(np.mean((y_pred > TARGET.neutral) == (y_true > TARGET.neutral))),
        "mae": float(np.abs(y_pred - y_true).mean()),
        "r": float(np.corrcoef(y_pred, y_true)[0, 1]),
    }


def _preprocessing() -> tuple[SimpleImputer, StandardScaler]:
    """Returns the preprocessing of every regression."""
    # Without it the imputer drops features that are missing in all training clips, such
    # as text in the official split, and the widths of the splits would differ.
    return SimpleImputer(keep_empty_features=True), StandardScaler()


def constant_baseline(data: Dataset) -> dict[str, float]:
    """Returns the metrics of the majority class and of the mean training score."""
    y = {split: data.label(split, "score") for split in data.sources}
    positive = float(np.mean(data.label("test", "positive")))
    error = float(np.abs(y["test"] - y["train"].mean()).mean())
    return {"accuracy": max(positive, 1 - positive), "mae": error}


def mean_std_over_folds(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Returns mean and standard deviation of each metric."""
    made = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        made[name] = {"mean": float(values.mean()), "std": float(values.std(ddof=1))}
    return made


def cross_validate(
    folder: str, keep_clips_without_text: bool
) -> dict[str, dict[str, dict[str, float]]]:
    """Returns mean and standard deviation over 5 folds, by input modalities."""
    load = functools.partial(
        load_ict_mmmo,
        folder,
        folds=FOLDS,
        protocol="fixed_epochs",
        keep_clips_without_text=keep_clips_without_text,
    )
    folds = [load(fold=number) for number in range(FOLDS)]
    table = {"constant": mean_std_over_folds([constant_baseline(f) for f in folds])}
    for modalities in INPUTS:
        rows = [evaluate(fold, modalities) for fold in folds]
        table["+".join(modalities)] = mean_std_over_folds(rows)
    return table


def main() -> None:
    """Prints the tables as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="folder with mmmo.npz")
    folder = parser.parse_args().folder
    data = load_ict_mmmo(folder, protocol="fixed_epochs")
    official = {"constant": constant_baseline(data)}
    official |= {"+".join(names): evaluate(data, names) for names in INPUTS}
    tables: dict[str, Any] = {"official": official}
    for name, keep in (("5 folds", False), ("5 folds, with clips without text", True)):
        tables[name] = cross_validate(folder, keep)
    print(json.dumps(tables, indent=2))


if __name__ == "__main__":
    main()
