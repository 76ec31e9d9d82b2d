"""Logistic regression on statistics of the MFCC and on the action units.

    python experiments/ravdess_features/reference.py FOLDER

FOLDER holds mfcc.npz and action_units.npz. Prints, as JSON, the accuracy on validation
and test actors for both protocols: "validation" trains on 12 actors, "fixed" on 16.
"""

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5


def features(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """What is known of every clip, its emotion, and the fold that tests it."""
    sound = np.load(folder / "mfcc.npz", allow_pickle=False)
    faces = np.load(folder / "action_units.npz", allow_pickle=False)
    mfcc = sound["mfcc"].astype(np.float64)
    change = np.diff(mfcc, axis=1)
    statistics = [mfcc.mean(1), mfcc.std(1), change.std(1), mfcc.max(1), mfcc.min(1)]
    audio = np.concatenate(statistics, axis=1)
    units = np.concatenate([faces["au_static"], faces["au_dynamic"]], axis=1)
    both = np.concatenate([audio, units], axis=1)
    table = {"audio": audio, "action units": units, "both": both}
    return table, sound["emotion"], sound["fold"]


def scores(x: np.ndarray, y: np.ndarray, fold: np.ndarray, protocol: str) -> dict:
    """Accuracy of every fold, on test actors and on those of the next fold."""
    test, valid = [], []
    for number in range(FOLDS):
        tested, held = fold == number, fold == (number + 1) % FOLDS
        train = ~tested & ~held if protocol == "validation" else ~tested
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)
        ).fit(x[train], y[train])
        test.append(model.score(x[tested], y[tested]))
        valid.append(model.score(x[held], y[held]))
    made = {"test": float(np.mean(test)), "test of each fold": test}
    return made | ({"valid": float(np.mean(valid))} if protocol == "validation" else {})


def main() -> None:
    """Prints the table."""
    table, emotion, fold = features(Path(sys.argv[1]))
    made = {
        protocol: {
            name: scores(x, emotion, fold, protocol) for name, x in table.items()
        }
        for protocol in ("validation", "fixed")
    }
    print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
