"""All papers on the embedded digits: runs what is not finished, then prints a table.

    python experiments/digits/table.py --seeds 3 --runs runs/digits

Every row is one command, `python -m mmfusion_jax.main` with that config; a run that was
broken off goes on where it stopped. The table stands in results.json beside this file.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PAPERS = ("cfn_sr", "mea", "mcl_mcf", "hetero_fusion_net", "of_cmaer_cat")
HEADS = ("model", "modalities", "test accuracy", "validation", "MIS", "parameters")


def train(paper: str, seeds: int, folder: Path) -> dict[str, Any]:
    """The result of one config, trained to its end."""
    command = [sys.executable, "-m", "mmfusion_jax.main"]
    command += [f"--config=configs/{paper}.py", f"--config.seeds={seeds}"]
    command += [f"--workdir={folder}"]
    subprocess.run(command, check=True)
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def rows(paper: str, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for the model and one for each of its unimodal stages."""
    runs = result["runs"]
    names = list(result["config"]["model"]["encoders"])
    made = [
        row(f"{paper}: {stage} only", [stage], [run["stages"][stage] for run in runs])
        for stage in runs[0].get("stages") or ()
    ]
    made.append(row(paper, names, runs))
    made[-1]["step_s"] = statistics.median(
        run["times"]["step_s"]["median"] for run in runs
    )
    return made


def row(
    name: str, modalities: Sequence[str], runs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Mean and deviation over the seeds."""
    found: dict[str, Any] = {"model": name, "modalities": list(modalities)}
    for split in ("test", "valid"):
        for score in ("accuracy", "mis"):
            if values := [run[split][score] for run in runs if score in run[split]]:
                found[f"{split}_{score}"] = spread(values)
    found["parameters"] = runs[0]["parameters"]["total"]
    found["seeds"] = len(runs)
    return found


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, and the standard deviation where there are several values."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "std": deviation}


def shown(found: Mapping[str, float | None] | None) -> str:
    """A score as ".905 ± .011", without the deviation if there is none."""
    if not found:
        return "not defined"
    text = f"{found['mean']:.3f}"
    return text if found["std"] is None else f"{text} ± {found['std']:.3f}"


def markdown(table: Sequence[Mapping[str, Any]]) -> str:
    """The table as the README has it."""
    lines = ["| " + " | ".join((*HEADS, "step", "seeds")) + " |", "| --- " * 8 + "|"]
    for found in table:
        step = f"{1000 * found['step_s']:.0f} ms" if "step_s" in found else ""
        cells = [found["model"], ", ".join(found["modalities"])]
        cells += [shown(found.get(f"{s}_accuracy")) for s in ("test", "valid")]
        cells += [shown(found.get("test_mis")), f"{found['parameters']:,}", step]
        lines.append("| " + " | ".join([*cells, str(found["seeds"])]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Trains, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/digits"))
    parser.add_argument("--only", nargs="*", choices=PAPERS, default=PAPERS)
    options = parser.parse_args()
    table, result = [], {}
    for paper in options.only:
        result = train(paper, options.seeds, options.runs / paper)
        table += rows(paper, result)
    facts = {key: result[key] for key in ("versions", "device", "data")}
    text = json.dumps({"table": table, **facts}, indent=2)
    (FOLDER / "results.json").write_text(text + "\n", encoding="utf-8")
    print(markdown(table))


if __name__ == "__main__":
    main()
