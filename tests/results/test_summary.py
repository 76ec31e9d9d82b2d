"""The final table: the row of the field, what is not defined, and the note."""

import copy

import msgspec
import sample_results
from sample_results import spread

from mmfusion_jax.metrics.score_info import with_loss
from mmfusion_jax.metrics.sentiment import SentimentMetrics
from mmfusion_jax.results.experiment_result import ExperimentResult, RunEvaluation
from mmfusion_jax.results.json_file import to_json
from mmfusion_jax.results.model_result import Evaluation
from mmfusion_jax.results.summary import evaluation_lines, summary_lines


def made(**changes) -> ExperimentResult:
    return msgspec.convert({**sample_results.result(), **changes}, ExperimentResult)


def sentiment() -> dict:
    """The sample result, of a label from -3 to 3."""
    result = copy.deepcopy(sample_results.result())
    infos = with_loss(SentimentMetrics.infos)
    scores = dict.fromkeys(infos, 0.5) | {"corr": 0.25, "mae": 1.5}
    result["metrics"] = {name: to_json(info.shown) for name, info in infos.items()}
    result["selection_metric"] = "mae"
    result["task"] = {
        **{"label": "score", "kind": "regression", "range": [-3, 3]},
        **{"family": "sentiment"},
    }
    spreads = {name: spread(value) for name, value in scores.items()}
    constant = spreads | {"corr": {"mean": None, "std": None, "n": 1}}
    result["baseline"] = {
        "description": "training median: 0.20",
        "scores": {name: value for name, value in constant.items() if name != "loss"},
    }
    summary = result["summary"]
    summary["test"] = summary["last"] = spreads
    for stage in summary["stages"].values():
        stage["test"] = spreads
    plot = {"pairs": {"truth": [0.5], "prediction": [0.4]}}
    for run in result["runs"]:
        for model in (run, *run["stages"].values()):
            for split in ("valid", "test", "last"):
                model[split]["scores"] = scores
            model["plot_data"] = plot
            model["baseline"]["scores"] = {"mae": 1.5}
    return result


def test_a_sentiment_task_ends_with_the_row_that_papers_report():
    lines = summary_lines(msgspec.convert(sentiment(), ExperimentResult))
    start = lines.index("test, as papers report it, n = 400:")
    names = ("Acc-2 (with 0)", "Acc-2 (without 0)", "F1 (with 0)", "F1 (without 0)")
    head = lines[start + 1]
    for name in (*names, "Acc-7", "MAE", "Pearson r"):
        assert name in head, name
    rows = {line.split("  ")[1]: line for line in lines[start + 2 :]}
    assert list(rows) == ["training median: 0.20", "audio only", "video only", "cfn_sr"]
    assert rows["training median: 0.20"].endswith("1.500  not defined")
    assert rows["cfn_sr"].split()[-3:] == ["%", "1.500", "0.250"]


def test_a_classifier_has_one_row_and_a_small_split_a_note():
    lines = summary_lines(made())
    assert not any("papers" in line for line in lines)
    assert lines[0].endswith("n = 400:")
    assert not any("note" in line for line in lines)
    data = {**sample_results.result()["data"], "counts": {"test": 29}}
    (note,) = [line for line in summary_lines(made(data=data)) if "note" in line]
    assert "29 examples: one of them is 3.4 points" in note


def test_an_evaluation_is_a_table():
    scores = {"accuracy": 0.91, "corr": None}
    splits = {"valid": Evaluation(scores), "test": Evaluation({"accuracy": 0.5})}
    run = RunEvaluation(0, 7, ".", 40, splits, {"valid": 20, "test": 1})
    *lines, valid, test = evaluation_lines([run])
    assert valid.startswith("note: the valid split has 20 examples: one of them is 5.0")
    assert test == (
        "note: the test split has 1 example: its scores are those of one prediction"
    )
    assert evaluation_lines([run, run])[-2:] == [valid, test]
    assert [line.split() for line in lines] == [
        ["fold", "0,", "seed", "7,", "step", "40:"],
        ["valid", "test"],
        ["examples", "20", "1"],
        ["accuracy", "0.910", "0.500"],
        ["corr", "not", "defined", "not", "defined"],
    ]
