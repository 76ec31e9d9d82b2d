"""All papers on the embedded digits: runs what is not finished, then prints a table.

    python experiments/digits/table.py --seeds 3 --runs runs/digits

Every row is one command, `python -m mmfusion_jax.main` with that config; a run that was
broken off goes on where it stopped. The table stands in results.json beside this file.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from tables import markdown, row, step_s, train, write

FOLDER = Path(__file__).parent
PAPERS = ("cfn_sr", "mea", "mcl_mcf", "hetero_fusion_net", "of_cmaer_cat")


def rows(paper: str, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for the model and one for each of its unimodal stages."""
    runs = result["runs"]
    names = list(result["config"]["model"]["encoders"])
    made = [
        row(f"{paper}: {stage} only", [stage], [run["stages"][stage] for run in runs])
        for stage in runs[0].get("stages") or ()
    ]
    return [*made, row(paper, names, runs) | {"step_s": step_s(runs)}]


def main() -> None:
    """Trains, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/digits"))
    parser.add_argument("--only", nargs="*", choices=PAPERS, default=PAPERS)
    options = parser.parse_args()
    table, result = [], {}
    for paper in options.only:
        folder = options.runs / paper
        result = train(f"{paper}.py", folder, f"--config.seeds={options.seeds}")
        table += rows(paper, result)
    facts = {key: result[key] for key in ("versions", "device", "data")}
    write(FOLDER / "results.json", table, **facts)
    print(markdown(table))


if __name__ == "__main__":
    main()
