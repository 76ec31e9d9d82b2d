"""Trains all papers on the embedded digits, each beside baselines on its encoders.

    python experiments/digits/table.py --seeds 5 --runs runs/digits

Beside each model are, with the same number of epochs and seeds: late fusion of its own
encoders, and each of its encoders alone, of which the validation split selects the
best. The product of the encoders multiplies the probabilities of these models, each
trained alone; the product of simple classifiers on its modalities is that of
difficulty.py, which is to be run first. A paired test compares model and late fusion.

Every row is one command, `python -m mmfusion_jax.main`; interrupted runs resume and
finished ones are kept. The table is also written to results.json beside this file; a
paper without finished runs keeps the row that it has there, with its own commit.
"""

import argparse
import copy
import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# experiments/ is not a package; a script only finds modules in its own folder.
sys.path.insert(0, str(Path(__file__).parents[1]))
from paired_rows import (
    HEADS,
    LEVEL,
    PairedDifference,
    differences,
    format_difference,
    format_wall,
    main_metric,
    row_scores,
    shared_provenance,
    simple_classifiers,
)
from row_runs import RowRun, row_run, train_rows
from scipy.special import log_softmax
from tables import format_metric

from mmfusion_jax.metrics.statistics import holm
from mmfusion_jax.results.json_file import write_json
from mmfusion_jax.results.predictions_file import read_predictions
from mmfusion_jax.results.rounding import format_number

FOLDER = Path(__file__).parent
PAPERS = ("cfn_sr", "mea", "mcl_mcf", "hetero_fusion_net", "of_cmaer_cat")
MODEL, LATE = "model", "late fusion"


def paper_runs(paper: str, runs: Path, flags: Sequence[str] = ()) -> dict[str, RowRun]:
    """Returns the runs of a paper: the model, late fusion, and each modality.

    Args:
        paper: Config file.
        runs: Folder of the runs of all papers.
        flags: Flags for all runs.
    """
    config, folder = f"{paper}.py:digits", runs / paper
    made = {MODEL: row_run(config, flags, folder)}
    late = ["--config.model.name=late_fusion", *flags]
    made[LATE] = row_run(config, late, folder)
    for modality in sorted(made[MODEL].modalities):
        alone = ["--config.model.name=unimodal", f"--config.model.modality={modality}"]
        made[modality] = row_run(config, [*alone, *flags], folder)
    return made


def paper_row(paper: str, runs: Mapping[str, RowRun]) -> dict[str, Any]:
    """Returns the row of a paper as JSON values; baselines that are missing are None.

    Args:
        paper: Config file.
        runs: Result of `paper_runs`.
    """
    results = {name: run.result() for name, run in runs.items()}
    finished = {name: result for name, result in results.items() if result}
    row: dict[str, Any] = {
        "model": paper,
        "state": "finished" if MODEL in finished else runs[MODEL].state(seeds=1),
        "runs": {
            name: row_scores(runs[name], result) for name, result in finished.items()
        },
        "best unimodal": None,
        "product of encoders": None,
        "simple classifiers": None,
        "difference": None,
    }
    if MODEL not in finished:
        return row
    row["provenance"] = shared_provenance(list(finished.values()))
    names = sorted(runs[MODEL].modalities)
    data = row["provenance"]["data"]
    row["simple classifiers"] = simple_classifiers(data, names)
    if all(name in finished for name in names):
        # On validation, as everything else is selected.
        valid = {name: row["runs"][name]["valid"]["mean"] for name in names}
        row["best unimodal"] = max(names, key=lambda name: valid[name])
        row["product of encoders"] = product_of_encoders([runs[m] for m in names])
    if LATE in finished:
        found = differences(runs[LATE], {MODEL: runs[MODEL]}).get(MODEL, {})
        if difference := found.get(main_metric(finished[MODEL])):
            row["difference"] = dataclasses.asdict(difference)
    return row


def product_of_encoders(runs: Sequence[RowRun]) -> dict[str, Any] | None:
    """Returns the test accuracy of the product of the probabilities of some runs.

    It is the best combination of modalities that are independent given the class. The
    words, the sentence and the pixels of a digit are; image and video have the same
    handwriting.

    Args:
        runs: Finished runs of one modality each, on the same test examples.

    Returns:
        Mean and standard deviation over their common seeds, and the seeds; None if they
        have none in common.
    """
    folders = []
    for run in runs:
        result = run.result()
        found = result.runs if result else []
        folders.append({one.seed: run.folder / one.folder for one in found})
    seeds = sorted(set.intersection(*(set(one) for one in folders)))
    accuracies = []
    for seed in seeds:
        parts = [read_predictions(one[seed]) for one in folders]
        if any(part is None or part.ids != parts[0].ids for part in parts):
            return None
        logits = [log_softmax(part.prediction, axis=-1) for part in parts]
        accuracies.append(np.mean(np.sum(logits, axis=0).argmax(-1) == parts[0].truth))
    if not seeds:
        return None
    std = float(np.std(accuracies, ddof=1)) if len(seeds) > 1 else None
    return {"mean": float(np.mean(accuracies)), "std": std, "n": len(seeds)}


def with_earlier(
    rows: Sequence[Mapping[str, Any]], path: Path
) -> list[Mapping[str, Any]]:
    """Returns the rows, those without a finished model as an earlier table has them.

    Args:
        rows: Results of `paper_row`.
        path: The earlier results.json, which may not exist.
    """
    earlier = {}
    if path.exists():
        table = json.loads(path.read_text("utf-8"))["table"]
        earlier = {row["model"]: row for row in table if row["state"] == "finished"}
    return [
        row if row["state"] == "finished" else earlier.get(row["model"], row)
        for row in rows
    ]


def adjusted(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows with p values adjusted by Holm for the number of papers."""
    rows = copy.deepcopy([{**row} for row in rows])
    compared = [row["difference"] for row in rows if row["difference"]]
    for p in ("p_examples", "p_seeds"):
        values = [float("nan") if d[p] is None else d[p] for d in compared]
        for difference, value in zip(compared, holm(values), strict=True):
            if difference[p] is not None:
                difference[p] = value
    return rows


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as a Markdown table for a README."""
    heads = ["model", "modalities", "test accuracy", "validation", "late fusion"]
    heads += ["best encoder alone", "product of encoders trained alone"]
    heads += ["simple classifiers", *HEADS]
    heads += ["macro F1", "MIS", "parameters", "wall time", "seeds"]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for row in rows:
        cells = _cells(row)
        cells += [""] * (len(heads) - len(cells))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *sentences(rows)])


def _cells(row: Mapping[str, Any]) -> list[str]:
    """Returns the cells of a row."""
    if row["state"] != "finished":
        return [row["model"], "", row["state"]]
    model, best, simple = (
        row["runs"][MODEL],
        row["best unimodal"],
        row["simple classifiers"],
    )
    product = row.get("product of encoders")
    difference = row["difference"] and PairedDifference(**row["difference"])
    return [
        row["model"],
        ", ".join(model["modalities"]),
        format_metric(model["test"]["accuracy"]),
        format_metric(model["valid"]),
        _baseline(row["runs"].get(LATE)),
        f"{best}: {_baseline(row['runs'][best])}" if best else "not run",
        format_metric(product) if product else "not run",
        "not run" if simple is None else format_number(simple),
        *format_difference(difference),
        *(format_metric(model["test"].get(name)) for name in ("macro_f1", "mis")),
        f"{model['parameters']:,}",
        format_wall(model["wall_s"]),
        str(len(model["seeds"])),
    ]


def _baseline(run: Mapping[str, Any] | None) -> str:
    return format_metric(run["test"]["accuracy"]) if run else "not run"


def sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a sentence for each baseline that a model does not reach."""
    found = []
    for row in rows:
        if row["state"] != "finished":
            continue
        model = row["runs"][MODEL]["test"]["accuracy"]["mean"]
        difference = row["difference"] and PairedDifference(**row["difference"])
        if difference and difference.value < 0:
            found.append(
                f"- {row['model']} is below late fusion of its own encoders by "
                f"{format_number(-difference.value)}, {difference.verdict}."
            )
        product = row.get("product of encoders")
        if product and model < product["mean"]:
            found.append(
                f"- {row['model']} is below the product of its own encoders, each "
                f"trained alone, by {format_number(product['mean'] - model)}."
            )
        simple = row["simple classifiers"]
        if simple is not None and model < simple:
            found.append(
                f"- {row['model']} is below the product of simple classifiers by "
                f"{format_number(simple - model)}."
            )
    return found


def main() -> None:
    """Trains the papers and their baselines, prints the table and writes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/paper_tables"),
        help="folder of the runs",
    )
    parser.add_argument(
        "--only", nargs="+", action="extend", choices=PAPERS, help="papers to train"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print the commands, train none"
    )
    parser.add_argument(
        "--finished", action="store_true", help="train none, write the table"
    )
    parser.add_argument(
        "--output", type=Path, default=FOLDER, help="folder of results.json"
    )
    options, flags = parser.parse_known_args()
    if odd := [flag for flag in flags if not flag.startswith("--config.")]:
        parser.error(f"unknown argument {odd[0]}")
    made = {paper: paper_runs(paper, options.runs, flags) for paper in PAPERS}
    chosen = {
        f"{paper}, {name}": run
        for paper in options.only or PAPERS
        for name, run in made[paper].items()
    }
    if options.dry_run:
        for run in chosen.values():
            print(shlex.join(run.command(options.seeds)))
        return
    failed = {} if options.finished else train_rows(chosen, options.seeds)
    rows = [paper_row(paper, runs) for paper, runs in made.items()]
    if not any(row["runs"] for row in rows):
        raise SystemExit(f"{options.runs}: no run is finished.")
    path = options.output / "results.json"
    rows = with_earlier(rows, path)
    # p values are stored as computed: which rows there are decides the adjustment.
    write_json(path, {"table": rows, "level": LEVEL})
    print(markdown(adjusted(rows)))
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
