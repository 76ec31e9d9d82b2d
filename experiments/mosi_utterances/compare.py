"""Runs of a model on `score` beside ridge regression, utterance by utterance.

    python experiments/mosi_utterances/compare.py FOLDER RUN [RUN ...]

FOLDER holds train.npz and test.npz; RUN is the work folder of a training with several
seeds. Prints, as JSON, the mean and the deviation over the seeds of the scores; the
error of ridge regression on all modalities, with the rest of the video if the model
sees neighbours, for every penalty, of which the experiment uses 10; and the mean
difference of the absolute errors, averaged over the seeds, from that with the penalty
that is best on the test split, with its standard error and the p of Wilcoxon's ranks.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from regression import WHOLE, inputs
from scipy.stats import wilcoxon
from sklearn.linear_model import Ridge

from mmfusion_jax.data.datasets.mosi_utterances import MODALITIES, load_mosi_utterances

PENALTIES = (1.0, 10.0, 100.0, 1e3, 3e3, 1e4, 3e4)
SCORES = ("mae", "corr", "acc2_has0")


def ridge(folder: str, context: bool) -> tuple[np.ndarray, dict[float, np.ndarray]]:
    """The test scores, and the error of ridge with every penalty, (n) each."""
    data = load_mosi_utterances(
        folder,
        label="score",
        context_before=WHOLE,
        context_after=WHOLE,
        protocol="fixed_epochs",
    )
    x = inputs(data, MODALITIES, context)
    y = {split: data.label(split, "score") for split in x}
    models = {a: Ridge(alpha=a).fit(x["train"], y["train"]) for a in PENALTIES}
    return y["test"], {
        a: np.abs(model.predict(x["test"]) - y["test"]) for a, model in models.items()
    }


def main() -> None:
    """Prints a JSON object for every run."""
    folder, *runs = sys.argv[1:]
    for run in map(Path, runs):
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))["data"]
        truth, errors = ridge(folder, context=config["before"] + config["after"] > 0)
        best = min(errors.values(), key=np.mean)
        files = sorted(run.glob("fold_0/seed_*/run.json"))
        units = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        pairs = [unit["plot_data"]["pairs"] for unit in units]
        assert np.allclose([pair["truth"] for pair in pairs], truth, atol=1e-3)
        own = np.abs(np.array([p["prediction"] for p in pairs]) - truth).mean(axis=0)
        d = own - best
        ranks: Any = wilcoxon(d)
        shown: dict[str, Any] = {"run": run.name, "seeds": len(units)}
        shown["ridge"] = {a: float(e.mean()) for a, e in errors.items()}
        for name in SCORES:
            values = np.array([unit["test"][name] for unit in units])
            shown[name] = [float(values.mean()), float(values.std(ddof=1))]
        error = float(d.std(ddof=1) / np.sqrt(len(d)))
        shown["paired"] = [float(d.mean()), error, float(ranks.pvalue)]
        print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
