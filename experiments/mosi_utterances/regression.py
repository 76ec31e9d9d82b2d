"""Logistic and ridge regression on utterances of CMU-MOSI, alone and with their video.

    python experiments/mosi_utterances/regression.py FOLDER

FOLDER holds train.npz and test.npz. Prints, as JSON, scores on the test videos after
training on all training videos: "alone" reads the features of the utterance, "video"
besides the mean of those of the other utterances of its video. The penalties, C = 0.1
and alpha = 1 / C, are the same for every choice of features.
"""

import itertools
import json
import sys

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.datasets.mosi_utterances import MODALITIES, load_mosi_utterances
from mmfusion_jax.data.in_memory import InMemory

WHOLE = 62
"""Neighbours on either side that take in every video whole."""


def features(source: InMemory, name: str, context: bool) -> np.ndarray:
    """The utterance itself, (n f), and perhaps the mean of its neighbours, (n 2f)."""
    x, asked = source.inputs[name][..., :-1], source.inputs[name][..., -1] > 0
    others = source.masks[name] & ~asked
    count = np.maximum(others.sum(axis=1), 1)[:, None]
    mean = (x * others[..., None]).sum(axis=1) / count
    return np.concatenate([x[asked], mean], axis=1) if context else x[asked]


def inputs(
    data: Dataset, chosen: tuple[str, ...], context: bool
) -> dict[str, np.ndarray]:
    """The joined features of each split."""
    return {
        split: np.concatenate([features(s, n, context) for n in chosen], axis=1)
        for split, s in data.sources.items()
        if isinstance(s, InMemory)
    }


def polarity(data: Dataset, x: dict[str, np.ndarray]) -> dict[str, float]:
    """Test accuracy of negative or positive."""
    y = {split: data.label(split, "polarity") for split in x}
    model = LogisticRegression(C=0.1, max_iter=5000).fit(x["train"], y["train"])
    return {"accuracy": float(model.score(x["test"], y["test"]))}


def score(data: Dataset, x: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean absolute error and correlation on the test videos."""
    y = {split: data.label(split, "score") for split in x}
    said = Ridge(alpha=10.0).fit(x["train"], y["train"]).predict(x["test"])
    error = float(np.abs(said - y["test"]).mean())
    return {"mae": error, "r": float(np.corrcoef(said, y["test"])[0, 1])}


def constant(data: Dataset) -> dict[str, float]:
    """What always saying the same gives: the larger class, the training mean."""
    y = {split: data.label(split, "score") for split in ("train", "test")}
    share = float(np.mean(data.label("test", "polarity")))
    error = float(np.abs(y["test"] - y["train"].mean()).mean())
    return {"accuracy": max(share, 1 - share), "mae": error}


def main() -> None:
    """Prints the table."""
    made = {}
    for label, measure in {"polarity": polarity, "score": score}.items():
        data = load_mosi_utterances(
            sys.argv[1],
            label=label,
            context_before=WHOLE,
            context_after=WHOLE,
            protocol="fixed_epochs",
        )
        if label == "score":
            made["constant"] = constant(data)
        for size, context in itertools.product((1, 2, 3), (False, True)):
            for chosen in itertools.combinations(MODALITIES, size):
                name = f"{'+'.join(chosen)}, {'video' if context else 'alone'}"
                found = measure(data, inputs(data, chosen, context))
                made.setdefault(name, {}).update(found)
    print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
