"""`compare`: planted differences are found, other data and damage are refused."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sample_results
import tiny_dataset

from mmfusion_jax import __main__ as program
from mmfusion_jax.analysis import comparison
from mmfusion_jax.analysis.comparison import (
    FinishedExperiment,
    compare,
    strata_of,
)
from mmfusion_jax.commands.compare import compare_runs, show
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.errors import CheckpointError, ConfigError
from mmfusion_jax.report.charts import COLORS, LIGHT
from mmfusion_jax.report.comparison import notes, tables, write_comparison
from mmfusion_jax.results.comparison_result import ComparisonResult
from mmfusion_jax.results.experiment_result import ExperimentResult, read_result
from mmfusion_jax.results.json_file import write_json
from mmfusion_jax.results.run_identity import config_sha256
from mmfusion_jax.results.summarize import with_seeds
from mmfusion_jax.runner import experiment

N = 20


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Intervals that are less exact, in a tenth of the time."""
    monkeypatch.setattr(comparison, "RESAMPLES", 200)


def result_of(seeds=(7,), **changes: Any) -> ExperimentResult:
    """A finished experiment with the metrics of a classifier."""
    made = sample_results.result()
    (run,) = made["runs"]
    made["runs"] = [{**run, "seed": seed} for seed in seeds]
    return msgspec.convert({**made, **changes}, ExperimentResult)


def planted(name: str, *correct, truth=None, **changes) -> FinishedExperiment:
    """An experiment with two classes; which predictions are correct, for each seed."""
    truth = np.arange(N) % 2 if truth is None else truth
    arrays = {}
    for seed, right in enumerate(correct):
        y_pred = np.where(np.asarray(right, bool), truth, 1 - truth)
        logits = np.eye(2, dtype=np.float32)[y_pred]
        arrays[0, seed] = {"truth": truth, "prediction": logits}
    result = result_of(range(len(correct)), **changes)
    ids = {0: [f"clip {i}" for i in range(N)]}
    return FinishedExperiment(name, f"runs/{name}", result, ids, arrays)


FIRST_TEN, ALL_BUT_TWO = np.arange(N) < 10, np.arange(N) < 18


def test_a_planted_difference_is_found():
    """8 examples are better, none is worse: McNemar's p is 2 / 2^8 by hand."""
    found = compare([planted("a", FIRST_TEN), planted("b", ALL_BUT_TWO)])
    (contrast,) = found.contrasts
    test = contrast.examples
    assert test is not None and test.name == "McNemar"
    assert (test.n, test.better, test.worse) == (20, 8, 0)
    assert test.p == test.p_holm == 2 / 256
    assert contrast.seeds is None  # a seed alone
    interval = contrast.differences["accuracy"]
    assert interval.low is not None and 0.15 < interval.low < 0.25
    assert interval.high is not None and 0.55 < interval.high < 0.65
    loss = contrast.differences["loss"]
    assert np.isnan([loss.low, loss.high]).all()  # no formula of the predictions
    heads = tables(found)[0].heads
    assert heads[1:4] == ["majority class: “no”", "a: video only", "a"]


def test_without_a_difference_nothing_is_found():
    found = compare([planted("a", FIRST_TEN), planted("b", ~FIRST_TEN)])
    (contrast,) = found.contrasts
    test, accuracy = contrast.examples, contrast.differences["accuracy"]
    assert test is not None and (test.better, test.worse, test.p) == (10, 10, 1)
    assert accuracy.low is not None and accuracy.high is not None
    assert accuracy.low < 0 < accuracy.high
    same = compare([planted("a", FIRST_TEN), planted("b", FIRST_TEN)]).contrasts[0]
    assert same.examples is not None and same.examples.p == 1
    assert same.differences["accuracy"] == dataclasses.replace(
        accuracy, value=0, low=0, high=0
    )


def test_several_seeds_are_averaged_and_several_runs_adjusted():
    """Of examples that one of two seeds gets, half a point counts; p (Holm) is 2 p."""
    first = planted("a", FIRST_TEN, FIRST_TEN)
    half = planted("b", ALL_BUT_TWO, FIRST_TEN)
    found = compare([first, half, planted("c", FIRST_TEN)])
    test = found.contrasts[0].examples
    assert test is not None and test.name == "sign test"
    assert (test.better, test.worse, test.p) == (8, 0, 2 / 256)
    assert test.p_holm == 4 / 256
    last = found.contrasts[1].examples  # one seed against two
    assert last is not None and (last.better, last.worse, last.p_holm) == (0, 0, 1)
    accuracy = found.contrasts[0].differences["accuracy"]
    assert accuracy.high is not None and 0.25 < accuracy.high < 0.35
    assert "p (Holm) is adjusted for the number of tests." in notes(found)
    assert "p (Holm)" in [row[0] for row in tables(found)[2].rows]


def test_the_seeds_that_both_have_are_paired():
    """Differences 1, 2, 3 hundredths: t = 2 sqrt 3, by hand."""

    def scored(name, scores):
        one = planted(name, *[FIRST_TEN] * len(scores))
        runs = [
            dataclasses.replace(
                run,
                test=dataclasses.replace(
                    run.test, scores={**run.test.scores, "accuracy": score}
                ),
            )
            for run, score in zip(one.result.runs, scores, strict=True)
        ]
        return dataclasses.replace(
            one, result=dataclasses.replace(one.result, runs=runs)
        )

    a, b = scored("a", [0.5, 0.5, 0.5]), scored("b", [0.51, 0.52, 0.53, 0.9])
    test = compare([a, b]).contrasts[0].seeds
    assert test is not None and test.seeds == [0, 1, 2]
    assert test.t == pytest.approx(2 * np.sqrt(3))
    assert test.p == pytest.approx(0.0741799, abs=1e-6)


REGRESSION = {"label": "score", "kind": "regression", "range": (-3.0, 3.0)}


def test_scores_are_compared_by_their_errors():
    truth = np.linspace(-2, 2, N).round(2)

    def made(name, error):
        task = {**REGRESSION, "family": "plain"}
        plot = {"pairs": {"truth": [0.0], "prediction": [0.0]}}
        scores = dict.fromkeys(("mae", "corr", "acc2", "f1", "loss"), 0.5)
        run = {**sample_results.entry(0.5), "plot_data": plot, "best_test": None}
        run |= {split: {"scores": scores} for split in ("valid", "test", "last")}
        run["baseline"] = {"description": "median", "scores": {"mae": 1.0}}
        spreads = sample_results.spreads({"scores": scores})
        made = sample_results.result() | {"task": task, "selection_metric": "mae"}
        info = {"label": "MAE", "definition": "", "unit": "", "higher_is_better": False}
        made["metrics"] = {name: {**info, "label": name} for name in scores}
        made["runs"] = [{**run, "fold": 0, "seed": 0, "folder": ".", "stages": {}}]
        made["summary"] |= {"test": spreads, "last": spreads, "stages": {}}
        made["baseline"] = {
            "description": "median",
            "scores": {"mae": sample_results.spread(1.0)},
        }
        result = msgspec.convert(made, ExperimentResult)
        arrays = {"truth": truth, "prediction": (truth + error).astype(np.float32)}
        ids = {0: [f"clip {i}" for i in range(N)]}
        return FinishedExperiment(name, name, result, ids, {(0, 0): arrays})

    found = compare([made("a", 0.5), made("b", 0.25 + np.arange(N) / 1000)])
    (contrast,) = found.contrasts
    test, mae = contrast.examples, contrast.differences["mae"]
    assert test is not None and test.name == "Wilcoxon signed-rank"
    assert (test.better, test.worse) == (N, 0)
    assert test.p == pytest.approx(2 / 2**N, rel=1e-6)  # exact
    assert mae.low is not None and mae.high is not None
    assert -0.25 < mae.low < mae.high < -0.23
    nothing = compare([made("a", 0.5), made("b", np.nan)])
    assert nothing.contrasts[0].examples is None
    assert "not finite" in nothing.notes[0]


def test_flags_are_compared_by_the_number_of_correct_ones():
    task = {"label": "x", "kind": "multilabel", "flags": ["no", "yes"]}
    run = {**sample_results.entry(0.5), "plot_data": {}}
    stages = {name: run for name in ("audio", "video")}
    runs = [{"fold": 0, "seed": 0, "folder": ".", **run, "stages": stages}]
    truth = np.zeros((N, 2), int)

    def made(name, wrong):
        y_pred = np.zeros((N, 2), int)
        y_pred[:wrong, 1] = 1
        arrays = {"truth": truth, "prediction": np.eye(2)[y_pred].reshape(N, 4)}
        result = (
            result_of(task=task)
            if False
            else msgspec.convert(
                sample_results.result() | {"task": task, "runs": runs}, ExperimentResult
            )
        )
        ids = {0: [f"clip {i}" for i in range(N)]}
        return FinishedExperiment(name, name, result, ids, {(0, 0): arrays})

    test = compare([made("a", 6), made("b", 0)]).contrasts[0].examples
    assert test is not None and test.name == "sign test"
    assert (test.better, test.worse, test.p) == (6, 0, 2 / 64)


def test_folds_are_united_by_id():
    """Default ids are those of one fold; a name is the same example in every fold."""
    named = strata_of({0: ["a", "b"], 1: ["c"], 2: ["b", "a"]})
    rows = [{fold: x.tolist() for fold, x in one.rows.items()} for one in named]
    assert rows == [{0: [0, 1], 2: [1, 0]}, {1: [0]}]
    default = strata_of({0: ["test/0", "test/1"], 1: ["test/0", "test/1"]})
    assert [one.size for one in default] == [2, 2]


def config_of(rate: float):
    changes = {"optim.learning_rate": rate, "train.epochs": 2, "seeds": 2}
    return tiny_dataset.config(**changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """A model that learns, and one that hardly does, two seeds each."""
    root = tmp_path_factory.mktemp("compare")
    for name, rate in (("slow", 1e-5), ("fast", 1e-2)):
        experiment.train(resolve(config_of(rate)), root / name, "a test")
    return root / "slow", root / "fast"


def test_two_models_from_the_shell(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    slow, fast = map(str, trained)
    page = tmp_path / "pages" / "comparison.html"
    assert program.run(["compare", slow, fast, f"--output={page}"]) == 0
    out, err = capsys.readouterr()
    assert f"comparison: {page}" in err
    for text in ("majority class", "slow", "fast", "accuracy", "paired t-test"):
        assert text in out
    html = page.read_text("utf-8")
    assert "slow vs. fast" in html and html.count("<svg") == 2
    assert "nan" not in re.sub("<svg.*?</svg>", "", html, flags=re.DOTALL).lower()
    output = f"--output={tmp_path / 'chart.svg'}"
    assert program.run(["compare", slow, fast, output, "--json"]) == 0
    found = msgspec.convert(json.loads(capsys.readouterr().out), ComparisonResult)
    assert "<svg" in (tmp_path / "chart.svg").read_text("utf-8")
    assert [run.name for run in found.runs] == ["slow", "fast"]
    assert found.runs[0].best_unimodal is None
    (contrast,) = found.contrasts
    accuracy, means = (
        contrast.differences["accuracy"],
        [run.scores["accuracy"].mean for run in found.runs],
    )
    assert accuracy.value == pytest.approx(means[1] - means[0])
    assert accuracy.low <= accuracy.value <= accuracy.high
    assert contrast.seeds is not None and contrast.seeds.seeds == [1234, 1235]
    assert found.test_examples == 9 and not found.notes


def test_runs_are_compared_on_their_common_seeds(trained, tmp_path):
    """A run of one seed and one of two; the other seed is neither shown nor tested."""
    slow, fast = trained
    shutil.copytree(slow, tmp_path / "one")
    two = read_result(fast)
    found = read_result(slow)
    assert found is not None and two is not None
    write_json(tmp_path / "one/result.json", with_seeds(found, [1235]))
    result = compare_runs([str(tmp_path / "one"), str(fast)])
    assert [run.seeds for run in result.runs] == [[1235], [1235]]
    assert "every run has are compared: 1235" in result.notes[0]
    (score,) = [run.test.scores["accuracy"] for run in two.runs if run.seed == 1235]
    assert result.runs[1].scores["accuracy"].mean == pytest.approx(score)


def test_pictures_have_the_colors_of_the_page(tmp_path):
    found = compare([planted("a", FIRST_TEN), planted("b", ALL_BUT_TWO)])
    write_comparison(tmp_path / "x.png", found)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    for _ in range(2):
        write_comparison(tmp_path / "x.svg", found)
    text = (tmp_path / "x.svg").read_text("utf-8")
    assert LIGHT["first"] in text and not any(c in text for c in COLORS.values())
    folder = Path(program.__file__).parent / "report" / "templates"
    css = (folder / "style.css").read_text("utf-8").partition("@media")[0]
    assert LIGHT.items() <= dict(re.findall(r"--(\w+): (#\w+);", css)).items()


def test_long_names_are_not_cut(tmp_path, capsys, monkeypatch):
    """In the tables of a narrow terminal, and in the label below a picture."""
    monkeypatch.setenv("COLUMNS", "60")
    runs = ["late_fusion_of_" + "x" * 12, "early_fusion_of_" + "y" * 12]
    found = compare([planted(runs[0], FIRST_TEN), planted(runs[1], ALL_BUT_TWO)])
    show(found)
    assert "…" not in capsys.readouterr().out
    write_comparison(tmp_path / "x.svg", found)
    text = re.findall("<text[^>]*>(.*?)</text>", (tmp_path / "x.svg").read_text())
    label = " ".join(text[-2:])
    assert label == f"{runs[1]} minus {runs[0]} (points)"


def copy(trained, tmp_path) -> Path:
    """A copy of the second run, to change."""
    shutil.copytree(trained[1], tmp_path / "changed")
    return tmp_path / "changed"


def edit(path: Path, change) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def edit_config(workdir: Path, name: str, value) -> None:
    """Changes a field of the config in all files of a workdir that have it."""
    edit(workdir / "config.json", set_field(f"config.{name}", value))
    edit(workdir / "result.json", set_field(f"config.{name}", value))
    found = json.loads((workdir / "result.json").read_text())
    sha256 = config_sha256(found["config"])

    def change(result):
        result["config_sha256"] = sha256
        for run in result["runs"]:
            run["identity"]["config_sha256"] = sha256

    edit(workdir / "result.json", change)
    for path in workdir.rglob("run.json"):
        edit(path, set_field("identity.config_sha256", sha256))


def test_examples_are_matched_by_id(trained, tmp_path):
    changed = copy(trained, tmp_path)
    for path in changed.glob("fold_0/seed_*/predictions.json"):
        order = np.random.default_rng(0).permutation(9)

        def shuffle(found, order=order):
            for name in ("ids", "y_true", "y_pred"):
                found[name] = [found[name][i] for i in order]

        edit(path, shuffle)
    want = compare_runs([str(trained[0]), str(trained[1])])
    found = compare_runs([str(trained[0]), str(changed)])
    same = lambda result: [
        (one.differences, one.examples, one.seeds) for one in result.contrasts
    ]
    assert repr(same(found)) == repr(same(want))


def set_field(name, value):
    *groups, last = name.split(".")

    def change(found):
        for group in groups:
            found = found[group]
        found[last] = value

    return change


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("data.name", "mosi", "dataset 'tones' and 'mosi'"),
        ("data.counts.test", 8, "number of test examples 9 and 8"),
        ("data.counts", {"train": 30, "test": 9}, "valid examples 9 and None"),
        ("task.label", "digit", "label 'label' and 'digit'"),
        ("task.classes", ["low", "high", "middle"], r"classes \['low', .* and \['low'"),
        ("protocol", "as_published", "protocol 'validation' and 'as_published'"),
    ],
)  # fmt: skip
def test_other_runs_are_refused(trained, tmp_path, name, value, message):
    changed = copy(trained, tmp_path)
    edit(changed / "result.json", set_field(name, value))
    with pytest.raises(ConfigError, match=f"C38.*{message}"):
        compare_runs([str(trained[0]), str(changed)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["ids"].__setitem__(0, "z"), "2 test examples .* such as 'test/0'"),
        (lambda p: p["y_true"].__setitem__(0, 2), "'test/0' .* the label 0.0 and 2.0"),
    ],
)
def test_other_test_examples_are_refused(trained, tmp_path, change, message):
    changed = copy(trained, tmp_path)
    edit(changed / "fold_0" / "seed_1235" / "predictions.json", change)
    with pytest.raises(ConfigError, match=f"C38.*{message}"):
        compare_runs([str(trained[0]), str(changed)])


def test_what_is_missing_or_damaged_is_named(trained, tmp_path, capsys):
    slow, changed = str(trained[0]), copy(trained, tmp_path)
    file = changed / "fold_0" / "seed_1234" / "predictions.json"

    def refused(code, message):
        with pytest.raises(CheckpointError, match=f"{code}.*{message}") as info:
            compare_runs([slow, str(changed)])
        return info.value.fix

    edit(file, lambda found: found["y_pred"].reverse())
    assert "delete both" in refused("K05", r"predictions.json gives .* run.json has")
    for name, rows in (("y_pred", [[0.0]] * 9), ("y_true", [5] * 9)):
        whole = file.read_text()
        edit(file, set_field(name, rows))
        with pytest.raises(CheckpointError, match="K05.*fit the label 'label'"):
            compare_runs([str(changed), slow])
        file.write_text(whole)
    file.write_text("{")
    assert str(file) in refused("K05", "predictions.json is corrupted")
    file.unlink()
    fix = refused("K01", "predictions.json does not exist")
    assert "run.json" in fix and "result.json" in fix
    for line in fix.split(" and ")[:2]:  # the fix is one
        Path(
            line.split()[-1] if line.startswith("delete") else line.split()[0]
        ).unlink()
    assert "train first" in refused("K01", "is not finished")
    experiment.train(resolve(config_of(1e-2)), changed, "a test")
    assert compare_runs([slow, str(changed)]).test_examples == 9
    capsys.readouterr()
    absent = tmp_path / "absent"
    assert program.run(["compare", slow, str(absent)]) == 5
    assert f"error[K01] {absent} does not exist" in capsys.readouterr().err


def test_mistakes_in_the_command_are_named(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, message in (
        ([], "error[C01] RUN RUN ... is required"),
        ([str(trained[0])], "error[C38] compare needs at least two runs"),
        ([str(trained[0]), f"{trained[0]}/"], "slow is given twice"),
        ([*map(str, trained), "--output=x.pdf"], "error[C03] --output='x.pdf'"),
    ):
        assert program.run(["compare", *words]) == 2
        assert message in capsys.readouterr().err
    assert program.run(["compare", "--help"]) == 0
    assert "compare RUN RUN ..." in capsys.readouterr().out


def test_other_inputs_are_a_note(trained, tmp_path):
    changed = copy(trained, tmp_path)
    edit_config(changed, "data.text", "bert")
    (note,) = compare_runs([str(trained[0]), str(changed)]).notes
    assert note.startswith("config.data.text is not set in") and "'bert'" in note


@pytest.mark.parametrize(
    "options",
    [
        {"cache_dir": "", "noise": None, "modality_dropout": {"a": 0.0}},
        {"classes": [], "missing_rate": 0.0},
    ],
)
def test_options_that_are_empty_or_defaults_are_not_notes(
    options, trained, tmp_path, monkeypatch
):
    changed = copy(trained, tmp_path)
    edit_config(changed, "data.name", "digits")
    for name, value in options.items():
        edit_config(changed, f"data.{name}", value)
    assert not compare_runs([str(trained[0]), str(changed)]).notes
