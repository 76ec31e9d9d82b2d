"""The tables of the papers: flags of every row, and tables of synthetic results."""

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sample_results

FOLDER = Path(__file__).parents[1] / "experiments"
sys.path[:0] = [str(FOLDER), str(FOLDER / "paper_tables")]
import paired_rows  # noqa: E402
import paper_report  # noqa: E402
import row_runs  # noqa: E402
import table as command  # noqa: E402
from paired_rows import PairedDifference  # noqa: E402
from paper_rows import TABLES, PaperTable, Row  # noqa: E402
from row_runs import RowRun, row_run, train_rows  # noqa: E402

from mmfusion_jax.analysis import comparison  # noqa: E402
from mmfusion_jax.results.config_file import WorkdirConfig, write_config  # noqa: E402
from mmfusion_jax.results.experiment_result import ExperimentResult  # noqa: E402
from mmfusion_jax.results.json_file import write_json  # noqa: E402
from mmfusion_jax.results.predictions_file import write_predictions  # noqa: E402

ABSENT = {"ERANNs"}
"""Rows of networks that the library does not have."""


def test_flags_of_every_row_resolve(tmp_path):
    """Except those of rows that the library does not have, which are exactly these."""
    missing, folders = set(), {}
    for name, table in TABLES.items():
        made = command.row_runs(table, "digits", tmp_path)
        missing |= {row for row, run in made.items() if isinstance(run, str)}
        runs = {row: run for row, run in made.items() if isinstance(run, RowRun)}
        folders[name] = {row: run.folder for row, run in runs.items()}
        assert table.full in runs
        assert all(row.paper.keys() >= {"accuracy"} for row in table.rows)
        # A flag without effect, or of another row, would be the same config twice.
        distinct = {run.folder for run in runs.values()}
        assert len(distinct) == len(runs) - (name == "cfn_sr_2")
    assert missing == ABSENT
    second = folders["cfn_sr_2"]
    assert second["A->V Cross-modal"] == second["CFN-SR"]
    assert second["CFN-SR"] == folders["cfn_sr_1"]["CFN-SR (Ours)"]


def test_a_changed_flag_has_another_folder_and_the_seeds_have_not(tmp_path):
    plain = row_run("cfn_sr.py:digits", [], tmp_path)
    other = row_run("cfn_sr.py:digits", ["--config.model.residual=False"], tmp_path)
    threads = row_run(
        "cfn_sr.py:digits", ["--config.data.num_read_threads=1"], tmp_path
    )
    seeds = row_run("cfn_sr.py:digits", ["--config.seeds=3"], tmp_path)
    digests = [r.folder.name.split("-")[-1] for r in (plain, other, threads, seeds)]
    assert digests[0] == digests[2] == digests[3] != digests[1]
    # A folder that is there is used, whatever its first words are.
    (tmp_path / f"old_name-{digests[1]}").mkdir()
    again = row_run("cfn_sr.py:digits", ["--config.model.residual=False"], tmp_path)
    assert again.folder.name == f"old_name-{digests[1]}"
    # It cannot be given fewer seeds than it was begun with.
    write_config(again.folder, WorkdirConfig(5, {}))
    assert "--config.seeds=5" in again.command(3)
    assert "--config.seeds=7" in again.command(7)


N = 40
TRUTH = np.arange(N) % 2


def trained(folder: Path, *correct: int, **more: float) -> RowRun:
    """A trained row: the number of correct predictions of each seed."""
    made: dict[str, Any] = sample_results.result()
    (sample,) = made["runs"]
    made["runs"], made["git"] = [], "1234"
    for seed, number in enumerate(correct):
        right = np.arange(N) < number
        prediction = np.eye(2)[np.where(right, TRUTH, 1 - TRUTH)]
        scores = scores_of(prediction)
        name = f"fold_0/seed_{seed}"
        entry = {**sample, "seed": seed, "folder": name, "stages": {}}
        entry |= {split: {"scores": scores} for split in ("test", "last", "valid")}
        made["runs"].append(entry)
        ids = [f"clip {i}" for i in range(N)]
        write_predictions(folder / name, ids, TRUTH, prediction)
    made["summary"]["stages"] = {}
    names = made["runs"][0]["test"]["scores"]
    for split in ("test", "last"):
        spread = lambda name: float(np.mean([scores_at(r, name) for r in made["runs"]]))
        made["summary"][split] = {
            name: {"mean": spread(name), "std": 0.0, "n": len(correct)}
            for name in names
        }
    write_json(folder / "result.json", msgspec.convert(made, ExperimentResult))
    return RowRun(("--config=configs/cfn_sr.py:digits",), folder, ("audio", "video"))


def scores_at(run: dict[str, Any], name: str) -> float:
    return run["test"]["scores"][name]


def scores_of(prediction: np.ndarray) -> dict[str, float]:
    """All metrics of predictions, so that they fit the stored ones."""
    infos = sample_results.INFOS
    arrays = {"truth": TRUTH, "prediction": prediction}
    return {
        name: 0.25 if name == "loss" else info.formula(arrays)
        for name, info in infos.items()
    }


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(comparison, "RESAMPLES", 50)


SMALL = PaperTable(
    "Paper, Table 1",
    "accuracy of something",
    "cfn_sr",
    "full",
    (
        Row("full", {"accuracy": 90.0}),
        Row("w/o much", {"accuracy": 80.0}),
        Row("w/o little", {"accuracy": 80.0}),
        Row("same", {"accuracy": 90.0}),
        Row("one seed", {"accuracy": 80.0}),
        Row("later", {"accuracy": 80.0}),
        Row("broken", {"accuracy": 80.0}),
        Row("another", {"accuracy": 80.0}, absent="not built"),
    ),
)


@pytest.fixture
def small(tmp_path, few_resamples):
    """A table with rows in every state."""
    later = tmp_path / "later"
    made = {
        "full": trained(tmp_path / "full", 36, 34, 35),
        "w/o much": trained(tmp_path / "much", 20, 19, 18),
        "w/o little": trained(tmp_path / "little", 36, 35, 36),
        "same": trained(tmp_path / "full", 36, 34, 35),
        "one seed": trained(tmp_path / "one", 30),
        "later": RowRun((), later, ("audio", "video")),
        "broken": RowRun((), tmp_path / "broken", ("audio", "video")),
        "another": "not built",
    }
    write_json(tmp_path / "much" / row_runs.WALL_TIME_FILE, {"wall_s": 90.0})
    return paper_report.collect(SMALL, made, {"broken": 3})


def cells(text: str) -> dict[str, list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    table = [line.strip("| ").split(" | ") for line in lines]
    assert len({line.count("|") for line in lines}) == 1
    return {row[0].strip(): [cell.strip() for cell in row] for row in table}


def test_a_table_has_scores_paired_tests_and_states(small):
    text = paper_report.markdown(small)
    rows = cells(text)
    assert rows["full"][1:4] == ["0.875 ± 0.025", "0.875 ± 0.025", ""]
    much = rows["w/o much"]
    assert much[1] == "0.475 ± 0.025" and much[3] == "-0.400"
    assert much[5] == "< 0.001" and float(much[6]) < 0.05 and much[7] == "worse"
    assert much[-2:] == ["1.5 min", "3"] and much[-3] == "30"
    assert rows["w/o little"][3] == "+0.017"
    assert rows["same"][3] == "same run"
    # 30 - 36 of 40, on the one seed that both have.
    assert rows["one seed"][3] == "-0.150" and rows["one seed"][6] == "not defined"
    assert rows["later"][1] == "not run"
    assert rows["broken"][1] == "failed with exit code 3"
    assert rows["another"][1] == "not in this library"
    assert "90" not in rows["full"] and "80" not in text.split("Trained on")[1]
    assert "scores 0.500." in text and "digits (embedded)" in text


def test_a_table_has_its_provenance(small):
    assert small["commits"] == ["1234"] and small["commit"]
    assert small["device"].platform == "cpu" and small["versions"]
    assert small["data"]["title"] == "digits (embedded)"
    states = {row["row"]: row for row in small["rows"]}
    assert states["full"]["seeds"] == [0, 1, 2] and states["full"]["command"]
    assert states["full"]["paper"] == {"accuracy": 90.0}
    found = states["w/o much"]["differences"]["accuracy"]
    assert found["verdict"] == "significant" and found["low"] < -0.2 < 0 > found["high"]


def test_a_row_that_turned_out_otherwise_has_a_note(small):
    line, other = small["notes"]
    assert other.startswith("one seed: the accuracy is worse")  # one seed, not tested
    assert line == (
        "w/o little: the accuracy is worse than that of the full model in the paper, "
        "and better by 0.017 here, not significant."
    )
    assert f"- {line}" in paper_report.markdown(small)


def test_a_table_without_runs(tmp_path):
    made = {row.name: RowRun((), tmp_path / row.name, ()) for row in SMALL.rows}
    found = paper_report.collect(SMALL, made, {})
    assert {row["state"] for row in found["rows"]} == {"not run"}
    assert "No row of this table has been run." in paper_report.markdown(found)


@pytest.mark.parametrize(
    ("paper", "value", "p_examples", "p_seeds", "expected"),
    [
        ("worse", -0.1, 0.01, 0.01, ""),
        (
            "worse",
            -0.1,
            0.01,
            0.2,
            "worse by 0.100 here, significant over the examples",
        ),
        ("worse", -0.1, None, 0.01, "worse by 0.100 here, significant over the seeds"),
        ("worse", 0.1, 0.01, 0.01, "better by 0.100 here, significant."),
        ("better", 0.1, 0.01, 0.01, ""),
        ("worse", 1e-17, 1.0, None, "equal here, not significant."),
        ("equal", 0.1, 0.2, 0.2, ""),
        ("equal", 0.1, 0.01, 0.01, "the accuracy is equal to that of the full model"),
    ],
)
def test_notes(paper, value, p_examples, p_seeds, expected):
    found = PairedDifference(value, None, None, p_examples, p_seeds)
    line = paper_report.note("row", "the accuracy", paper, found)
    assert expected in line if expected else not line


def test_an_error_is_better_when_it_is_lower():
    found = {"w/o much": {"mae": PairedDifference(0.1, None, None, 0.01, 0.01)}}
    assert not paper_report.notes(SMALL, found, "mae", higher_is_better=False)
    (line,) = paper_report.notes(SMALL, found, "mae")
    assert "better by 0.100 here" in line


def test_signs_of_the_papers():
    table = TABLES["hetero_fusion_net_3"]
    late = table.rows[1]
    assert paper_report.paper_sign(table, late, "mis") == "worse"
    assert paper_report.paper_sign(table, table.rows[0], "mis") == ""
    assert paper_report.paper_sign(table, table.rows[-1], "accuracy") == ""
    first = TABLES["cfn_sr_2"]
    signs = [paper_report.paper_sign(first, row, "accuracy") for row in first.rows]
    assert signs == ["", "worse", "worse", "equal", "worse", "worse"]


def test_finished_rows_are_kept_and_a_failure_does_not_stop_the_others(
    tmp_path, monkeypatch
):
    asked = []

    def execute(command):
        asked.append(Path(command[-1].removeprefix("--workdir=")).name)
        return (3, False) if asked[-1] == "bad" else (0, False)

    monkeypatch.setattr(row_runs, "_execute", execute)
    runs = {name: RowRun((), tmp_path / name, ()) for name in ("bad", "good")}
    runs["done"] = trained(tmp_path / "done", 30, 30)
    assert train_rows(runs, 2) == {"bad": 3} and asked == ["bad", "good"]
    before = runs["good"].wall_s()
    asked.clear()
    train_rows({"good": runs["good"], "done": runs["done"]}, 3)  # another seed
    assert asked == ["good", "done"] and runs["good"].wall_s() >= before


def test_a_signal_reaches_the_training_and_ends_the_script(tmp_path, monkeypatch):
    code = "import os, signal as s, sys, time; s.signal(15, lambda *_: sys.exit(143));"
    code += "os.kill(os.getppid(), 15); time.sleep(60)"
    run = RowRun((), tmp_path / "row", ())
    words = ["python", "-c", code]
    monkeypatch.setattr(RowRun, "command", lambda self, seeds: words)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as info:
        train_rows({"row": run, "next": RowRun((), tmp_path / "next", ())}, 1)
    assert info.value.code == 143
    assert run.wall_s() > 0 and not (tmp_path / "next").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_simple_classifiers_are_those_of_the_same_data(tmp_path):
    path, data = tmp_path / "difficulty.json", {"title": "digits", "version": "1"}
    read = lambda data, *names: paired_rows.simple_classifiers(data, names, path)
    assert read(data, "audio") is None
    rows = [{"modalities": ["audio", "video"], "test": 0.8}]
    write_json(path, {"data": data, "table": rows})
    assert read(data, "video", "audio") == 0.8
    assert read(data, "audio") is None
    assert read({**data, "version": "2"}, "video", "audio") is None


def test_the_recorded_classifiers_cover_every_model():
    data = {"title": "digits (embedded)", "version": "1.0.0"}
    for table in TABLES.values():
        run = row_run(f"{table.config}.py:digits", [], Path("runs"))
        assert paired_rows.simple_classifiers(data, run.modalities)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "w/o nothing"], "unknown row 'w/o nothing'; known: CFN-SR; "),
        (["--epochs=3"], "unknown argument --epochs=3"),
    ],
)
def test_the_command_names_what_it_does_not_know(words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["table.py", "--table=cfn_sr_2", *words])
    with pytest.raises(SystemExit):
        command.parse_options()
    assert said in capsys.readouterr().err


def test_the_command_prints_commands(monkeypatch, capsys, tmp_path):
    words = ["--table=cfn_sr_2", "--config.train.epochs=1", f"--runs={tmp_path}"]
    only = ["--only", "w/o residual", "--only", "CFN-SR"]
    for more in (["--list"], ["--dry_run", *only]):
        monkeypatch.setattr(sys, "argv", ["table.py", *words, *more])
        command.main()
    lines = capsys.readouterr().out.splitlines()
    assert "w/o residual: not run" in lines
    full, residual = lines[-2:]
    assert "residual=False --config.train.epochs=1 --config.seeds=3" in residual
    assert full.startswith("python -m mmfusion_jax.main --config=configs/cfn_sr.py:")
    assert len(lines) == 2 * len(TABLES["cfn_sr_2"].rows) + 2


def test_metrics_other_than_the_main_one_are_tested_over_the_seeds(
    tmp_path, few_resamples
):
    full = trained(tmp_path / "full", 36, 34, 35)
    other = trained(tmp_path / "other", 20, 19, 18)
    found = paired_rows.differences(full, {"other": other})["other"]
    assert found["macro_f1"].p_examples is None and found["macro_f1"].p_seeds < 0.05
    assert set(found) == {"accuracy", "macro_f1"}
    assert dataclasses.asdict(found["accuracy"])["p_examples"] < 0.001


def test_the_test_over_the_seeds_averages_folds(tmp_path):
    result = trained(tmp_path, 30, 20).result()
    fold = dataclasses.replace(result.runs[0], fold=1, test=result.runs[1].test)
    result = dataclasses.replace(result, runs=[*result.runs, fold])
    found = paired_rows._by_seed(result, "accuracy")
    assert found == {0: (30 + 20) / 2 / N, 1: 20 / N}
    assert np.isnan(paired_rows._by_seed(result, "mis")[0])


def test_a_table_without_runs_replaces_nothing(tmp_path):
    """The files of runs whose folders are gone stay."""
    script = Path(paper_report.__file__).with_name("table.py")
    words = [f"--runs={tmp_path / 'runs'}", f"--output={tmp_path}", "--finished"]
    done = subprocess.run(
        [sys.executable, str(script), "--table=mcl_mcf_5", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "No row of this table has been run." in done.stdout
    assert not list(tmp_path.glob("*.md")) and not list(tmp_path.glob("*.json"))


def test_the_command_of_a_table_names_no_folder_of_a_machine():
    words = ["table.py", "--table=mea_5", "--output", "/a/b", "--runs=/c", "--seeds=3"]
    found = paired_rows.command_line(words)
    assert found == "python table.py --table=mea_5 --seeds=3"
