"""MEA: parameter counts, every ablation of Table V, every axis of Figures 7-9."""

import chex
import numpy as np
import pytest
from flax.core import FrozenDict
from flax.traverse_util import flatten_dict
from groups import in_ci
from mea_models import (
    SMALL,
    count,
    features,
    gradients,
    shapes,
    small,
    small_batch,
    weights_of,
)

from mmfusion_jax.encoders.conv_lstm import ConvLSTM
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.models.mea import MEA, mean_importance

FEATURES = {"text": 300, "video": 35, "audio": 74}
PAPER = {
    "mosi": (734_078, (3, 3, 3), 8, 1),
    "mosei": (736_034, (3, 3, 3), 10, 1),
    "iemocap": (740_453, (3, 3, 5), 8, 8),
}


@pytest.mark.parametrize("name", PAPER)
def test_counts_of_the_specification(name):
    want, kernels, heads, outputs = PAPER[name]
    pairs = zip(FEATURES, kernels, strict=True)
    encoders = FrozenDict({m: ConvLSTM(40, k) for m, k in pairs})
    made = MEA(encoders, outputs, tuple(FEATURES), num_heads=heads)
    assert count(made, features((5, 6, 7), FEATURES)) == want


# The smallest models that hold what a switch changes.
BARE = {"psa_layers": 0, "hca_layers": 0, "adversarial": False}
OWN = {"psa_layers": 2, "agnostic": False, "adversarial": False}
SHARED = {"hca_layers": 1, "exclusive": False, "adversarial": False}
# What the small model has: units, their maps, weights, perceptrons, graphs.
UNIT, CONV, WEIGH, MLP, GRAPH = 212, 38, 24, 4_480, 64 * 64 + 129
DENSE = sum((4 * t) ** 2 + 8 * t for t in (3, 5, 4))
HALF = 64 * 64  # the hidden layer's part for one vector
QUICK = ("no adversary", "no graph")
"""Switches of the default group."""

SWITCHES = {
    "no adversary": ({**BARE, "adversarial": True}, {"adversarial": False}, -387),
    "no omega": ({**BARE, "adversarial": True}, {"omega": "one"}, -192),
    "omega joint": ({**BARE, "adversarial": True}, {"omega": "joint"}, 0),
    "no exclusive": (BARE, {"exclusive": False}, -3 * MLP - GRAPH - HALF),
    "no agnostic": (BARE, {"agnostic": False}, -MLP - GRAPH - HALF),
    "no psa": (OWN, {"psa_layers": 0}, -6 * UNIT - 3 * CONV - 6 * WEIGH),
    "one psa layer": (OWN, {"psa_layers": 1}, -3 * (UNIT + CONV + WEIGH)),
    "no prediction chain": (OWN, {"mu": 0.0}, -3 * CONV),
    "only prediction": (OWN, {"mu": 1.0}, 0),
    "logit": (OWN, {"psa": "logit"}, 0),
    "maps computed again": (OWN, {"remat": True}, 0),
    "no wal": (OWN, {"wal": "off"}, -6 * WEIGH),
    "dense wal": (OWN, {"wal": "dense"}, 2 * DENSE - 6 * WEIGH),
    "no hca": (SHARED, {"hca_layers": 0}, -12 * UNIT),
    "two hca layers": (SHARED, {"hca_layers": 2}, 12 * UNIT),
    "preliminary": (SHARED, {"hca_layers": 2, "hca_sources": "preliminary"}, 12 * UNIT),
    "no mixed": (SHARED, {"mixed": False}, -3 * UNIT),
    "no coarse": (SHARED, {"coarse": False}, -3 * UNIT),
    "no fine": (SHARED, {"fine": False}, -6 * UNIT),
    "out": (SHARED, {"out_proj": True}, 12 * 20),
    "narrow": (SHARED, {"ffn_mult": 2}, -12 * (2 * 4 * 8 + 8)),
    "scale": (SHARED, {"scale": "width"}, 0),
    "last": (SHARED, {"pool": "last"}, 0),
    "no graph": (BARE, {"fusion": "concat"}, -2 * GRAPH + 4 * HALF),
    "addition": (BARE, {"fusion": "addition"}, -2 * GRAPH),
    "multiplication": (BARE, {"fusion": "multiplication"}, -2 * GRAPH),
    "self loops": (BARE, {"self_loops": True}, 0),
    "layer norm": (BARE, {"standardize": "layer_norm"}, 0),
    "as printed": (BARE, {"standardize": "off"}, 0),
    "residual": (BARE, {"head_type": "residual_mlp"}, 64 * 129 + 128 * 129 + 64),
}


SLOW = ("no coarse", "one psa layer", "out", "narrow", "scale", "two hca layers")
"""Switches whose programs are those of others with other sizes."""


@pytest.mark.ci
@pytest.mark.parametrize("name", SWITCHES)
def test_parameters_of_switches(name):
    rest, options, change = SWITCHES[name]
    plain, made = small(**rest), small(**{**rest, **options})
    assert count(made, small_batch()) == count(plain, small_batch()) + change


@pytest.mark.parametrize("name", in_ci(SWITCHES, *QUICK, slow=SLOW))
def test_gradients_of_switches(name):
    rest, options, _ = SWITCHES[name]
    made = small(**{**rest, **options})
    loss, prediction, grads = result = gradients(made, weights_of(made), small_batch())
    chex.assert_tree_all_finite(result)
    chex.assert_trees_all_equal_shapes(grads["params"], shapes(made, small_batch()))
    assert np.ptp(prediction) > 0
    flat = flatten_dict(grads["params"], sep="/")
    dead = {path for path, x in flat.items() if not np.any(x)}
    own = {f"self_attention/layer_1/{x}" for x in ("query", "key")}
    assert dead == (own if made.mu == 1 else set())


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"psa": "logits"}, "C03"),
        ({"wal": "tokens"}, "C03"),
        ({"hca_sources": "old"}, "C03"),
        ({"omega": "two"}, "C03"),
        ({"fusion": "add"}, "C03"),
        ({"standardize": "on"}, "C03"),
        ({"num_heads": 3}, "C10"),
        ({"exclusive": False, "agnostic": False}, "C10"),
    ],
)
def test_says_what_is_wrong(options, code):
    with pytest.raises(ConfigError) as caught:
        count(small(**options), small_batch())
    assert caught.value.code == code


def test_says_which_encoders_do_not_fit():
    batch = small_batch()
    encoders = {m: ConvLSTM(8 if m == "text" else 6) for m in SMALL}
    with pytest.raises(ConfigError, match="dims differ.*'text': 8"):
        count(MEA(FrozenDict(encoders), 1, num_heads=2), batch)
    with pytest.raises(ConfigError, match="order="):
        count(MEA(FrozenDict(encoders), 1, ("text",)), batch)


def test_the_affine_input_of_the_head_folds_into_its_first_layer():
    made, batch = small(**BARE), small_batch()
    tree = weights_of(made)
    hidden = tree["params"]["hidden"]
    kernel = 4 * hidden["kernel"]
    # M / 2 of both branches: all three modalities are present.
    bias = hidden["bias"] - 1.5 * kernel.sum(axis=0)
    folded = {**tree["params"], "hidden": {"kernel": kernel, "bias": bias}}
    want = gradients(made, tree, batch)[1]
    got = gradients(small(**BARE, standardize="off"), {"params": folded}, batch)[1]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert np.ptp(want) > 0


def test_omega_is_logged_as_a_mean_over_the_examples_with_a_modality():
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    logits[2] = np.nan
    present = np.array([[True] * 3, [True] * 3, [True, False, True], [True] * 3])
    rows = logits[present[:, 1]]
    found = mean_importance(tuple(SMALL), {"importance/video": logits}, present)
    shares = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    assert list(found) == ["log/omega/video"]
    want = [np.mean(1 - shares[:, 1])] * 4
    np.testing.assert_allclose(found["log/omega/video"], want, rtol=1e-5)
