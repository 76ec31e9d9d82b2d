"""Logistic and ridge regression on CMU-MOSI utterances, alone and with their video.

    python experiments/mosi_utterances/regression.py FOLDER

FOLDER contains train.npz and test.npz. Prints, as JSON, metrics on the test videos
after training on all training videos: "alone" reads the features of the utterance,
"video" also the mean of those of the other utterances of its video. The penalties, C =
0.1 and alpha = 1 / C, are the same for every choice of features.
"""

import argparse
import itertools
import json

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.datasets.mosi_utterances import MODALITIES, load_mosi_utterances
from mmfusion_jax.data.in_memory import InMemory

ENTIRE_VIDEO = 62
"""Number of neighbors on either side that covers every video."""


def features(source: InMemory, modality: str, context: bool) -> np.ndarray:
    """Returns the features of the target utterance, (n f).

    With `context`, the mean of its neighbors is appended, (n 2f).
    """
    # The last feature marks the target utterance.
    x, target = source.inputs[modality][..., :-1], source.inputs[modality][..., -1] > 0
    others = source.masks[modality] & ~target
    count = np.maximum(others.sum(axis=1), 1)[:, None]
    mean = (x * others[..., None]).sum(axis=1) / count
    return np.concatenate([x[target], mean], axis=1) if context else x[target]


def inputs(
    data: Dataset, modalities: tuple[str, ...], context: bool
) -> dict[str, np.ndarray]:
    """Returns the concatenated features of each split."""
    return {
        split: np.concatenate([features(s, n, context) for n in modalities], axis=1)
        for split, s in data.sources.items()
        if isinstance(s, InMemory)
    }


def polarity(data: Dataset, x: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns the test accuracy of "polarity"."""
    y = {split: data.label(split, "polarity") for split in x}
    model = LogisticRegression(C=0.1, max_iter=5000).fit(x["train"], y["train"])
    return {"accuracy": float(model.score(x["test"], y["test"]))}


def score(data: Dataset, x: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns mean absolute error and correlation of "score" on the test videos."""
    y = {split: data.label(split, "score") for split in x}
    y_pred = Ridge(alpha=10.0).fit(x["train"], y["train"]).predict(x["test"])
    error = float(np.abs(y_pred - y["test"]).mean())
    return {"mae": error, "r": float(np.corrcoef(y_pred, y["test"])[0, 1])}


def constant_baseline(data: Dataset) -> dict[str, float]:
    """Returns the metrics of the majority class and of the mean training score."""
    y = {split: data.label(split, "score") for split in ("train", "test")}
    positive = float(np.mean(data.label("test", "polarity")))
    error = float(np.abs(y["test"] - y["train"].mean()).mean())
    return {"accuracy": max(positive, 1 - positive), "mae": error}


def main() -> None:
    """Prints the table as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="folder with train.npz and test.npz")
    folder = parser.parse_args().folder
    made = {}
    for label, evaluate in {"polarity": polarity, "score": score}.items():
        data = load_mosi_utterances(
            folder,
            label=label,
            context_before=ENTIRE_VIDEO,
            context_after=ENTIRE_VIDEO,
            protocol="fixed_epochs",
        )
        if label == "score":
            made["constant"] = constant_baseline(data)
        for size, context in itertools.product((1, 2, 3), (False, True)):
            for names in itertools.combinations(MODALITIES, size):
                name = f"{'+'.join(names)}, {'video' if context else 'alone'}"
                found = evaluate(data, inputs(data, names, context))
                made.setdefault(name, {}).update(found)
    print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
