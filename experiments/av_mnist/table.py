"""Trains seven models on AV-MNIST and prints a table.

    python experiments/av_mnist/table.py --seeds 3 --runs runs/av_mnist

All rows are trained with seed 0, then all with seed 1, and so on, in one process, so
that each spectrogram is computed once for all rows. Interrupted runs resume and
finished ones are kept; --finished trains nothing. The table covers the seeds with which
all rows are trained; it is also written to results.json beside this file.
"""

import argparse
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
from mmfusion_jax.training.signals import GracefulShutdown

# experiments/ is not a package; a script only finds modules in its own folder.
sys.path.insert(0, str(Path(__file__).parents[1]))
from tables import markdown, row, step_s, write

FOLDER = Path(__file__).parent
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
    for key, spec in specs.items():
        check_workdir(spec, runs / key)
    experiments = {key: Experiment(spec, runs / key) for key, spec in specs.items()}
    with GracefulShutdown() as shutdown:
        for seed in range(seeds):
            for experiment in experiments.values():
                experiment.train(RunKey(0, seed, f"seed_{seed}"), data, shutdown)


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


def main() -> None:
    """Trains the rows, prints the table and writes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/av_mnist"), help="folder of the runs"
    )
    parser.add_argument(
        "--max_train_pairs", type=int, default=16000, help="training pairs; 0 for all"
    )
    parser.add_argument("--epochs", type=int, default=1, help="training epochs")
    parser.add_argument("--finished", action="store_true", help="train nothing")
    options = parser.parse_args()
    rows = configs(options.max_train_pairs, options.epochs)
    if not options.finished:
        train(rows, options.seeds, options.runs)
    entries = finished(list(rows), options.runs)
    if not entries["image"]:
        raise SystemExit(f"{options.runs}: no seed is finished for all rows.")
    made, baseline = table(rows, entries), entries["image"][0].baseline
    details = {"versions": provenance.versions(), "baseline": baseline}
    details |= {k: rows["image"]["data"][k] for k in ("snr_db", "max_train_pairs")}
    write(FOLDER / "results.json", made, **details, epochs=options.epochs)
    print(markdown(made))
    print(f"{baseline.description}: {baseline.scores['accuracy']:.3f}")


if __name__ == "__main__":
    main()
