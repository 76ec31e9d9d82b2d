"""The contrastive loss between modalities, redone with loops, and its chance level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loaded_tables import LOSSES

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.ops.contrastive import POSITIVES
from mmfusion_jax.types import Batch, Outputs

NAMES = ("a", "b", "c", "d")
TAU = 0.3
ROWS = 7


@pytest.fixture(scope="module")
def views():
    """Vectors (m b d), NaN where a modality is missing, and which ones are present."""
    rng = np.random.default_rng(0)
    present = rng.random((len(NAMES), ROWS)) < 0.6
    # An example with everything, with one modality, with nothing, and a padding row.
    present[:, 0], present[:, 1], present[:, 2] = True, [False, True, False, False], 0
    x = rng.normal(size=(len(NAMES), ROWS, 5)).astype(np.float32)
    x[~present] = np.nan
    x[:, -1], present[:, -1] = np.nan, False
    return x, present


def batch(present):
    masks = {m: present[i][:, None] for i, m in enumerate(NAMES)}
    masks = {
        m: mask | (np.arange(ROWS) == ROWS - 1)[:, None] for m, mask in masks.items()
    }
    weight = np.ones(ROWS, np.float32)
    weight[-1] = 0  # the masks of the padding row are True
    return Batch({}, masks, {}, weight)


def outputs(x):
    return Outputs(
        jnp.zeros((ROWS, 2)), {f"pooled/{m}": x[i] for i, m in enumerate(NAMES)}
    )


def cosine(u, v):
    return u @ v / np.linalg.norm(u) / np.linalg.norm(v)


def negative_log_softmax(scores, positive):
    """Of the positive among the candidates, whose scores are given by name."""
    return (
        np.log(sum(np.exp(s / TAU) for s in scores.values())) - scores[positive] / TAU
    )


def by_batch(x, present, similarity):
    """For each partner, the candidates are that modality of every example with it."""
    values = np.zeros(ROWS)
    for n, i in np.ndindex(ROWS, len(NAMES)):
        if not present[i, n]:
            continue
        losses = []
        for j in range(len(NAMES)):
            if j != i and present[j, n]:
                others = np.flatnonzero(present[j])
                scores = {q: similarity(x[i, n], x[j, q]) for q in others}
                losses.append(negative_log_softmax(scores, n))
        values[n] += np.mean(losses) if losses else 0
    return values


def by_sample(x, present, similarity):
    """The partner is the next modality; the candidates are those of the example."""
    values = np.zeros(ROWS)
    for n, i in np.ndindex(ROWS, len(NAMES)):
        j = (i + 1) % len(NAMES)
        if present[i, n] and present[j, n]:
            others = [k for k in np.flatnonzero(present[:, n]) if k != i]
            scores = {k: similarity(x[i, n], x[k, n]) for k in others}
            values[n] += negative_log_softmax(scores, j)
    return values


LOOPS = {"batch": by_batch, "same_sample": by_sample}


@pytest.mark.parametrize("negatives", LOOPS)
def test_loops_with_missing_modalities(views, negatives):
    x, present = views
    term = LOSSES["modality_contrast"](NAMES, TAU, negatives)
    value = lambda x: term(outputs(x), batch(present))
    want = LOOPS[negatives](x, present, cosine)
    np.testing.assert_allclose(value(x), want, rtol=1e-5, atol=1e-6)
    assert want[0] > 0 and want[1] == want[2] == want[-1] == 0
    grad = jax.grad(lambda x: jnp.sum(value(x)))(jnp.asarray(x))
    assert np.isfinite(grad).all() and not np.any(grad[~present])


@pytest.mark.parametrize("negatives", LOOPS)
def test_chance_level(views, negatives):
    """It is the loss of candidates that are all the same."""
    x, present = views
    term = LOSSES["modality_contrast"](NAMES, TAU, negatives)
    got = term.chance_level(outputs(x), batch(present))
    want = LOOPS[negatives](x, present, lambda u, v: 0.0)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    same = outputs(np.ones((len(NAMES), ROWS, 3), np.float32))
    np.testing.assert_allclose(term(same, batch(present)), want, rtol=1e-4, atol=1e-5)


def test_chance_level_of_a_full_batch():
    everything = np.ones((len(NAMES), ROWS), bool)
    term = LOSSES["modality_contrast"](NAMES)
    got = term.chance_level(outputs(np.ones((4, ROWS, 3))), batch(everything))
    np.testing.assert_allclose(got[:-1], len(NAMES) * np.log(ROWS - 1), rtol=1e-6)


@pytest.mark.parametrize("positives", POSITIVES)
def test_chance_level_of_info_nce(positives):
    """The number of candidates depends on positives, valid rows and padding."""
    x = np.full((ROWS, 3), 3**-0.5, np.float32)
    valid = np.arange(ROWS) != 1
    aux = {"p/x": x, "p/y": x, "p/valid": valid}
    term = LOSSES["info_nce"](("p",), positives=positives, label="digit")
    given = batch(np.ones((len(NAMES), ROWS), bool))
    given = given.replace(labels={"digit": np.array([0, 0, 0, 1, 1, 2, 2])})
    out = Outputs(jnp.zeros((ROWS, 3)), aux)
    got = term.chance_level(out, given)
    np.testing.assert_allclose(got, term(out, given), rtol=1e-5)
    candidates = {"pair": 5, "pair_other_class": 4, "same_class": 4}[positives]
    np.testing.assert_allclose(got[0], np.log(candidates), rtol=1e-5)
    assert got[1] == got[-1] == 0


def test_a_contrast_of_one_modality_is_refused():
    with pytest.raises(ConfigError, match=r"(?s)C10.*at least two.*got a: with one"):
        LOSSES["modality_contrast"](("a",))


def test_two_modalities_of_the_same_sample_are_refused():
    with pytest.raises(ConfigError, match=r"(?s)C10.*same_sample.*three.*a, b.*batch"):
        LOSSES["modality_contrast"](("a", "b"), negatives="same_sample")
    LOSSES["modality_contrast"](("a", "b", "c"), negatives="same_sample")
