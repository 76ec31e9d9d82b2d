"""Logistic regression on statistics of the MFCC and on the action units.

    python experiments/ravdess_features/reference.py FOLDER

FOLDER contains mfcc.npz and action_units.npz. Prints, as JSON, the accuracy on
validation and test actors for both protocols: "validation" trains on 12 actors,
"fixed_epochs" on 16.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5


def features(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Returns the features of every clip, its emotion, and the fold that tests it."""
    audio = np.load(folder / "mfcc.npz", allow_pickle=False)
    faces = np.load(folder / "action_units.npz", allow_pickle=False)
    mfcc = audio["mfcc"].astype(np.float64)
    # The standard deviation of differences: how fast the spectrum changes, which the
    # other statistics, over time, do not contain.
    delta = np.diff(mfcc, axis=1)
    statistics = [mfcc.mean(1), mfcc.std(1), delta.std(1), mfcc.max(1), mfcc.min(1)]
    pooled = np.concatenate(statistics, axis=1)
    units = np.concatenate([faces["au_static"], faces["au_dynamic"]], axis=1)
    both = np.concatenate([pooled, units], axis=1)
    table = {"audio": pooled, "action units": units, "both": both}
    return table, audio["emotion"], audio["fold"]


def evaluate(x: np.ndarray, y: np.ndarray, fold: np.ndarray, protocol: str) -> dict:
    """Returns the accuracy of every fold, on test and on validation actors."""
    test, valid = [], []
    for number in range(FOLDS):
        # As `cross_validation_split`: the next fold validates. Regularization is fixed,
        # so nothing is selected on it.
        is_test, is_valid = fold == number, fold == (number + 1) % FOLDS
        train = ~is_test & ~is_valid if protocol == "validation" else ~is_test
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)
        ).fit(x[train], y[train])
        test.append(model.score(x[is_test], y[is_test]))
        valid.append(model.score(x[is_valid], y[is_valid]))
    made = {"test": float(np.mean(test)), "test of each fold": test}
    return made | ({"valid": float(np.mean(valid))} if protocol == "validation" else {})


def main() -> None:
    """Prints the table as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder with the two npz files")
    table, emotion, fold = features(parser.parse_args().folder)
    made = {
        protocol: {
            name: evaluate(x, emotion, fold, protocol) for name, x in table.items()
        }
        for protocol in ("validation", "fixed_epochs")
    }
    print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
