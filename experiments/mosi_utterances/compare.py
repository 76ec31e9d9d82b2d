"""Compares trained runs on `score` with ridge regression, utterance by utterance.

    python experiments/mosi_utterances/compare.py FOLDER RUN [RUN ...]

FOLDER contains train.npz and test.npz; RUN is the workdir of a training with several
seeds. Prints, as JSON, mean and standard deviation of the metrics over the seeds; the
error of ridge regression on all modalities for every penalty (the experiment uses 10),
with the rest of the video if the model sees neighbors; and the mean difference of the
absolute errors, averaged over the seeds, from ridge with the penalty that is best on
the test split, with its standard error and the p-value of Wilcoxon's signed-rank test.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from regression import ENTIRE_VIDEO, inputs
from scipy.stats import wilcoxon
from sklearn.linear_model import Ridge

from mmfusion_jax.data.datasets.mosi_utterances import MODALITIES, load_mosi_utterances
from mmfusion_jax.results.config_file import read_config
from mmfusion_jax.results.model_result import read_run

PENALTIES = (1.0, 10.0, 100.0, 1e3, 3e3, 1e4, 3e4)
METRICS = ("mae", "corr", "acc2_has0")


def ridge(folder: str, context: bool) -> tuple[np.ndarray, dict[float, np.ndarray]]:
    """Returns the test scores, and the absolute errors by penalty, (n) each."""
    data = load_mosi_utterances(
        folder,
        label="score",
        context_before=ENTIRE_VIDEO,
        context_after=ENTIRE_VIDEO,
        protocol="fixed_epochs",
    )
    x = inputs(data, MODALITIES, context)
    y = {split: data.label(split, "score") for split in x}
    models = {a: Ridge(alpha=a).fit(x["train"], y["train"]) for a in PENALTIES}
    return y["test"], {
        a: np.abs(model.predict(x["test"]) - y["test"]) for a, model in models.items()
    }


def compare(folder: str, workdir: Path) -> dict[str, Any]:
    """Returns the metrics of a run and its paired comparison with ridge regression."""
    recorded = read_config(workdir)
    assert recorded is not None
    options = recorded.config["data"]
    context = options["context_before"] + options["context_after"] > 0
    y_true, errors = ridge(folder, context)
    # The penalty that is best on the test split favors ridge: a lower error of the
    # model cannot be due to a badly chosen penalty.
    best = min(errors.values(), key=np.mean)
    folders = sorted(path.parent for path in workdir.glob("fold_0/seed_*/run.json"))
    runs = [run for folder in folders if (run := read_run(folder))]
    pairs = [run.plot_data.pairs for run in runs if run.plot_data.pairs]
    # The examples must be in the same order, or the comparison is not paired.
    assert np.allclose([pair.truth for pair in pairs], y_true, atol=1e-3)
    y_pred = np.array([pair.prediction for pair in pairs])
    d = np.abs(y_pred - y_true).mean(axis=0) - best
    test: Any = wilcoxon(d)
    result: dict[str, Any] = {"run": workdir.name, "seeds": len(runs)}
    result["ridge"] = {a: float(e.mean()) for a, e in errors.items()}
    for name in METRICS:
        values = np.array([run.test.scores[name] for run in runs])
        result[name] = [float(values.mean()), float(values.std(ddof=1))]
    error = float(d.std(ddof=1) / np.sqrt(len(d)))
    result["paired"] = [float(d.mean()), error, float(test.pvalue)]
    return result


def main() -> None:
    """Prints a JSON object for every run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="folder with train.npz and test.npz")
    parser.add_argument("run", type=Path, nargs="+", help="workdir of a training")
    options = parser.parse_args()
    for workdir in options.run:
        if read_config(workdir) is None:
            parser.error(
                f"{workdir} is not the workdir of a training: config.json is missing"
            )
        print(json.dumps(compare(options.folder, workdir), indent=2))


if __name__ == "__main__":
    main()
