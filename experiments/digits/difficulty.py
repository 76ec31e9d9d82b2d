"""Accuracy of simple classifiers on each modality of `digits` and on combinations.

    python experiments/digits/difficulty.py

Logistic regression and a network with one hidden layer, both after PCA, on each
modality; for combinations, the product of the probabilities. Regularization is selected
on the validation split. The README has the result.
"""

import argparse
import itertools
from collections.abc import Mapping

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.datasets.digits.dataset import MODALITIES, load_digits
from mmfusion_jax.data.datasets.digits.generate import VOCABULARY

COMPONENTS = (20, 60)
STRENGTHS = (0.01, 0.1, 1.0)


def features(data: Dataset, split: str, modality: str) -> np.ndarray:
    """Returns one row per example: pixels, MFCC, the mean frame, or a bag of words."""
    values = np.stack(
        [
            data.source(split)[i]["inputs"][modality]
            for i in range(len(data.source(split)))
        ]
    )
    if modality == "text":
        words = np.zeros((len(values), len(VOCABULARY)))
        np.put_along_axis(words, values, 1, axis=1)
        return words[:, 1:]  # id 0 is padding
    if modality == "video":
        # These classifiers cannot follow the motion, which differs between clips.
        values = values.mean(axis=1)
    return values.reshape(len(values), -1)


def candidates(num_features: int):
    """Yields the classifiers to select from."""
    for components in sorted({min(c, num_features) for c in COMPONENTS}):
        reduce = PCA(components, random_state=0)
        for strength in STRENGTHS:
            yield make_pipeline(
                StandardScaler(), reduce, LogisticRegression(C=strength, max_iter=1000)
            )
        yield make_pipeline(
            StandardScaler(),
            reduce,
            MLPClassifier(64, alpha=1.0, early_stopping=True, random_state=0),
        )


def fitted(data: Dataset, modality: str) -> dict[str, np.ndarray]:
    """Returns, by split, the log-probabilities (n 10) of the selected classifier."""
    rows = {split: features(data, split, modality) for split in data.sources}
    labels = {split: data.label(split, "digit") for split in data.sources}
    models = [
        model.fit(rows["train"], labels["train"])
        for model in candidates(rows["train"].shape[1])
    ]
    best = max(models, key=lambda model: model.score(rows["valid"], labels["valid"]))
    return {split: best.predict_log_proba(values) for split, values in rows.items()}


def accuracy(data: Dataset, split: str, scores: Mapping[str, np.ndarray]) -> float:
    """Returns the accuracy on a split."""
    return float(np.mean(scores[split].argmax(axis=1) == data.label(split, "digit")))


def main() -> None:
    """Prints a table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    data = load_digits()
    single = {modality: fitted(data, modality) for modality in MODALITIES}
    print(f"digits {data.facts['version']}, fingerprint {data.facts['fingerprint']}")
    print("| input | valid | test | gain on test |\n| --- | --- | --- | --- |")
    for names in (*itertools.combinations(MODALITIES, 1), *pairs(), MODALITIES):
        # The logarithm of the product, without its normalization, which does not change
        # the predicted class.
        both = {
            split: np.sum([single[name][split] for name in names], axis=0)
            for split in data.sources
        }
        valid, test = (accuracy(data, split, both) for split in ("valid", "test"))
        alone = max(accuracy(data, "test", single[name]) for name in names)
        gain = f"{100 * (test - alone):+.1f}" if len(names) > 1 else ""
        print(f"| {' + '.join(names)} | {valid:.3f} | {test:.3f} | {gain} |")


def pairs() -> list[tuple[str, ...]]:
    """Returns every pair of modalities."""
    return list(itertools.combinations(MODALITIES, 2))


if __name__ == "__main__":
    main()
