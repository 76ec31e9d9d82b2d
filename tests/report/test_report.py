"""The report: its content, and that data cannot inject markup."""

import copy
import dataclasses
import re
from html.parser import HTMLParser

import jinja2
import msgspec
import numpy as np
import pytest
import sample_results
from sample_results import INFOS, SCORES, spread

from mmfusion_jax.metrics.calibration import calibrate
from mmfusion_jax.metrics.regression import MAE, RMSE
from mmfusion_jax.metrics.score_info import LOSS
from mmfusion_jax.report import formatting, write_report
from mmfusion_jax.report.gradients import write_page
from mmfusion_jax.report.page import TEMPLATES
from mmfusion_jax.results import (
    experiment_result,
    gradients_result,
    model_result,
    run_identity,
)
from mmfusion_jax.results.calibration_file import CALIBRATION_FILE, read_calibration
from mmfusion_jax.results.experiment_result import ExperimentResult, MeanStd
from mmfusion_jax.results.gradients_result import GradientsResult
from mmfusion_jax.results.json_file import to_json, write_json
from mmfusion_jax.results.metrics_file import MetricsLine
from mmfusion_jax.results.model_result import TaskInfo
from mmfusion_jax.training.timing import StepTimer

pytestmark = pytest.mark.versions

# A formula, elements, ends of attributes, elements and comments, a template.
HOSTILE = (
    "$\\frac{$ <script>alert(1)</script>\"><img src=x onerror=alert(1)>' onload='x' "
    "&lt;b&gt; </style></title></svg>--><!-- {{ 7 * 7 }}{% raw %} javascript:alert(1)"
)
# As many words of the same lengths, without markup.
HARMLESS = re.sub(r"\S", "x", HOSTILE)
ACCURACY = INFOS["accuracy"]


@pytest.fixture
def result() -> dict:
    return sample_results.result()


def written(folder, result: dict) -> str:
    first = {"valid/loss": 2.1, "valid/accuracy": 0.4, "test/accuracy": 0.3}
    second = {"valid/loss": 1.2, "valid/accuracy": 0.76, "test/accuracy": 0.75}
    lines = [
        MetricsLine(20, "train", 1.0, {"loss": 2.0}),
        MetricsLine(20, "eval", 1.0, first),
        MetricsLine(40, "train", 2.0, {"loss": float("nan")}),
        MetricsLine(40, "eval", 2.0, second),
    ]
    text = "".join(line.dumps() for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    path = write_report(folder, msgspec.convert(result, ExperimentResult))
    assert path == folder / "report.html"
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []
    return path.read_text(encoding="utf-8")


class Seen(HTMLParser):
    """The elements of a page, its text, and whether every element is closed.

    `structure` has the elements outside of charts with their attributes, without the
    texts for screen readers; `drawn` those of charts with the names of attributes.
    """

    VOID = ("meta", "br")

    def __init__(self, page: str):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.structure, self.drawn = [], set()
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.handle_startendtag(name, attributes)
        if name not in self.VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.tags.append(name)
        self.attributes += attributes
        if "svg" in self.open:
            self.drawn |= {(name, attribute) for attribute, _ in attributes}
        else:
            shown = [(k, "" if k == "aria-label" else v) for k, v in attributes]
            self.structure.append((name, shown))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_comment(self, data):
        raise AssertionError(data)

    def handle_data(self, text):
        if self.open[-1:] != ["style"]:
            self.text += f"{text} "


def test_shows_the_result_and_the_comparison(tmp_path, result):
    page = written(tmp_path, result)
    text = " ".join(Seen(page).text.split())
    assert "Test accuracy 75.0 % (n = 400), +15.0 points vs. video only." in text
    assert "protocol “validation”" in text
    assert "made by a machine" in text
    assert "One run:" in text
    for row in (
        "majority class: “no” 50.0 %", "audio only 50.0 %", "video only 60.0 %",
        "best validation score: the result above 75.0 % –",
        "last step 70.0 % −5.0 points",
        "best test score 85.0 % +10.0 points",
        "no 3 1 75.0 %", "yes 0 0 –", "head 20 66.7 %",
        "fold 0, seed 7 40 (epoch 2) 80 early 9.5 s 70 ms (60 ms–80 ms) 1.3 %",
        "config.model.hidden_dim 64", "config.model.blocks 1,2", "CC0", "58ed261",
        ACCURACY.definition, LOSS.definition, "UAR", "train 1,200",
    ):  # fmt: skip
        assert row in text, row
    assert result["command"].split() == text.split("Reproduce ")[1].split()[:4]
    assert all(f"<span>{word}</span>" in page for word in result["command"].split())


def test_the_data_and_the_config_are_identified(tmp_path, result):
    second = copy.deepcopy(result["runs"][0]) | {"fold": 1}
    second["identity"] = copy.deepcopy(second["identity"]) | {"fold": 1}
    second["identity"]["data"]["splits"]["test"]["ids"] = "another"
    text = lambda: " ".join(Seen(written(tmp_path, result)).text.split())
    hashes = []
    for run in (result["runs"][0], second):
        found = msgspec.convert(run["identity"]["data"], run_identity.DataFingerprint)
        hashes.append(run_identity.data_sha256(found)[:12])
    assert f"data fingerprint {hashes[0]} config hash" in text()
    assert f"config hash {result['config_sha256'][:12]} written" in text()
    result["runs"].append(second)
    one, two = hashes
    assert f"fingerprint, fold 0 {one} data fingerprint, fold 1 {two}" in text()


def test_the_devices_of_a_resumed_run_are_listed(tmp_path, result):
    text = lambda: " ".join(Seen(written(tmp_path, result)).text.split())
    assert "device 2 × cpu data fingerprint" in text()
    run = result["runs"][0]
    run["devices"] = [{"step": 0, "kind": "TPU v4", "count": 8}, *run["devices"]]
    run["devices"][1] = run["devices"][1] | {"step": 30}
    stage = run["stages"]["audio"]
    stage["devices"] = [{"step": 0, "kind": "TPU v4", "count": 8}]
    resumed = "8 × TPU v4; 2 × cpu from step 30, where it was resumed"
    run_name = "device, fold 0, seed 7"
    assert f"{run_name} {resumed} {run_name}, audio 8 ×" in text()


def test_a_metric_that_the_baseline_lacks_is_shown_with_one_that_it_has(
    tmp_path, result
):
    result["selection_metric"] = "loss"
    text = " ".join(Seen(written(tmp_path, result)).text.split())
    assert "75.0 % test accuracy, n = 400 50.0 % majority class: “no”" in text
    section = text.split("Fusion vs. unimodal")[1].split("Checkpoint selection")[0]
    assert "test loss" in section and "test accuracy" in section
    assert "majority class: “no” 50.0 %" in section and "cfn_sr 75.0 %" in section


def test_of_several_runs_it_gives_the_spread(tmp_path, result):
    second = copy.deepcopy(result["runs"][0])
    second["stages"]["video"]["test"]["scores"]["accuracy"] = 0.7
    result["runs"] = [{**result["runs"][0], "folder": "a"}, {**second, "folder": "b"}]
    result["summary"]["test"]["accuracy"] = spread(0.75, 2)
    text = " ".join(Seen(written(tmp_path, result)).text.split())
    assert "75.0 % ± 2.0" in text
    assert "mean of 2 runs" in text
    # Differences of 15 and 5 points: t = 10 / 5 with one degree of freedom.
    assert "Paired difference to video only: +10.0 points" in text
    assert "95 % confidence interval +5.0 points to +15.0 points" in text
    assert "paired t-test p = 0.295, signed-rank test p = 0.500." in text
    assert "One run:" not in text
    assert "no 6 2 75.0 %" in text


def test_the_line_of_a_bar_stays_on_it(tmp_path, result):
    result["summary"]["test"]["accuracy"] = {"mean": 0.9, "std": 0.2, "n": 2}
    assert "left:70.00%;width:30.00%" in written(tmp_path, result)


def test_the_papers_protocol_is_named_for_what_it_is(tmp_path, result):
    result["protocol"] = "as_published"
    result["summary"]["best_test"] = None
    for run in result["runs"]:
        run["valid"], run["best_test"] = None, None
    text = " ".join(Seen(written(tmp_path, result)).text.split())
    assert "The score is optimistically biased." in text
    assert "best test score: the result above 75.0 % –" in text


def test_a_fixed_number_of_steps_has_no_choice_to_explain(tmp_path, result):
    result["protocol"] = "fixed_epochs"
    result["runs"][0]["valid"] = None
    text = " ".join(Seen(written(tmp_path, result)).text.split())
    assert "last step: the result above 75.0 % –" in text
    assert text.count("last step") == 1
    assert "best test score 85.0 % +10.0 points" in text


def test_needs_nothing_else(tmp_path, result):
    page = written(tmp_path, result)
    seen = Seen(page)
    assert not {"script", "link", "iframe", "img", "object"} & set(seen.tags)
    for name, value in seen.attributes:
        assert not (name in ("src", "href") and not value.startswith("#")), value
        assert not name.startswith("on")
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_is_accessible(tmp_path, result):
    seen = Seen(written(tmp_path, result))
    attributes = set(seen.attributes)
    assert ("lang", "en") in attributes
    assert seen.tags.count("h1") == 1
    assert seen.tags.count("figure") == 4
    described = [value for name, value in seen.attributes if name == "aria-label"]
    assert any("training from 2.000 to 2.000" in formatting for formatting in described)
    ids = [value for name, value in seen.attributes if name == "id"]
    clips = [i for i in ids if re.fullmatch(r"p[0-9a-f]+", i)]
    assert clips and len(clips) == len(set(clips))


FIELDS = {"warnings"} | {
    field.name
    for module in (experiment_result, gradients_result, model_result, run_identity)
    for kind in vars(module).values()
    if dataclasses.is_dataclass(kind)
    for field in dataclasses.fields(kind)
}
"""Fields of the results; other keys are names of metrics, modalities and such."""
KEPT = ("protocol", "unit", "folder", "kind", "ended")
"""Fields whose values are one of a few."""


def with_suffix(value, suffix: str):
    """Appends to every string and every name of a JSON value."""
    if isinstance(value, list):
        return [with_suffix(item, suffix) for item in value]
    if isinstance(value, dict):
        return {
            key if key in FIELDS else key + suffix: (
                item if key in KEPT else with_suffix(item, suffix)
            )
            for key, item in value.items()
        }
    return value + suffix if isinstance(value, str) else value


def assert_is_text(pages: dict[str, str]) -> None:
    """Asserts that the page with HOSTILE differs from that with HARMLESS in texts."""
    plain, hostile = Seen(pages[HARMLESS]), Seen(pages[HOSTILE])
    assert len(plain.structure) > 50
    assert hostile.structure == plain.structure
    assert hostile.drawn <= plain.drawn
    assert hostile.text.count("alert(1)") > 20
    assert hostile.text.count("{{ 7 * 7 }}{% raw %}") > 10


def full(result: dict, task: str) -> dict:
    """Several runs with everything that a report can show."""
    second = copy.deepcopy(result["runs"][0])
    result["runs"].append({**second, "seed": 8, "skipped_steps": 2})
    result["summary"]["modality_weights"] = {"audio": spread(0.5, 2)}
    result["data"]["facts"] |= {"speakers": ["a", "b"], "hours": {"train": 2.5}}
    if task == "regression":
        result["task"] = {"label": "joy", "kind": task, "range": [-3, 3]}
        for run in result["runs"]:
            for model in (run, *run["stages"].values()):
                model["plot_data"] = {"pairs": {"truth": [-1, 1], "prediction": [0, 2]}}
    return result


@pytest.mark.parametrize(
    "name", ["情感", "\x1b[31mred\x07", "a\x00b", "\ud800", "x" * 300]
)
def test_any_name_can_be_shown(tmp_path, result, name):
    result["metrics"]["accuracy"]["label"] = result["command"] = name
    text = Seen(written(tmp_path, full(result, "regression"))).text
    assert name.encode("utf-8", "replace").decode() in text


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_no_string_of_a_result_becomes_markup(tmp_path, result, task):
    result = full(result, task)
    assert_is_text(
        {
            suffix: written(tmp_path, with_suffix(result, suffix))
            for suffix in (HARMLESS, HOSTILE)
        }
    )


def found_gradients() -> dict:
    """A result of `loss_gradients`: the head has no gradient of the second term."""
    norms = {"task": spread(2.0), "contrast": spread(0.5)}
    return {
        "config": {"model": {"name": "mea"}},
        "model": "mea",
        "data": "digits",
        "steps": [1200],
        "batches": 4,
        "terms": {name: {"value": 1.5, "weight": 0.1} for name in norms},
        "modules": {
            "all modules": {
                "norms": norms,
                "cosines": [[1.0, -0.25], [-0.25, 1.0]],
                "conflicts": [[0.0, 0.75], [0.75, 0.0]],
            },
            "head": {
                "norms": {**norms, "contrast": spread(0.0)},
                "cosines": [[1.0, 0.0], [0.0, 0.0]],
                "conflicts": [[0.0, 0.0], [0.0, 0.0]],
            },
        },
        "versions": {"jax": "0.10.2"},
    }


def gradients_page(folder, found: dict) -> str:
    result = msgspec.convert(found, GradientsResult)
    return write_page(folder / "gradients.html", result).read_text("utf-8")


def test_gradients(tmp_path):
    page = gradients_page(tmp_path, found_gradients())
    text = " ".join(Seen(page).text.split())
    for row in (
        "Gradients of mea on digits Mean of 4 training batches; weights of step 1,200.",
        "term value weight task 1.5 0.1", "module task contrast all modules 2 0.5",
        "all modules task contrast task +1.00 −0.25 75 % contrast −0.25 75 % +1.00",
        "head task contrast task +1.00 – contrast – –",
    ):  # fmt: skip
        assert row in text, row


def test_curvature(tmp_path):
    found = found_gradients()
    assert "Curvature" not in gradients_page(tmp_path, found)
    one = {
        "eigenvalues": {"task": 12.5, "contrast": -3.0},
        "sharpness": [[4.0, -0.5], [0.25, 0.0]],
        "noise_scales": {"task": 250.0, "contrast": None},
        "residuals": {"task": 1.2, "contrast": 0.31},
    }
    found["curvature"] = dict.fromkeys(found["modules"], one)
    page = gradients_page(tmp_path, found)
    text = " ".join(Seen(page).text.split())
    for row in (
        "module task contrast all modules 12.5 −3 ? head 12.5 −3 ?",
        "all modules 250 – head 250 –",
        "head task contrast task 4 −0.5 contrast 0.25 0",
    ):
        assert row in text, row
    assert "magnitude of the largest eigenvalue" in page
    assert "has not converged" in text and "reversed gradient" in text


def test_all_loss_terms_are_drawn(tmp_path):
    found = found_gradients()
    norms = {f"term {i}": spread(1.0 + i) for i in range(20)}
    square = [[0.5] * 20] * 20
    found["terms"] = {name: {"value": 1.0, "weight": 1.0} for name in norms}
    module = {"norms": norms, "cosines": square, "conflicts": square}
    found["modules"] = {"all modules": module}
    (chart,) = re.findall("<svg.*?</svg>", gradients_page(tmp_path, found), re.DOTALL)
    assert all(f"term {i}<" in chart for i in range(20))


def test_no_string_of_gradients_becomes_markup(tmp_path):
    pages = {}
    for suffix in (HARMLESS, HOSTILE):
        found = with_suffix(found_gradients(), suffix)
        pages[suffix] = gradients_page(tmp_path, found)
    assert_is_text(pages)


def test_an_empty_value_is_a_dash(tmp_path, result):
    facts = {"authors": [], "notes": {}, "url": None, "split": {"by": ["speaker"]}}
    result["data"]["facts"] = facts
    result["runs"][0]["times"]["data_stall_fraction"] = None
    text = " ".join(Seen(written(tmp_path, result)).text.split())
    assert "authors – notes – url – split by: speaker" in text
    assert not re.search(r"\bNone\b|\bnan\b|\[\]|\{\}", text)


def test_a_step_that_was_not_timed_is_a_dash(tmp_path, result):
    times = StepTimer().summary()
    result["runs"][0]["times"] = to_json(times)
    text = " ".join(Seen(written(tmp_path, result)).text.split())
    assert "fold 0, seed 7 40 (epoch 2) 80 early – – – 0.0 ms 0" in text


def test_the_share_that_a_block_adds_is_shown(tmp_path, result):
    page = Seen(written(tmp_path, result)).text
    assert "cross-modal block adds" not in page
    logged = MetricsLine(80, "train", 3.0, {"loss": 1.0, "log/added/video": 0.327})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(logged.dumps())
    path = write_report(tmp_path, msgspec.convert(result, ExperimentResult))
    text = " ".join(Seen(path.read_text("utf-8")).text.split())
    assert "cross-modal block adds" in text and "video 33 %" in text


def test_a_small_test_split_has_a_note(tmp_path, result):
    assert "The test split has" not in written(tmp_path, result)
    result["data"]["counts"]["test"] = 12
    page = written(tmp_path, result)
    assert "The test split has 12 examples: one of them is 8.3 points" in page


def test_all_letters_of_charts_have_one_size(tmp_path, result):
    page = written(tmp_path, full(result, "regression"))
    page += gradients_page(tmp_path, found_gradients())
    charts = "".join(re.findall("<svg.*?</svg>", page, flags=re.DOTALL))
    sizes = set(re.findall(r"font(?:-size)?:[^;\"]*?([0-9.]+)px", charts))
    assert sizes == {"10"}


def test_a_template_may_not_misspell_a_value():
    with pytest.raises(jinja2.UndefinedError):
        TEMPLATES.from_string("{{ titel }}").render(title="")
    assert TEMPLATES.from_string("{{ a }}").render(a="<b>") == "&lt;b&gt;"


def test_modality_weights(tmp_path, result):
    assert "Modalities" not in written(tmp_path, result)
    result["summary"]["modality_weights"] = {
        "audio": spread(0.875, 2),
        HOSTILE: spread(0.125),
    }
    text = " ".join(Seen(written(tmp_path, result)).text.split())
    assert "it is not what a modality contributes" in text
    assert "audio 87.5 % ± 2.0 –" in text and "12.5 %" in text


def diagnosis(image: float, contrast: float, entropy: float) -> dict:
    term = {"value": 0.5, "weight": 1.0, "gradient": 1.0}
    return {
        "streams": {"audio": 0.25, "image": image},
        "terms": {
            "task": term,
            "contrast": term | {"value": contrast, "chance": 10.0},
            "entropy": term | {"gradient": entropy},
        },
        "without": {m: {**SCORES, "accuracy": 0.5} for m in ("audio", "image")},
    }


def test_parts_without_effect_are_named(tmp_path, result):
    """Each in a run of its own, with the threshold on either side."""
    run = result["runs"][0]
    run["diagnosis"] = diagnosis(0.0009, 9.79, 0.0011)
    second = copy.deepcopy(run) | {"seed": 8}
    second["diagnosis"] = diagnosis(0.0011, 9.81, 0.0009)
    second["stages"]["video"]["diagnosis"] = {"streams": {"video": 0.0}}
    result["runs"].append(second)
    text = " ".join(Seen(written(tmp_path, result)).text.split())
    for line in (
        "Stream “image” is the same for all examples (0.0009 of its energy differs) in "
        "1 of 2 runs.",
        "Loss term “contrast” is at its chance level (9.81, chance 10.00) in 1 of 2",
        "Loss term “entropy” has less than a thousandth of the gradient of the task "
        "(0.0009) in 1 of 2 runs.",
        "video only: Stream “video” is the same for all examples (0 of its energy",
        "stream differs audio 25 % image 0.1 %",
        "contrast 9.8 10 1 1 entropy 0.5 – 1 0.001",
        "audio – −25.0 points image – −25.0 points",
    ):
        assert line in text
    assert text.count("is the same for all examples") == 2
    assert text.count("chance level (") == text.count("a thousandth") == 1


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0004, "0.4 ms"),
        (0.07, "70 ms"),
        (9.51, "9.5 s"),
        (214, "3 min 34 s"),
        (7300, "2 h 1 min"),
        (float("nan"), "–"),
    ],
)
def test_times(seconds, said):
    assert formatting.seconds(seconds) == said


def test_a_metric_is_shown_in_its_unit():
    loss, mae, accuracy = (info.shown for info in (LOSS, MAE, ACCURACY))
    summary = MeanStd(0.5, 0.1, 3)
    assert formatting.score(loss, 0.25) == "0.250"
    assert formatting.mean_std(mae, summary) == "0.500 ± 0.100"
    assert formatting.mean_std(accuracy, summary) == "50.0 % ± 10.0"
    assert formatting.difference(mae, 0.25, 0.5) == "−0.250"
    assert formatting.difference(accuracy, 0.25, 0.5) == "−25.0 points"
    assert formatting.score(accuracy, None) == "not defined"


def test_a_metric_from_outside_is_shown_with_its_label_unit_and_direction(
    tmp_path, result
):
    error = {"audio": 2.0, "video": 3.0, "": 1.234}
    result["selection_metric"] = "rmse"
    result["metrics"]["rmse"] = to_json(RMSE.shown)
    result["baseline"]["scores"]["rmse"] = spread(4.0)
    summary, run = result["summary"], result["runs"][0]
    for stage, value in error.items():
        entry = run["stages"][stage] if stage else run
        found = summary["stages"][stage] if stage else summary
        for split in ("valid", "test", "last"):
            entry[split]["scores"]["rmse"] = value
        found["test"]["rmse"] = spread(value)
    summary["last"]["rmse"] = spread(1.5)
    text = " ".join(Seen(written(tmp_path, result)).text.split())
    assert "Test RMSE 1.234 (n = 400), −0.766 vs. audio only." in text
    assert "test RMSE (lower is better)" in text
    assert "2.000 audio only" in text
    assert RMSE.definition in text and "rmse" not in text and "123.4" not in text


def calibrated(folder, result: dict, kind: str, scale: float = 1.0) -> dict:
    """Writes the calibration of made-up predictions into the folder of every run."""
    result = full(result, kind)
    result["runs"][0]["folder"], result["runs"][1]["folder"] = "a", "b"
    classes = {"classification": {"classes": ["no", "yes"]}, "regression": {}}
    limits = (-3.0, 3.0) if kind == "regression" else None
    task = TaskInfo("joy", kind, range=limits, **classes[kind])  # pyright: ignore
    for seed, run in enumerate(result["runs"]):
        rng = np.random.default_rng(seed)
        parts = []
        for count in (100, 200):
            truth = rng.integers(0, 2, count)
            logits = np.eye(2)[truth] + rng.normal(0, 1, (count, 2))
            scores = {"truth": truth, "prediction": truth + rng.normal(0, 1, count)}
            plain = {"truth": truth, "prediction": 5 * scale * logits}
            parts.append(scores if kind == "regression" else plain)
        (folder / run["folder"]).mkdir(exist_ok=True)
        found = calibrate(task, *parts)
        write_json(folder / run["folder"] / CALIBRATION_FILE, found)
    return result


def test_calibration_of_classes(tmp_path, result):
    result = calibrated(tmp_path, result, "classification")
    page = written(tmp_path, result)
    text = " ".join(Seen(page).text.split())
    assert (
        "<h2>Calibration</h2>" in page and "the 200 test examples, mean over 2" in text
    )
    found = [read_calibration(tmp_path / run["folder"]) for run in result["runs"]]
    tests = [one.test for one in found if one and one.test]
    before, after = (
        [getattr(t, n) for t in tests] for n in ("ece_uncalibrated", "ece")
    )
    # The logits are five times too large.
    assert np.mean(before) > 2 * np.mean(after)
    assert f"of the model {100 * np.mean(before):.1f} %" in text
    assert f"calibrated {100 * np.mean(after):.1f} %" in text
    assert f"± {100 * np.std(after, ddof=1):.1f} " in text
    for i, nominal in enumerate(("80.0", "90.0", "95.0")):
        measured = np.mean([t.coverage[i].measured for t in tests])
        size = np.mean([t.coverage[i].size for t in tests])
        assert f"{nominal} % {100 * measured:.1f} %" in text and f"{size:.3f}" in text
    assert "It is fitted to 100 validation examples" in text
    assert (
        'aria-label="accuracy of predictions of this confidence: of the model' in page
    )


def test_calibration_of_scores(tmp_path, result):
    page = written(tmp_path, calibrated(tmp_path, result, "regression"))
    text = " ".join(Seen(page).text.split())
    assert "The interval around a predicted score" in text and "mean width" in text
    assert "Expected calibration error" not in text and "confidence:" not in page


def test_runs_without_calibration_show_none(tmp_path, result):
    assert "Calibration" not in written(tmp_path, result)


def test_files_of_a_run_are_listed(tmp_path, result):
    (tmp_path / "predictions.csv").touch()
    result["runs"][0]["folder"] = "."
    text = " ".join(Seen(written(tmp_path, result)).text.split())
    assert "predictions.csv label, prediction and probabilities of every" in text
    assert "calibration.json" not in text
