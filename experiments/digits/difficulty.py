"""Accuracy of simple classifiers on each modality of `digits` and on combinations.

    python experiments/digits/difficulty.py

Logistic regression and a network with one hidden layer, both after PCA, on each
modality; for combinations, the product of the probabilities. Regularization is selected
on the validation split. The result is also written to difficulty.json beside this file,
which the tables of models read.
"""

import argparse
import itertools
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.datasets.digits.dataset import MODALITIES, load_digits
from mmfusion_jax.data.datasets.digits.generate import VOCABULARY
from mmfusion_jax.results.json_file import write_json
from mmfusion_jax.results.rounding import format_number
from mmfusion_jax.runner import provenance

RECORD = Path(__file__).with_name("difficulty.json")

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


def rows(data: Dataset) -> Iterator[dict[str, Any]]:
    """Yields the accuracies of every combination of modalities."""
    single = {modality: fitted(data, modality) for modality in MODALITIES}
    for names in combinations():
        # The logarithm of the product, without its normalization, which does not change
        # the predicted class.
        product = {
            split: np.sum([single[name][split] for name in names], axis=0)
            for split in data.sources
        }
        valid, test = (accuracy(data, split, product) for split in ("valid", "test"))
        alone = max(accuracy(data, "test", single[name]) for name in names)
        gain = test - alone
        yield {"modalities": list(names), "valid": valid, "test": test, "gain": gain}


def combinations() -> list[tuple[str, ...]]:
    """Returns every set of modalities, small ones first."""
    sizes = range(1, len(MODALITIES) + 1)
    return [names for n in sizes for names in itertools.combinations(MODALITIES, n)]


def markdown(table: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table for a README."""
    lines = ["| input | valid | test | gain on test |", "| --- | --- | --- | --- |"]
    for row in table:
        several = len(row["modalities"]) > 1
        gain = f"{100 * row['gain']:+.1f}" if several else ""
        scores = (format_number(row[split]) for split in ("valid", "test"))
        cells = [" + ".join(row["modalities"]), *scores, gain]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Prints a table and writes it."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    data = load_digits()
    # One thread: with one for each core of a busy machine, the threads of BLAS wait for
    # each other, and half a minute becomes a quarter of an hour.
    with threadpool_limits(1):
        table = list(rows(data))
    facts = {name: data.facts[name] for name in ("version", "fingerprint")}
    details = {
        "data": {"title": data.title, **facts},
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "command": shlex.join(["python", *sys.argv]),
    }
    write_json(RECORD, {**details, "table": table})
    print(f"digits {facts['version']}, fingerprint {facts['fingerprint']}")
    print(markdown(table))


if __name__ == "__main__":
    main()
