"""Logistic regression on the pooled windows of Stress-Predict.

    python experiments/stress_predict/regression.py FOLDER

FOLDER holds S01.npz and so on. Every signal is pooled over the real steps of a window,
to its mean, deviation, least, greatest and the difference of its halves. Prints, as
JSON, test macro-F1 and accuracy under the protocol "fixed", mean and deviation over 5
folds, for signals as they are and with mean 0 and deviation 1 for each subject.
"""

import json
import sys

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
Rows = dict[str, float]


def pooled(source: InMemory, name: str) -> np.ndarray:
    """What is known of every window of one signal, (n 5)."""
    rows = []
    windows = zip(source.inputs[name][..., 0], source.masks[name], strict=True)
    for x, mask in windows:
        real = x[mask] if mask.any() else x[:1]
        half = (len(real) + 1) // 2
        trend = real[-half:].mean() - real[:half].mean()
        rows.append([real.mean(), real.std(), real.min(), real.max(), trend])
    return np.array(rows)


def scores(data: Dataset, chosen: tuple[str, ...]) -> Rows:
    """Macro-F1 and accuracy on the test subjects."""
    x = {
        split: np.concatenate([pooled(source, name) for name in chosen], axis=1)
        for split, source in data.sources.items()
        if isinstance(source, InMemory)
    }
    y = {split: data.label(split, LABEL) for split in x}
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=5000, class_weight="balanced")
    )
    said = model.fit(x["train"], y["train"]).predict(x["test"])
    return measured(y["test"], said)


def measured(truth: np.ndarray, said: np.ndarray) -> Rows:
    """The scores of answers."""
    macro = f1_score(truth, said, average="macro", zero_division=0)  # pyright: ignore
    return {"macro_f1": float(macro), "accuracy": float(np.mean(truth == said))}


def over_folds(rows: list[Rows]) -> dict[str, Rows]:
    """Mean and deviation of each score."""
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {
        name: {"mean": float(x.mean()), "std": float(x.std(ddof=1))}
        for name, x in values.items()
    }


def main() -> None:
    """Prints the tables."""
    made = {}
    for standard in ("train", "subject"):
        folds = [
            load_stress_predict(
                sys.argv[1],
                fold=i,
                folds=FOLDS,
                protocol="fixed_epochs",
                standardize_by=standard,
            )
            for i in range(FOLDS)
        ]
        tests = [fold.label("test", LABEL) for fold in folds]
        made[standard] = {
            "always rest": over_folds([measured(y, np.zeros_like(y)) for y in tests])
        }
        for chosen in (*((name,) for name in SIGNALS), tuple(SIGNALS)):
            rows = [scores(fold, chosen) for fold in folds]
            made[standard]["+".join(chosen)] = over_folds(rows)
    print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
