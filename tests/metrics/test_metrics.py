"""Metrics against the published scripts and by hand, and what is known of them."""

import pkgutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from mmfusion_jax.data.dataset import RegressionTarget
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.metrics import (
    METRIC_FAMILIES,
    METRICS,
    as_published,
    functional,
    score_info,
)
from mmfusion_jax.metrics.classification import ClassificationMetrics
from mmfusion_jax.metrics.integration_score import (
    IntegrationMetrics,
    IntegrationScoreSpec,
)
from mmfusion_jax.metrics.multilabel import MultilabelMetrics
from mmfusion_jax.metrics.nonfinite import compute_scores
from mmfusion_jax.metrics.regression import CORR, RMSE, RegressionMetrics
from mmfusion_jax.metrics.score_info import LOSS, ScoreInfo
from mmfusion_jax.metrics.sentiment import SentimentMetrics
from mmfusion_jax.metrics.sims import SimsMetrics
from mmfusion_jax.report import formatting
from mmfusion_jax.results.experiment_result import MetricInfo
from mmfusion_jax.results.model_result import NotFinite
from mmfusion_jax.results.rounding import format_number, format_percent
from mmfusion_jax.tasks import (
    Classification,
    Multilabel,
    Regression,
    constant_baseline_scores,
)

NUMBERS = ("reg_plain", "reg_mosi_like", "reg_const")
MMSA = {
    "Has0_acc_2": "acc2_has0",
    "Has0_F1_score": "f1_has0",
    "Non0_acc_2": "acc2_non0",
    "Non0_F1_score": "f1_non0",
    "Mult_acc_5": "acc5",
    "Mult_acc_7": "acc7",
    "MAE": "mae",
    "Corr": "corr",
}
SAME = {name: name for name in SentimentMetrics.infos}
UNROUNDED = SAME | {
    "f1_non0_swapped": "f1_swapped_non0",
    "acc2_gt0_all": "acc2_mult_all",
}
MULT = {name: name for name in ("mae", "corr", "acc7", "acc5")}
MULT_SOME = MULT | {"f1_argswapped": "f1_swapped_non0", "acc2": "acc2_non0"}
DMD = {"Acc_2": "acc2_non0", "F1_score": "f1_non0", "Acc_7": "acc7", "MAE": "mae"}
MISA = SAME | {"f1_proper_non0": "f1_non0"}
MCL = SAME | {"f1_non0_4dp": "f1_non0", "acc2_non0_4dp": "acc2_non0"}
# Function of the golden file -> its names of our scores, and its absolute tolerance.
FUNCTIONS = {
    "mmsa_mosi": (MMSA, 5.1e-5),
    "mmsa_mosei": (MMSA, 5.1e-5),
    "selfmm_mosi": (MMSA, 5.1e-5),
    "dmd_mosi": (DMD, 5.1e-5),
    "mult_exclude_zero_True": (MULT_SOME, 0),
    "mult_exclude_zero_False": (MULT | {"acc2": "acc2_mult_all"}, 0),
    "misa": (MISA, 0),
    "mcl_mcf": (MCL, 5.1e-5),
    "multibench_affect": (SAME, 0),
    "unrounded": (UNROUNDED, 0),
}
# What the golden file has and we do not: how many labels are not 0, another step.
LEFT_OUT = {"n_nonzero", "acc3", "f1_argswapped"}
SIMS = {
    "Mult_acc_2": "acc2",
    "Mult_acc_3": "acc3",
    "Mult_acc_5": "acc5",
    "F1_score": "f1",
    "MAE": "mae",
    "Corr": "corr",
}


@pytest.fixture(scope="module")
def arrays(golden):
    return np.load(golden / "golden_metrics.npz", allow_pickle=False)


def sentiment_scores(y_pred, y_true):
    return SentimentMetrics("y").scores({"prediction": y_pred, "truth": y_true})


def sims_scores(y_pred, y_true):
    return SimsMetrics("y").scores({"prediction": y_pred, "truth": y_true})


def reference(arrays, case, function):
    keys, values = (arrays[f"{case}/{function}/{part}"] for part in ("keys", "values"))
    return dict(zip(keys.tolist(), values.tolist(), strict=True))


def compare(found, want, names, atol):
    assert set(want) - set(names) <= LEFT_OUT
    for name in set(want) & set(names):
        got = found[names[name]]
        if np.isnan(want[name]):  # a constant answer
            assert names[name] == "corr" and np.isnan(got)
        else:
            np.testing.assert_allclose(got, want[name], rtol=1e-6, atol=atol)


@pytest.mark.parametrize("case", NUMBERS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_sentiment(arrays, case, function):
    found = sentiment_scores(arrays[f"{case}/preds"], arrays[f"{case}/truths"])
    compare(found, reference(arrays, case, function), *FUNCTIONS[function])


@pytest.mark.parametrize("case", NUMBERS)
def test_mult_swaps_f1_on_all_examples(arrays, case):
    said, truth = arrays[f"{case}/preds"] > 0, arrays[f"{case}/truths"] > 0
    want = reference(arrays, case, "mult_exclude_zero_False")["f1_argswapped"]
    np.testing.assert_allclose(as_published.f1_swapped(said, truth), want, rtol=1e-6)


@pytest.mark.parametrize(
    "function, names, atol",
    [
        ("mmsa_sims", SIMS, 5.1e-5),
        ("selfmm_sims", SIMS, 0),
        ("independent_digitize", {name: name for name in SimsMetrics.infos}, 0),
    ],
)
def test_sims(arrays, function, names, atol):
    found = sims_scores(arrays["reg_sims/preds"], arrays["reg_sims/truths"])
    compare(found, reference(arrays, "reg_sims", function), names, atol)


def test_mmsa_rounds_what_it_keeps(arrays):
    found = sentiment_scores(
        arrays["reg_mosi_like/preds"], arrays["reg_mosi_like/truths"]
    )
    want = reference(arrays, "reg_mosi_like", "mmsa_mosi")
    assert {k: round(found[v], 4) for k, v in MMSA.items()} == want


def test_mmsa_classification(arrays):
    logits, truth = arrays["cls3/logits"], arrays["cls3/labels"]
    want = reference(arrays, "cls3", "mmsa")
    said, either = logits.argmax(-1), logits[:, [0, 2]].argmax(-1)
    collected = {"prediction": logits, "truth": truth}
    found = {
        "Acc_3": ClassificationMetrics("y", 3).scores(collected)["accuracy"],
        "F1_score_3": functional.weighted_f1(said, truth),
        "Has0_acc_2": functional.accuracy(either, truth > 1),
        "Has0_F1_score": functional.weighted_f1(either, truth > 1),
    }
    without = {"Non0_acc_2", "Non0_F1_score"}  # no positive is ever right there
    assert found.keys() == want.keys() - without
    assert all(round(found[name], 4) == want[name] for name in found)


def test_emotions_of_iemocap(arrays):
    names = ("neutral", "happy", "sad", "angry")
    logits, truth = arrays["iemocap/preds"], arrays["iemocap/truths"]
    collected = {"prediction": logits.reshape(len(logits), 8), "truth": truth}
    found = MultilabelMetrics("y", names).scores(collected)
    for key, value in reference(arrays, "iemocap", "mult").items():
        name = key.replace("_acc", "_accuracy")
        np.testing.assert_allclose(found[name], value, rtol=1e-6)
    happy = reference(arrays, "iemocap", "mult_single_happy")
    np.testing.assert_allclose(found["happy_f1"], happy["f1"], rtol=1e-6)
    np.testing.assert_allclose(found["happy_accuracy"], happy["acc"], rtol=1e-6)
    mean = np.mean([found[f"{name}_f1"] for name in names])
    np.testing.assert_allclose(found["f1"], mean)


def test_weighted_accuracy_by_hand():
    assert functional.weighted_accuracy([1, -1, 2, -2], [1, 1, -1, -1]) == 0.5
    assert functional.weighted_accuracy([1, 1, 1, 0], [2, 1, 3, 0]) == 1.0


def test_a_constant_has_no_correlation():
    said, truth = np.full(50, 0.1, np.float32), np.linspace(-1, 1, 50)
    for p, t in ((said, truth), (truth, said)):
        assert np.isnan(functional.corr(p, t))
    np.testing.assert_allclose(functional.corr(truth, -3 * truth), -1, rtol=1e-6)


def test_what_the_labels_do_not_define_is_not_a_score():
    """Never 0, which would be the score of a model that is always wrong."""
    nothing = np.zeros(0)
    assert np.isnan(functional.accuracy(nothing, nothing))
    assert np.isnan(functional.weighted_f1(nothing, nothing))
    assert np.isnan(functional.corr(nothing, nothing))
    assert np.isnan(functional.weighted_accuracy([1, -1], [2, 2]))
    neutral = {"prediction": np.array([0.5, -1.0]), "truth": np.zeros(2)}
    scores = SentimentMetrics("y").scores(neutral)
    undefined = {name for name, value in scores.items() if np.isnan(value)}
    assert undefined == {
        *("corr", "acc2_non0", "f1_non0", "weighted_accuracy", "f1_swapped_non0"),
    }
    assert formatting.score(CORR.shown, scores["corr"]) == "not defined"
    assert format_number(scores["acc2_non0"]) == "not defined"


def test_halves_round_to_even_and_edges_belong_below():
    found = sentiment_scores([0.5, 1.5, 2.5, 9.0], [0.0, 2.0, 2.0, 3.0])
    assert found["acc7"] == 1
    edges = np.float32([-0.7, -0.1, 0.0, 0.1, 0.7])
    below = sims_scores(edges, np.float32([-1, -0.5, -0.05, 0.05, 0.5]))
    assert below["acc5"] == 1


def test_classes_that_do_not_occur_are_not_averaged():
    truth, said = np.array([0, 0, 1, 1]), np.eye(4)[[0, 0, 1, 2]]
    found = ClassificationMetrics("y", 4).scores({"prediction": said, "truth": truth})
    want = {"macro_recall": 3 / 4, "macro_precision": 1, "macro_f1": 5 / 6}
    for name, value in want.items():
        np.testing.assert_allclose(found[name], value)
        definition = ClassificationMetrics.infos[name].definition
        assert "over classes that occur" in definition
    assert found["uar"] == found["macro_recall"] and found["accuracy"] == 3 / 4


def test_macro_averages_over_all_classes_are_those_of_the_equations():
    truth, said = np.array([0, 0, 1, 1]), np.eye(4)[[0, 0, 1, 2]]
    collected = {"prediction": said, "truth": truth}
    scores = {}
    for c in range(4):  # Eq. 18, 20, 22 with 0 / 0 = 0
        hits = np.sum((truth == c) & (said.argmax(1) == c))
        p = hits / max(np.sum(said.argmax(1) == c), 1)
        r = hits / max(np.sum(truth == c), 1)
        scores[c] = p, r, 2 * p * r / max(p + r, 1e-9)
    want = np.mean(list(scores.values()), axis=0)
    assert want[1] == pytest.approx(1.5 / 4)  # not 1.5 / 2, as two do not occur
    for name, value in zip(("precision", "recall", "f1"), want, strict=True):
        info = pkgutil.resolve_name(METRICS[f"macro_{name}_all_classes"])
        assert info.name == f"macro_{name}_all_classes"
        assert info.compute(collected) == pytest.approx(value)
    with pytest.raises(ValueError, match="not those of class labels"):
        info.compute({"prediction": np.ones(4), "truth": np.ones(4)})


def test_only_neutral_labels_leave_nothing_to_count():
    found = sentiment_scores([0.3, -0.2], [0.0, 0.0])
    assert np.isnan([found["acc2_non0"], found["f1_non0"]]).all()
    assert found["acc2_has0"] == 0.5


def one_hot(classes, confidence):
    return confidence * np.eye(3)[classes]


def unimodal(*classes):
    """Logits of two modalities, (n 2 3), and their presence."""
    return {
        "alone": np.stack([one_hot(c, 3) for c in classes], axis=1),
        "present": np.ones((len(classes[0]), 2), bool),
    }


CLASSES = np.array([0, 0, 1, 1, 2, 2])
BETTER, WORSE = np.array([0, 0, 1, 1, 2, 0]), np.array([1, 2, 1, 0, 0, 0])
CLASSIFIED = [
    {"prediction": one_hot(BETTER, 4), "truth": CLASSES, **unimodal(BETTER, BETTER)},
    {"prediction": one_hot(WORSE, 1), "truth": CLASSES, **unimodal(BETTER, BETTER)},
]
VALUES = np.float32([-0.9, -0.5, -0.3, 0.0, 0.1, 0.4, 0.6, 1.0])
MEASURED = [
    {"prediction": 3 * VALUES + 0.01, "truth": 3 * VALUES},
    {"prediction": np.float32([2, 1, -1.4, -1, -2, -1, 1, -2]), "truth": 3 * VALUES},
]
FLAGS = np.array([[0, 1], [1, 0], [1, 1], [0, 0]])
FLAGGED = [
    {"prediction": np.eye(2)[flags].reshape(4, 4), "truth": FLAGS}
    for flags in (FLAGS, 1 - FLAGS)
]
PLAIN = ClassificationMetrics("y", 3)
# Family -> the metrics, and predictions of which the first are better by all of them.
FAMILIES = {
    "classification": (PLAIN, *CLASSIFIED),
    "integration": (
        IntegrationMetrics(PLAIN, IntegrationScoreSpec(("audio", "text"))),
        *CLASSIFIED,
    ),
    "multilabel": (MultilabelMetrics("y", ("happy", "sad")), *FLAGGED),
    "plain": (RegressionMetrics("y", 0.25), *MEASURED),
    "sentiment": (SentimentMetrics("y"), *MEASURED),
    "sims": (
        SimsMetrics("y"),
        *({k: v / np.float32(3) for k, v in each.items()} for each in MEASURED),
    ),
}


@pytest.mark.parametrize("name", METRIC_FAMILIES)
def test_a_family_describes_what_it_computes(name):
    family, collected, _ = FAMILIES[name]
    assert isinstance(family, pkgutil.resolve_name(METRIC_FAMILIES[name]))
    found = family.scores(collected)
    assert list(found) == list(family.infos)
    for key, info in family.infos.items():
        assert info.name == key
        assert found[key] == info.formula(collected)
        assert info.definition.endswith(".") and "_" not in info.label
    assert any(info.headline for info in family.infos.values())
    assert len({info.label for info in family.infos.values()}) == len(found)


@pytest.mark.parametrize("name", METRIC_FAMILIES)
def test_the_direction_of_a_metric_is_right(name):
    family, better, worse = FAMILIES[name]
    found = [family.scores(collected) for collected in (better, worse)]
    for key, info in family.infos.items():
        more = found[0][key] > found[1][key]
        assert found[0][key] != found[1][key], key
        assert more == info.higher_is_better, key


@pytest.mark.parametrize("name", METRIC_FAMILIES)
def test_percentages_are_fractions(name):
    family, *predictions = FAMILIES[name]
    for collected in predictions:
        for key, value in family.scores(collected).items():
            assert family.infos[key].unit == "" or 0 <= value <= 1, key


@pytest.mark.parametrize(
    "family", [SentimentMetrics("y"), SimsMetrics("y"), RegressionMetrics("y", 0.25)]
)
def test_the_best_value_of_a_metric_is_0_or_1(family):
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1, 1, 20).astype(np.float32)
    found = family.scores({"prediction": truth, "truth": truth})
    for name, value in found.items():
        best = 1 if family.infos[name].higher_is_better else 0
        np.testing.assert_allclose(value, best, rtol=1e-6)


def test_a_family_of_a_label_is_that_of_its_target():
    target = RegressionTarget(-1, 1, 0.25, "plain")
    assert Regression("y", target).metrics() == RegressionMetrics("y", 0.25)
    sims = RegressionTarget(-1, 1, family="sims")
    assert Regression("y", sims).metrics() == SimsMetrics("y")
    own = RegressionTarget(-1, 1, family=METRIC_FAMILIES["sentiment"])
    assert Regression("y", own).metrics() == SentimentMetrics("y")
    with pytest.raises(ConfigError, match="'sim', which is unknown; .*'sims'"):
        Regression("y", RegressionTarget(-1, 1, family="sim"))


SCORED = Regression("y", RegressionTarget(-3, 3, family="sentiment"), (RMSE,))


def test_an_extra_metric_is_one_of_the_label():
    assert METRICS["rmse"].split(":")[1] == "RMSE"
    assert pkgutil.resolve_name(METRICS["rmse"]) is RMSE
    metrics = SCORED.metrics()
    assert list(metrics.infos) == [*SentimentMetrics.infos, "rmse"]
    collected = {"prediction": np.float32([2, -1]), "truth": np.float32([1, -3])}
    found = compute_scores(metrics, collected, 0.5).scores
    assert list(found) == [*metrics.infos, "loss"] and found["loss"] == 0.5
    assert found["rmse"] == pytest.approx(2.5**0.5)
    assert found["mae"] == SentimentMetrics("y").scores(collected)["mae"]
    bad = {**collected, "prediction": np.full(2, np.nan)}
    undefined = compute_scores(metrics, bad, 0.5)
    assert undefined.scores["rmse"] is not None
    assert np.isnan(undefined.scores["rmse"]) and undefined.scores["loss"] == 0.5
    assert undefined.not_finite == NotFinite(count=2, of=2, examples=[0, 1])
    baseline = constant_baseline_scores(SCORED, np.ones(3), np.float32([1, 3]))
    assert baseline.scores["rmse"] == pytest.approx(2**0.5)


def test_an_extra_metric_is_shown_with_its_label_and_unit():
    info = SCORED.metrics().infos["rmse"]
    assert not info.higher_is_better
    shown = info.shown
    assert shown == MetricInfo("RMSE", info.definition, "", higher_is_better=False)
    assert formatting.score(shown, 1.234) == "1.234"
    assert formatting.difference(shown, 1.0, 1.5) == "−0.500"
    share = ScoreInfo("top_half", lambda collected: 0.5, "One half.")
    assert share.label == "top half" and share.higher_is_better
    assert formatting.score(share.shown, 0.5) == "50.0 %"
    with pytest.raises(ValueError, match="unit='%' must be '' or 'percent'"):
        ScoreInfo("x", lambda collected: 0.5, "One half.", unit="%")  # pyright: ignore[reportArgumentType]


def test_an_extra_metric_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="'rmse' cannot be .* 4 predicted values"):
        Classification("y", ("no", "yes"), extra_metrics=(RMSE,))
    unimodal = ScoreInfo("u", lambda c: c["alone"].mean(), "Mean.", needs=("alone",))
    with pytest.raises(ConfigError, match="'u' cannot be computed.*KeyError: 'alone'"):
        Multilabel("y", ("happy",), extra_metrics=(unimodal,))
    integration = IntegrationScoreSpec(("audio", "text"))
    assert Classification("y", ("no", "yes"), integration, (unimodal,))
    for name in ("rmse", "acc7", "loss"):
        other = ScoreInfo(name, RMSE.formula, "Another one.")
        with pytest.raises(ConfigError, match=f"adds '{name}', but label 'y' already"):
            Regression("y", SCORED.target, (RMSE, other))


def test_the_loss_is_reported_beside_the_metrics():
    found = score_info.with_loss(SentimentMetrics.infos)
    assert list(found) == [*SentimentMetrics.infos, "loss"]
    assert found["loss"] is LOSS and not LOSS.higher_is_better
    assert formatting.score(LOSS.shown, 0.25) == "0.250"


def test_what_a_metric_is_can_be_read_without_jax():
    code = (
        "import sys, mmfusion_jax.metrics.score_info; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_constant_baseline_is_described():
    classes = Classification("y", ("calm", "happy"))
    assert (
        classes.constant_baseline(np.array([0, 1, 1]))[0] == "majority class: “happy”"
    )
    median = SCORED.constant_baseline(np.float32([-1, 0.2, 3]))[0]
    assert median == "training median: 0.20"
    flags = Multilabel("y", ("happy", "sad"))
    assert flags.constant_baseline(FLAGS)[0] == "majority answer of each flag"


@pytest.mark.parametrize(
    ("value", "text", "in_percent"),
    [
        (0.9075, "0.908", "90.8"),
        (0.0005, "0.001", "0.1"),
        (0.90749, "0.907", "90.7"),
        (-0.0125, "-0.013", "-1.3"),
        (1.0, "1.000", "100.0"),
        (-1e-12, "0.000", "0.0"),
        (float("nan"), "not defined", "not defined"),
        (float("inf"), "inf", "inf"),
        (1e30, "1" + 30 * "0" + ".000", "1" + 32 * "0" + ".0"),
        (0.9075 - 0.775, "0.133", "13.3"),
        ((0.75 + 0.945) / 2, "0.848", "84.8"),
    ],
)
def test_scores_are_rounded_alike_as_shares_and_in_percent(value, text, in_percent):
    assert (format_number(value), format_percent(value)) == (text, in_percent)


def test_means_over_classes_are_those_of_scikit_learn():
    rng = np.random.default_rng(5)
    for _ in range(50):
        n, k = rng.integers(1, 30), rng.integers(2, 6)
        y_true, logits = rng.integers(0, k, n), rng.normal(size=(n, k))
        y_pred = logits.argmax(-1)
        found = ClassificationMetrics("x", int(k)).scores(
            {"prediction": logits, "truth": y_true}
        )
        options: Any = {"zero_division": 0}
        want = sk.precision_recall_fscore_support(
            y_true, y_pred, labels=np.unique(y_true), average="macro", **options
        )[:3]
        names = ("macro_precision", "macro_recall", "macro_f1")
        assert [found[name] for name in names] == pytest.approx(want, rel=1e-14)
        weighted = sk.f1_score(y_true, y_pred, average="weighted", **options)
        assert functional.weighted_f1(y_pred, y_true) == pytest.approx(weighted)
        for other in (lambda x: x - 3, lambda x: x / 2, lambda x: x + 10**9):
            same = functional.weighted_f1(other(y_pred), other(y_true))
            assert same == pytest.approx(weighted)
