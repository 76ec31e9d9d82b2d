"""Trains all papers on the embedded digits and prints a table.

    python experiments/digits/table.py --seeds 3 --runs runs/digits

Every row is one command, `python -m mmfusion_jax.main` with that config; interrupted
runs resume and finished ones are kept. The table is also written to results.json beside
this file.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

# experiments/ is not a package; a script only finds modules in its own folder.
sys.path.insert(0, str(Path(__file__).parents[1]))
from tables import markdown, row, step_s, train, write

from mmfusion_jax.results.experiment_result import ExperimentResult

FOLDER = Path(__file__).parent
PAPERS = ("cfn_sr", "mea", "mcl_mcf", "hetero_fusion_net", "of_cmaer_cat")


def rows(paper: str, result: ExperimentResult) -> list[dict[str, Any]]:
    """Returns one row for each unimodal stage and one for the model."""
    runs = result.runs
    names = list(result.config["model"]["encoders"])
    made = [
        row(f"{paper}: {stage} only", [stage], [run.stages[stage] for run in runs])
        for stage in runs[0].stages
    ]
    return [*made, row(paper, names, runs) | {"step_s": step_s(runs)}]


def main() -> None:
    """Trains the papers, prints the table and writes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/digits"), help="folder of the runs"
    )
    parser.add_argument(
        "--only", nargs="*", choices=PAPERS, default=PAPERS, help="papers to train"
    )
    options = parser.parse_args()
    table, details = [], {}
    for paper in options.only:
        workdir = options.runs / paper
        result = train(f"{paper}.py", workdir, f"--config.seeds={options.seeds}")
        table += rows(paper, result)
        details = {
            "versions": result.versions, "device": result.device, "data": result.data
        }  # fmt: skip
    write(FOLDER / "results.json", table, **details)
    print(markdown(table))


if __name__ == "__main__":
    main()
