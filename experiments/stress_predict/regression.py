"""Logistic regression on the pooled windows of Stress-Predict.

    python experiments/stress_predict/regression.py FOLDER

FOLDER contains S01.npz and so on. Every signal is pooled over the valid steps of a
window: mean, standard deviation, minimum, maximum and the difference of its halves.
Prints, as JSON, test macro-F1 and accuracy under the protocol "fixed_epochs", mean and
standard deviation over 5 folds, for signals standardized by the training subjects and
by each subject's own recording.
"""

import argparse
import json

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.datasets.stress_predict import (
    LABEL,
    SIGNALS,
    load_stress_predict,
)
from mmfusion_jax.data.in_memory import InMemory

FOLDS = 5
Metrics = dict[str, float]


def pooled(source: InMemory, signal: str) -> np.ndarray:
    """Returns the statistics of one signal in every window, (n 5)."""
    rows = []
    windows = zip(source.inputs[signal][..., 0], source.masks[signal], strict=True)
    for x, mask in windows:
        # Masked samples are 0; a window without the signal has the statistics of one 0.
        valid = x[mask] if mask.any() else x[:1]
        half = (len(valid) + 1) // 2
        trend = valid[-half:].mean() - valid[:half].mean()
        rows.append([valid.mean(), valid.std(), valid.min(), valid.max(), trend])
    return np.array(rows)


def evaluate(data: Dataset, signals: tuple[str, ...]) -> Metrics:
    """Returns macro-F1 and accuracy on the test subjects."""
    x = {
        split: np.concatenate([pooled(source, name) for name in signals], axis=1)
        for split, source in data.sources.items()
        if isinstance(source, InMemory)
    }
    y = {split: data.label(split, LABEL) for split in x}
    # Balanced, as a third of the windows are stress and macro-F1 counts both classes.
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=5000, class_weight="balanced")
    )
    return metrics(y["test"], model.fit(x["train"], y["train"]).predict(x["test"]))


def metrics(y_true: np.ndarray, y_pred: np.ndarray) -> Metrics:
    """Returns the metrics of predictions."""
    # zero_division: a constant prediction never predicts the other class.
    macro = f1_score(y_true, y_pred, average="macro", zero_division=0)  # pyright: ignore
    return {"macro_f1": float(macro), "accuracy": float(np.mean(y_true == y_pred))}


def mean_std_over_folds(rows: list[Metrics]) -> dict[str, Metrics]:
    """Returns mean and standard deviation of each metric."""
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {
        name: {"mean": float(x.mean()), "std": float(x.std(ddof=1))}
        for name, x in values.items()
    }


def main() -> None:
    """Prints the tables as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="folder with the files of the subjects")
    folder = parser.parse_args().folder
    made = {}
    for standardize_by in ("train", "subject"):
        folds = [
            load_stress_predict(
                folder,
                fold=i,
                folds=FOLDS,
                protocol="fixed_epochs",
                standardize_by=standardize_by,
            )
            for i in range(FOLDS)
        ]
        labels = [fold.label("test", LABEL) for fold in folds]
        constant = [metrics(y, np.zeros_like(y)) for y in labels]
        made[standardize_by] = {"majority class": mean_std_over_folds(constant)}
        for signals in (*((name,) for name in SIGNALS), tuple(SIGNALS)):
            rows = [evaluate(fold, signals) for fold in folds]
            made[standardize_by]["+".join(signals)] = mean_std_over_folds(rows)
    print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
