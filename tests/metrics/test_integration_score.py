"""The Multimodal Integration Score beside reference values and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.metrics.classification import ClassificationMetrics
from mmfusion_jax.metrics.integration_score import (
    IntegrationMetrics,
    IntegrationScoreSpec,
    mis,
)
from mmfusion_jax.tasks import Classification, constant_baseline_scores
from mmfusion_jax.types import Batch, Outputs


def test_the_reference(golden):
    arrays = np.load(golden / "golden_metrics.npz", allow_pickle=False)
    keys, values = arrays["mis/ref/keys"].tolist(), arrays["mis/ref/values"].tolist()
    want = dict(zip(keys, values, strict=True))
    data = [arrays[f"mis/{name}"] for name in ("p_fused", "p_modal", "labels")]
    hard, soft, entropy = mis(*data), mis(*data, soft=True), mis(*data, entropy=True)
    for name in ("consistency", "confidence", "accuracy", "mis"):
        np.testing.assert_allclose(hard[name], want[name], rtol=1e-6)
    np.testing.assert_allclose(soft["consistency"], want["consistency_soft"], rtol=1e-6)
    np.testing.assert_allclose(soft["mis"], want["mis_soft"], rtol=1e-6)
    np.testing.assert_allclose(
        entropy["confidence"], want["confidence_entropy"], rtol=1e-6
    )


def test_a_missing_modality_is_ignored():
    fused = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    other = np.full((2, 3), np.nan)
    present = np.array([[True, True], [False, False]])
    for soft in (False, True):
        found = mis(fused, [fused, other], [0, 1], present=present, soft=soft)
        np.testing.assert_allclose(found["consistency"], 1)
    np.testing.assert_allclose(found["confidence"], 0.55)
    np.testing.assert_allclose(found["mis"], 0.3 + 0.3 * 0.55 + 0.4 * 0.5)


def test_weights_must_add_up():
    with pytest.raises(ValueError, match=r"add up to 1.2, not to 1"):
        mis(np.eye(2), [np.eye(2)], [0, 1], weights=(0.4, 0.4, 0.4))


INTEGRATION = IntegrationScoreSpec(("audio", "text"))
SCORES = Classification("label", ("a", "b", "c"), INTEGRATION).metrics()


def collected(golden):
    arrays = np.load(golden / "golden_metrics.npz", allow_pickle=False)
    logits = {k: np.log(arrays[f"mis/{k}"]) for k in ("p_fused", "p_modal")}
    return {
        "prediction": logits["p_fused"],
        "truth": arrays["mis/labels"],
        "alone": np.swapaxes(logits["p_modal"], 0, 1),
        "present": np.ones((64, 4), bool),
    }


def test_the_family_beside_the_reference(golden):
    arrays = np.load(golden / "golden_metrics.npz", allow_pickle=False)
    keys, values = arrays["mis/ref/keys"].tolist(), arrays["mis/ref/values"].tolist()
    want = dict(zip(keys, values, strict=True))
    plain = ClassificationMetrics("label", 7)
    score = lambda **how: IntegrationMetrics(
        plain, IntegrationScoreSpec(tuple("TIAV"), **how)
    )
    got = score().scores(collected(golden))
    for name in ("mis", *got.keys() & want.keys()):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6, err_msg=name)
    soft = score(consistency="soft").scores(collected(golden))
    np.testing.assert_allclose(soft["mis"], want["mis_soft"], rtol=1e-6)
    other = score(weights=(0, 1, 0), confidence="entropy").scores(collected(golden))
    np.testing.assert_allclose(other["mis"], want["confidence_entropy"], rtol=1e-6)


def test_definitions_are_exact_and_complete(golden):
    score = IntegrationMetrics(
        ClassificationMetrics("label", 7),
        IntegrationScoreSpec(tuple("TIAV"), (0.5, 0.2, 0.3), "soft", "entropy"),
    )
    assert list(score.infos) == list(score.scores(collected(golden)))
    assert score.infos["mis"].definition.endswith(
        "0.5 consistency_soft + 0.2 confidence_entropy + 0.3 accuracy."
    )


def test_collecting_from_a_model():
    masks = {"audio": jnp.array([[True], [False]]), "text": jnp.ones((2, 1), bool)}
    batch = Batch({}, masks, {"label": jnp.array([0, 1])}, jnp.ones(2))
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]))
    extras = {"logits/audio": logits[::-1], "logits/text": logits}
    got = jax.device_get(SCORES.collect(Outputs(logits, extras), batch))
    found = SCORES.scores(got)
    np.testing.assert_allclose(found["consistency"], 2 / 3)  # the second has no sound
    np.testing.assert_allclose(found["confidence"], (0.55 + 0.7) / 2, rtol=1e-6)
    np.testing.assert_allclose(found["mis"], 0.2 + 0.3 * 0.625 + 0.4, rtol=1e-6)


def test_the_constant_baseline_has_no_mis():
    truth = np.array([0, 0, 1])
    task = Classification("label", ("a", "b", "c"), INTEGRATION)
    scores = constant_baseline_scores(task, truth, truth).scores
    assert "mis" not in scores and scores["accuracy"] == 2 / 3


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(ConfigError, match=r"weights=\(0.4, 0.4, 0.4\) must be"):
        IntegrationScoreSpec(("audio",), (0.4, 0.4, 0.4))
    with pytest.raises(ConfigError, match=r"consistency='weak' is unknown"):
        IntegrationScoreSpec(("audio",), consistency="weak")
    batch = Batch({}, {}, {"label": jnp.array([0])}, jnp.ones(1))
    with pytest.raises(ConfigError, match="unimodal predictions of audio, text"):
        SCORES.collect(Outputs(jnp.zeros((1, 3))), batch)
