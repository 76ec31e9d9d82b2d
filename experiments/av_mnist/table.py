"""Seven models on AV-MNIST: runs what is not finished, then prints a table.

    python experiments/av_mnist/table.py --seeds 3 --runs runs/av_mnist

All rows are trained with seed 0, then all with seed 1, and so on; a run that was broken
off goes on where it stopped, and with --finished nothing is trained. The table, of the
seeds that all rows have, stands in results.json beside this file.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from tables import markdown, read, row, step_s, train, write

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


def table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of results, one for each seed."""
    made = []
    for key, found in results.items():
        runs = [result["runs"][0] for result in found]
        modalities = sorted(found[0]["config"]["model"]["encoders"])
        made.append(row(ROWS[key][0], modalities, runs) | {"step_s": step_s(runs)})
    return made


def finished(runs: Path) -> list[int]:
    """The seeds with which every row was trained to its end."""
    seeds = []
    while all(
        (_folder(runs, key, len(seeds)) / "result.json").exists() for key in ROWS
    ):
        seeds.append(len(seeds))
    return seeds


def _folder(runs: Path, key: str, seed: int) -> Path:
    """Where the run of a row lies."""
    return runs / key / f"seed_{seed}"


def main() -> None:
    """Trains, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/av_mnist"))
    parser.add_argument("--pairs", type=int, default=16000, help="to train on; 0: all")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--finished", action="store_true", help="train nothing")
    options = parser.parse_args()
    words = [f"--config.data.pairs={options.pairs}", "--config.data.keep=True"]
    words += [f"--config.train.epochs={options.epochs}"]
    if not options.finished:
        for seed in range(options.seeds):
            for key, (_, config) in ROWS.items():
                folder = _folder(options.runs, key, seed)
                train(config, folder, *words, f"--config.seed={seed}")
    seeds = finished(options.runs)
    if not seeds:
        raise SystemExit(f"{options.runs}: no seed is finished in all rows.")
    results = {
        key: [read(_folder(options.runs, key, s)) for s in seeds] for key in ROWS
    }
    made = table(results)
    last = results["cfn"][-1]
    facts = {key: last[key] for key in ("versions", "device", "data", "baseline")}
    write(FOLDER / "results.json", made, train=last["config"]["train"], **facts)
    print(markdown(made))
    scores = last["baseline"]["scores"]["accuracy"]
    print(f"{last['baseline']['says']}: {scores['mean']:.3f}")


if __name__ == "__main__":
    main()
