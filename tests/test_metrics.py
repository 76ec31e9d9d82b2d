"""Scores beside the published scripts, by hand, and where they are undefined."""

import numpy as np
import pytest

from mmfusion_jax.metrics import as_published, functional
from mmfusion_jax.metrics.classification import ClassificationMetrics
from mmfusion_jax.metrics.multilabel import MultilabelMetrics
from mmfusion_jax.metrics.regression import RegressionMetrics
from mmfusion_jax.metrics.rounding import format_number, format_percent
from mmfusion_jax.metrics.sentiment import SentimentMetrics, sentiment_scores
from mmfusion_jax.metrics.sims import SimsMetrics, sims_scores

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
SAME = {name: name for name in SentimentMetrics.DEFINITIONS}
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


def reference(arrays, case, function):
    keys, values = (arrays[f"{case}/{function}/{part}"] for part in ("keys", "values"))
    return dict(zip(keys.tolist(), values.tolist(), strict=True))


def compare(found, want, names, atol):
    assert set(want) - set(names) <= LEFT_OUT
    for name in set(want) & set(names):
        got = found[names[name]]
        if np.isnan(want[name]):  # a constant answer: undefined there, 0 here
            assert names[name] == "corr" and got == 0
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
        ("independent_digitize", {name: name for name in SimsMetrics.DEFINITIONS}, 0),
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
    assert {k: as_published.rounded4(found)[v] for k, v in MMSA.items()} == want


def test_mmsa_classification(arrays):
    logits, truth = arrays["cls3/logits"], arrays["cls3/labels"]
    want = reference(arrays, "cls3", "mmsa")
    said, either = logits.argmax(-1), logits[:, [0, 2]].argmax(-1)
    collected = {"prediction": logits, "truth": truth}
    non0 = as_published.mmsa_classification_non0(logits, truth)
    found = {
        "Acc_3": ClassificationMetrics("y", 3).scores(collected)["accuracy"],
        "F1_score_3": functional.weighted_f1(said, truth),
        "Has0_acc_2": functional.accuracy(either, truth > 1),
        "Has0_F1_score": functional.weighted_f1(either, truth > 1),
        "Non0_acc_2": non0["accuracy"],
        "Non0_F1_score": non0["f1"],
    }
    assert as_published.rounded4(found) == want


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
        assert functional.corr(p, t) == 0
        assert np.isnan(functional.corr(p, t, nan_corr=True))
    np.testing.assert_allclose(functional.corr(truth, -3 * truth), -1, rtol=1e-6)


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
        assert "over classes that occur" in ClassificationMetrics.DEFINITIONS[name]
    assert found["uar"] == found["macro_recall"] and found["accuracy"] == 3 / 4


def test_only_neutral_labels_leave_nothing_to_count():
    found = sentiment_scores([0.3, -0.2], [0.0, 0.0])
    assert found["acc2_non0"] == found["f1_non0"] == found["f1_swapped_non0"] == 0
    assert all(np.isfinite(v) for v in found.values())


@pytest.mark.parametrize(
    "family", [SentimentMetrics("y"), SimsMetrics("y"), RegressionMetrics("y", 0.25)]
)
def test_scores_are_those_that_are_defined(family):
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1, 1, 20).astype(np.float32)
    found = family.scores({"prediction": truth, "truth": truth})
    assert set(found) == set(family.DEFINITIONS)
    for name, value in found.items():
        np.testing.assert_allclose(value, 0 if name == "mae" else 1, rtol=1e-6)


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
