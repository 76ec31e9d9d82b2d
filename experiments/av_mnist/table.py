"""Trains seven models on AV-MNIST and prints a table.

    python experiments/av_mnist/table.py --seeds 3
    python experiments/av_mnist/table.py --seeds 1 --epochs 3

The first command trains for 500 steps, the second for 3 epochs of all pairs. All rows
are trained with seed 0, then all with seed 1, and so on, in one process, so that each
spectrogram is computed once for all rows. Interrupted runs resume and finished ones are
kept; --finished trains nothing. A table covers the seeds with which all rows are
trained; it is also written beside this file, to results.json or, for 3 epochs, to
results_3_epochs.json. Where both files exist, their test accuracies are printed side by
side.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmfusion_jax.config import build_data
from mmfusion_jax.config.load import load_config
from mmfusion_jax.config.resolve import distributed_spec, resolve
from mmfusion_jax.results.model_result import ModelResult, read_run
from mmfusion_jax.runner import provenance
from mmfusion_jax.runner.experiment import Experiment
from mmfusion_jax.runner.runtime import initialize
from mmfusion_jax.runner.workdir import RunKey, check_workdir
from mmfusion_jax.runner.workdir_lock import locked
from mmfusion_jax.training.signals import GracefulShutdown

# experiments/ is not a package; a script only finds modules in its own folder.
sys.path.insert(0, str(Path(__file__).parents[1]))
from tables import format_metric, markdown, row, step_s, write

FOLDER = Path(__file__).parent
SHORT_PAIRS = 16000
"""Training pairs of a single epoch: 500 batches of 32."""
ROWS = {
    "image": ("image only", "hetero_fusion_net.py:av_mnist_image"),
    "audio": ("audio only", "hetero_fusion_net.py:av_mnist_audio"),
    "early": ("early fusion", "hetero_fusion_net.py:av_mnist_early"),
    "late": ("late fusion", "hetero_fusion_net.py:av_mnist_late"),
    "hetero": ("Hetero-Fusion-Net", "hetero_fusion_net.py:av_mnist"),
    "cmaer": ("OF-CMAER-CAT", "of_cmaer_cat.py:av_mnist"),
    "cfn": ("CFN-SR's block", "cfn_sr.py:av_mnist"),
}
Entries = Mapping[str, Sequence[ModelResult]]


def configs(max_train_pairs: int, epochs: int) -> dict[str, ConfigDict]:
    """Returns the config of every row."""
    made = {}
    for key, (_, spec) in ROWS.items():
        config = load_config(f"configs/{spec}").copy_and_resolve_references().unlock()
        # In memory, so that spectrograms are computed once and not in every epoch.
        config.data.update(dict(max_train_pairs=max_train_pairs, cache_in_memory=True))
        config.train.epochs = epochs
        made[key] = config.lock()
    return made


def train(rows: Mapping[str, ConfigDict], seeds: int, runs: Path) -> None:
    """Trains every row with every seed; finished runs are kept."""
    initialize(distributed_spec(next(iter(rows.values()))))
    specs = {key: resolve(config) for key, config in rows.items()}
    # All rows have the same options of the dataset, so one object serves them all.
    data = build_data.build_dataset(next(iter(specs.values())), 0)
    experiments = {key: Experiment(spec, runs / key) for key, spec in specs.items()}
    with contextlib.ExitStack() as stack:
        for key, spec in specs.items():
            stack.enter_context(locked(runs / key))
            check_workdir(spec, runs / key)
        shutdown = stack.enter_context(GracefulShutdown())
        for seed in range(seeds):
            for experiment in experiments.values():
                experiment.train([RunKey(0, seed, f"seed_{seed}")], data, shutdown)


def finished(rows: Sequence[str], runs: Path) -> dict[str, list[ModelResult]]:
    """Returns the results of every row, for the seeds with which all are trained."""
    found: dict[str, list[ModelResult]] = {key: [] for key in rows}
    for seed in range(sys.maxsize):
        results = {key: read_run(runs / key / f"seed_{seed}") for key in rows}
        # Seeds are trained in order: after a missing one there are none.
        if None in results.values():
            return found
        for key, result in results.items():
            found[key].append(result)
    return found


def table(rows: Mapping[str, Mapping[str, Any]], entries: Entries) -> list[dict]:
    """Returns the rows of the table.

    Args:
        rows: Row -> config.
        entries: Row -> results of its runs.
    """
    made = []
    for key, runs in entries.items():
        modalities = sorted(rows[key]["model"]["encoders"])
        found = row(ROWS[key][0], modalities, runs)
        made.append(found | {"step_s": step_s(runs, "p10")})  # the cores were busy
    return made


def budget_suffix(epochs: int) -> str:
    """Returns what follows the names of folder and file: "" for one epoch."""
    return "" if epochs == 1 else f"_{epochs}_epochs"


def side_by_side(folder: Path) -> str:
    """Returns the test accuracies of all results in a folder as a Markdown table.

    Args:
        folder: Folder of results.json and results_3_epochs.json.
    """
    heads, columns = ["model"], []
    for path in sorted(folder.glob("results*.json")):
        found = json.loads(path.read_text("utf-8"))
        seeds = found["table"][0]["seeds"]
        heads.append(f"{budget(found)}, {seeds} seed{'s' if seeds > 1 else ''}")
        columns.append({one["model"]: one["test_accuracy"] for one in found["table"]})
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for name, _ in ROWS.values():
        cells = [name, *(format_metric(column.get(name)) for column in columns)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def budget(found: Mapping[str, Any]) -> str:
    """Returns the training of a file of results, such as "3 epochs of all pairs"."""
    pairs, epochs = found["max_train_pairs"], found["epochs"]
    which = f"{pairs:,} pairs" if pairs else "all pairs"
    return f"{epochs} epoch{'s' if epochs > 1 else ''} of {which}"


def parse_options() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--epochs", type=int, default=1, help="training epochs")
    parser.add_argument(
        "--max_train_pairs",
        type=int,
        help="training pairs, 0 for all; 16000 for one epoch, all for several",
    )
    parser.add_argument(
        "--runs", type=Path, help="folder of the runs; runs/av_mnist, or with _3_epochs"
    )
    parser.add_argument("--finished", action="store_true", help="train nothing")
    options = parser.parse_args()
    if options.max_train_pairs is None:
        options.max_train_pairs = SHORT_PAIRS if options.epochs == 1 else 0
    if options.runs is None:
        options.runs = Path(f"runs/av_mnist{budget_suffix(options.epochs)}")
    return options


def main() -> None:
    """Trains the rows, prints the table and writes it."""
    options = parse_options()
    rows = configs(options.max_train_pairs, options.epochs)
    if not options.finished:
        train(rows, options.seeds, options.runs)
    entries = finished(list(rows), options.runs)
    if not entries["image"]:
        raise SystemExit(f"{options.runs}: no seed is finished for all rows.")
    made, baseline = table(rows, entries), entries["image"][0].baseline
    details = {"versions": provenance.versions(), "baseline": baseline}
    details |= {k: rows["image"]["data"][k] for k in ("snr_db", "max_train_pairs")}
    details |= {"epochs": options.epochs, "commit": provenance.commit()}
    write(FOLDER / f"results{budget_suffix(options.epochs)}.json", made, **details)
    print(markdown(made))
    print(f"{baseline.description}: {baseline.scores['accuracy']:.3f}\n")
    print(side_by_side(FOLDER))


if __name__ == "__main__":
    main()
