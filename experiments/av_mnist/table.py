"""Seven models on AV-MNIST: trains what is not trained yet, then prints a table.

    python experiments/av_mnist/table.py --seeds 3 --runs runs/av_mnist

All rows are trained with seed 0, then all with seed 1, and so on, in one process: a
spectrogram is made once for all of them. What was broken off goes on where it stopped;
with --finished nothing is trained. The table, of the seeds with which all rows are
trained, stands in results.json beside this file.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmfusion_jax.config import build
from mmfusion_jax.config.load import load_config
from mmfusion_jax.runner import provenance
from mmfusion_jax.runner.experiment import Experiment
from mmfusion_jax.runner.runtime import initialize
from mmfusion_jax.runner.workdir import RunKey, check_workdir
from mmfusion_jax.train.signals import GracefulShutdown

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
Entries = Mapping[str, Sequence[Mapping[str, Any]]]


def configs(pairs: int, epochs: int) -> dict[str, ConfigDict]:
    """The config of every row."""
    made = {}
    for key, (_, spec) in ROWS.items():
        config = load_config(f"configs/{spec}").copy_and_resolve_references().unlock()
        config.data.update(dict(pairs=pairs, keep=True))
        config.train.epochs = epochs
        made[key] = config.lock()
    return made


def train(rows: Mapping[str, ConfigDict], seeds: int, runs: Path) -> None:
    """Trains every row with every seed; what is trained already is left alone."""
    first = next(iter(rows.values()))
    initialize(first)
    data = build.dataset(first, 0)
    for key, config in rows.items():
        check_workdir(config, runs / key)
    experiments = {key: Experiment(rows[key], runs / key) for key in rows}
    with GracefulShutdown() as interrupt:
        for seed in range(seeds):
            for experiment in experiments.values():
                experiment.train(RunKey(0, seed, f"seed_{seed}"), data, interrupt)


def finished(rows: Sequence[str], runs: Path) -> dict[str, list[dict[str, Any]]]:
    """Row -> what is known of its runs; of seeds with which all rows are trained."""
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in rows}
    for seed in range(sys.maxsize):
        paths = {key: runs / key / f"seed_{seed}" / "run.json" for key in rows}
        if not all(path.exists() for path in paths.values()):
            return found
        for key, path in paths.items():
            found[key].append(json.loads(path.read_text(encoding="utf-8")))
    return found


def table(rows: Mapping[str, Mapping[str, Any]], entries: Entries) -> list[dict]:
    """The rows, from their configs and what is known of their runs."""
    made = []
    for key, runs in entries.items():
        modalities = sorted(rows[key]["model"]["encoders"])
        found = row(ROWS[key][0], modalities, runs)
        made.append(found | {"step_s": step_s(runs, "p10")})  # the cores were busy
    return made


def main() -> None:
    """Trains, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/av_mnist"))
    parser.add_argument("--pairs", type=int, default=16000, help="to train on; 0: all")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--finished", action="store_true", help="train nothing")
    options = parser.parse_args()
    rows = configs(options.pairs, options.epochs)
    if not options.finished:
        train(rows, options.seeds, options.runs)
    entries = finished(list(rows), options.runs)
    if not entries["image"]:
        raise SystemExit(f"{options.runs}: no seed is finished in all rows.")
    made, baseline = table(rows, entries), entries["image"][0]["baseline"]
    facts = {"versions": provenance.versions(), "baseline": baseline}
    chosen = {key: rows["image"]["data"][key] for key in ("snr_db", "pairs")}
    write(FOLDER / "results.json", made, **facts, **chosen, epochs=options.epochs)
    print(markdown(made))
    print(f"{baseline['says']}: {baseline['scores']['accuracy']:.3f}")


if __name__ == "__main__":
    main()
