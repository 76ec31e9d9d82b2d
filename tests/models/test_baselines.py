"""Single modalities, late fusion, concatenation; rules, loss and warm start."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from golden_cfn import assert_close, load, mfcc, variables, video
from groups import in_ci
from loaded_tables import MODELS

from mmfusion_jax.encoders.audio_conv import AudioConv
from mmfusion_jax.encoders.resnext3d import ResNeXt3D
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.losses.multiplicative import Multiplicative
from mmfusion_jax.models.baselines import (
    ConcatFC,
    LateFusion,
    Unimodal,
)
from mmfusion_jax.models.transfer import copy_submodules
from mmfusion_jax.ops.late_fusion import average, multiplicative, product
from mmfusion_jax.types import Batch, Outputs, Tokens

RULES = ("average", "product", "multiplicative")
FUNCTIONS = (average, product, functools.partial(multiplicative, beta=0.3))
FULL = FrozenDict({"audio": AudioConv(), "video": ResNeXt3D()})
LOGITS = jax.random.normal(jax.random.key(0), (3, 2, 4))
BOTH = jnp.ones((3, 2), bool)


class Steps(nn.Module):
    """A small encoder of one kind for both modalities."""

    axis: str | None = None

    @nn.compact
    def __call__(self, values, mask, *, train):
        x = nn.Dense(4)(jnp.where(mask[..., None], values, 0))
        return Tokens(BatchNorm(self.axis)(x, mask, train=train), mask)


SMALL = FrozenDict({"audio": Steps(), "video": Steps()})
MODELS_SMALL = {
    "audio": Unimodal(FrozenDict({"audio": Steps()}), 3, dropout=0.0),
    "video": Unimodal(FrozenDict({"video": Steps()}), 3),
    **{rule: LateFusion(SMALL, 3, rule, dropout=0.0) for rule in RULES},
    "concat_fc": ConcatFC(SMALL, 3, (5,), dropout=0.0, hidden_dropout=0.0),
    "learned": LateFusion(SMALL, 3, "learned", 0.3, 0.0, "mean", 4, (5, 4)),
    "early": ConcatFC(SMALL, 3, (6, 5, 4), 0.0, 0.0, "mean", 4),
}


def make_batch(audio, clip):
    inputs = {"audio": jnp.asarray(audio), "video": jnp.asarray(clip)}
    masks = {name: jnp.ones(x.shape[:2], bool) for name, x in inputs.items()}
    b = len(audio)
    return Batch(inputs, masks, {"emotion": jnp.arange(b) % 3}, jnp.ones(b))


@functools.cache
def small_batch():
    keys = jax.random.split(jax.random.key(1))
    shapes = (4, 3, 5), (4, 2, 6)
    values = [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
    return make_batch(*values)


@functools.cache
def weights(name):
    init = jax.jit(functools.partial(MODELS_SMALL[name].init, train=False))
    return init(jax.random.key(2), small_batch())


@functools.partial(jax.jit, static_argnames=("model", "train"))
def apply(model, tree, batch, train=False):
    return model.apply(tree, batch, train=train, mutable=["batch_stats"])[0]


# --- Rules and the loss --------------------------------------------------------------


def test_rules_by_hand():
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(np.exp(average(LOGITS, BOTH)), p.mean(axis=1), rtol=1e-5)
    both = p[:, 0] * p[:, 1]
    want = both / both.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(np.exp(product(LOGITS, BOTH)), want, rtol=1e-5)
    want = (1 - p[:, 1]) ** 0.3 * np.log(p[:, 0]) + (1 - p[:, 0]) ** 0.3 * np.log(
        p[:, 1]
    )
    got = multiplicative(LOGITS, BOTH, 0.3)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_three_modalities_share_beta():
    logits = jax.random.normal(jax.random.key(3), (1, 3, 4))
    p = np.asarray(jax.nn.softmax(logits))[0]
    want = sum(
        np.prod([1 - p[j] for j in range(3) if j != m], axis=0) ** 0.2 * np.log(p[m])
        for m in range(3)
    )
    got = multiplicative(logits, jnp.ones((1, 3), bool), 0.4)
    np.testing.assert_allclose(got[0], want, rtol=1e-5)


@pytest.mark.parametrize("rule", FUNCTIONS)
def test_the_absent_have_no_say(rule):
    present = jnp.array([[True, False], [False, True], [True, True]])
    got = jax.nn.log_softmax(rule(LOGITS, present))
    alone = jax.nn.log_softmax(LOGITS)
    np.testing.assert_allclose(got[0], alone[0, 0], rtol=1e-5)
    np.testing.assert_allclose(got[1], alone[1, 1], rtol=1e-5)
    nobody = rule(LOGITS, jnp.zeros_like(BOTH))
    np.testing.assert_array_equal(nobody, rule(LOGITS, BOTH))


@pytest.mark.parametrize("rule", FUNCTIONS)
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_rules_have_finite_gradients(rule, scale):
    run = jax.value_and_grad(lambda x: jnp.sum(rule(scale * x, BOTH)))
    chex.assert_tree_all_finite(run(LOGITS))


def test_loss_is_the_score_of_the_true_class():
    logits = {
        f"logits/{name}": LOGITS[:, i] for i, name in enumerate(("audio", "video"))
    }
    batch = make_batch(np.zeros((3, 1, 1)), np.zeros((3, 1, 1)))
    batch = batch.replace(labels={"emotion": jnp.array([2, 0, 3])})
    got = Multiplicative("emotion")(Outputs(LOGITS[:, 0], logits), batch)
    p = np.asarray(jax.nn.softmax(LOGITS))
    for i, y in enumerate([2, 0, 3]):
        audio, visual = p[i, :, y]
        q_audio, q_visual = (1 - visual) ** 0.3, (1 - audio) ** 0.3
        want = -q_audio * np.log(audio) - q_visual * np.log(visual)
        np.testing.assert_allclose(got[i], want, rtol=1e-5)


def test_the_gradient_of_the_loss_includes_the_weights():
    batch = make_batch(np.zeros((1, 1, 1)), np.zeros((1, 1, 1)))

    def loss(audio):
        aux = {"logits/audio": audio[None], "logits/video": LOGITS[:1, 1]}
        return Multiplicative("emotion")(Outputs(audio[None], aux), batch)[0]

    (a, *_), (v, *_) = p = np.asarray(jax.nn.softmax(LOGITS[0]))
    softmax = np.eye(4)[0] - p[0]  # the gradient of log p_a
    cross_entropy = -((1 - v) ** 0.3) * softmax
    of_weight = 0.3 * (1 - a) ** (0.3 - 1) * a * softmax * np.log(v)
    got = jax.grad(loss)(LOGITS[0, 0])
    np.testing.assert_allclose(got, cross_entropy + of_weight, rtol=1e-4)


# --- Models --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "want"),
    [
        (Unimodal(FrozenDict({"video": FULL["video"]}), 8), 25_882_056),
        (Unimodal(FrozenDict({"audio": FULL["audio"]}), 8), 34_024),
        *((LateFusion(FULL, 8, rule), 25_916_080) for rule in RULES),
        (ConcatFC(FULL, 8), 26_838_952),
    ],
)
def test_counts_of_table_1(model, want):
    batch = make_batch(np.zeros((1, 212, 13)), np.zeros((1, 4, 32, 32, 3)))
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(made["params"])) == want


@pytest.mark.parametrize("rule", RULES)
def test_late_fusion_is_its_rule_over_single_modalities(rule):
    outputs = apply(MODELS_SMALL[rule], weights(rule), small_batch())
    np.testing.assert_allclose(np.exp(outputs.prediction).sum(axis=1), 1, rtol=1e-5)
    for name in "audio", "video":
        mine = weights(rule)
        params = {k: v for k, v in mine["params"].items() if k.endswith(name)}
        alone = apply(MODELS_SMALL[name], {**mine, "params": params}, small_batch())
        np.testing.assert_allclose(
            outputs.aux[f"logits/{name}"], alone.prediction, rtol=1e-5, atol=1e-6
        )


def late(rule: str, head_size: int, **options):
    """A small late fusion with its weights."""
    model = LateFusion(SMALL, head_size, rule, dropout=0.0, **options)
    tree = model.init(jax.random.key(3), small_batch(), train=False)
    return model, tree


def without(name: str):
    """The small batch whose first example lacks a modality, which holds NaN."""
    batch = small_batch()
    mask = batch.masks[name].at[0].set(False)
    values = jnp.asarray(batch.inputs[name], jnp.float32).at[0].set(jnp.nan)
    return batch.replace(
        inputs={**batch.inputs, name: values}, masks={**batch.masks, name: mask}
    )


@pytest.mark.parametrize("rule", ["average", "learned"])
def test_late_fusion_of_scores_is_a_mean_of_those_present(rule):
    model, tree = late(rule, 1)
    outputs = apply(model, tree, without("audio"))
    scores = [np.asarray(outputs.aux[f"logits/{m}"]) for m in ("audio", "video")]
    assert outputs.prediction.shape == scores[0].shape == (4,)
    low, high = np.minimum(*scores), np.maximum(*scores)
    assert outputs.prediction[0] == pytest.approx(scores[1][0], rel=1e-5)
    assert np.all(
        (outputs.prediction >= low - 1e-6) & (outputs.prediction <= high + 1e-6)
    )
    if rule == "average":
        want = np.mean(scores, axis=0)[1:]
        np.testing.assert_allclose(outputs.prediction[1:], want, rtol=1e-5)


@pytest.mark.parametrize("rule", in_ci(RULES, "average"))
def test_late_fusion_combines_every_flag_by_itself(rule):
    model, tree = late(rule, 6, flags=True)
    batch = without("video")
    outputs = apply(model, tree, batch)
    pairs = np.asarray(outputs.prediction).reshape(4, 3, 2)
    np.testing.assert_allclose(np.exp(pairs).sum(axis=-1), 1, rtol=1e-5)
    alone = np.stack([outputs.aux[f"logits/{m}"] for m in ("audio", "video")], 1)
    present = np.stack([batch.masks[m].any(1) for m in ("audio", "video")], 1)
    by_flag = {"average": average, "product": product}
    if rule not in by_flag:
        return
    for j in range(3):
        logits = jnp.asarray(alone[..., 2 * j : 2 * j + 2])
        want = by_flag[rule](logits, jnp.asarray(present))
        np.testing.assert_allclose(pairs[:, j], want, rtol=1e-4, atol=1e-6)


def test_unimodal_is_of_its_modality():
    wrong = Unimodal(FrozenDict({"audio": SMALL["audio"]}), 3, modality="video")
    with pytest.raises(
        ConfigError, match="modality='video' requires .* got encoders for aud"
    ):
        wrong.init(jax.random.key(0), small_batch(), train=False)


@pytest.mark.parametrize("name", ["early", "learned"])
def test_a_missing_modality_is_0_once_aligned(name):
    masks = {**small_batch().masks, "audio": jnp.zeros((4, 3), bool)}
    batch = small_batch().replace(masks=masks)
    aux = apply(MODELS_SMALL[name], weights(name), batch).aux
    assert not np.any(aux["audio"]) and np.any(aux["video"])


def test_concatenation_is_one_hidden_layer():
    outputs, p = (
        apply(MODELS_SMALL["concat_fc"], weights("concat_fc"), small_batch()),
        weights("concat_fc")["params"],
    )
    joint = jnp.concatenate([outputs.aux["audio"], outputs.aux["video"]], axis=1)
    hidden = jnp.maximum(joint @ p["hidden"]["kernel"] + p["hidden"]["bias"], 0)
    want = hidden @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(outputs.prediction, want, rtol=1e-5, atol=1e-6)


def test_a_learned_average_weighs_what_all_say():
    outputs = apply(MODELS_SMALL["learned"], weights("learned"), small_batch())
    params = weights("learned")["params"]
    p = [jax.nn.softmax(outputs.aux[f"logits/{m}"]) for m in ("audio", "video")]
    scores = jnp.concatenate(p, axis=1) @ params["weigh"]["kernel"]
    share = jax.nn.softmax(scores + params["weigh"]["bias"])
    want = share[:, :1] * p[0] + share[:, 1:] * p[1]
    np.testing.assert_allclose(np.exp(outputs.prediction), want, rtol=1e-5)
    x = outputs.aux["audio"]
    for i in 1, 2:
        layer = params[f"hidden_audio_{i}"]
        x = jnp.maximum(x @ layer["kernel"] + layer["bias"], 0)
    got = x @ params["head_audio"]["kernel"] + params["head_audio"]["bias"]
    np.testing.assert_allclose(outputs.aux["logits/audio"], got, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            LateFusion(SMALL, 3, "averages"),
            r"(?s)rule='averages'.*did you mean 'average'",
        ),
        (Unimodal(SMALL, 3), "unimodal with config.model.modality=''"),
        (ConcatFC(FrozenDict({"text": Steps()}), 3), "encoders has text, "),
    ],
)
def test_says_what_is_wrong(model, message):
    with pytest.raises(ConfigError, match=message):
        model.init(jax.random.key(0), small_batch(), train=False)


def test_every_model_has_a_name():
    assert set(MODELS) >= {"cfn_sr", "unimodal", "late_fusion", "concat_fc"}


# --- Transfer ------------------------------------------------------------------------


def test_late_fusion_starts_from_single_modalities():
    tree = weights("average")
    params, stats = tree["params"], tree["batch_stats"]
    for name in "audio", "video":
        source = weights(name)
        given = source["params"], jax.tree.map(lambda x: x + 1, source["batch_stats"])
        for prefix in "encoders_", "head_":
            params, stats = copy_submodules(params, stats, *given, prefix)
        kept = f"encoders_{name}"
        chex.assert_trees_all_equal(params[kept], source["params"][kept])
        chex.assert_trees_all_equal(stats[kept], given[1][kept])
    fused = {"params": params, "batch_stats": tree["batch_stats"]}
    outputs = apply(MODELS_SMALL["average"], fused, small_batch())
    for name in "audio", "video":
        alone = apply(MODELS_SMALL[name], weights(name), small_batch()).prediction
        got = outputs.aux[f"logits/{name}"]
        np.testing.assert_allclose(got, alone, rtol=1e-5, atol=1e-6)


def test_copying_submodules_leaves_the_rest():
    tree, source = weights("concat_fc"), weights("audio")
    params, _ = copy_submodules(
        tree["params"],
        tree["batch_stats"],
        source["params"],
        source["batch_stats"],
        "encoders_",
    )
    assert params.keys() == tree["params"].keys()
    for name in "encoders_video", "hidden", "head":
        assert params[name] is tree["params"][name]


def test_copied_submodules_must_match():
    tree, source = weights("average"), weights("audio")
    stats = tree["batch_stats"], source["batch_stats"]
    wide = {"encoders_audio": jax.tree.map(lambda x: x[:1], source["params"])}
    with pytest.raises(ConfigError, match=r"(?s)in the source model.*same encoder"):
        copy_submodules(tree["params"], stats[0], wide, stats[1])
    with pytest.raises(ConfigError, match=r"no submodule 'text'"):
        copy_submodules(tree["params"], stats[0], source["params"], stats[1], "text")


# --- The released networks -----------------------------------------------------------


@pytest.mark.ci
@pytest.mark.parametrize("name", ["audio", "video"])
def test_released_networks(golden, name):
    want = load(golden)
    batch = make_batch(mfcc(), video("tiny", 8, 56, 56))
    model = Unimodal(FrozenDict({name: FULL[name]}), 8)
    filled = variables(lambda: model.init(jax.random.key(0), batch, train=False))
    stem = lambda module, _: module.name == "stem_norm"

    @jax.jit
    def run(tree):
        return model.apply(tree, batch, train=False, capture_intermediates=stem)

    outputs, captured = run(filled)
    key = "audio/logits" if name == "audio" else "video_tiny/logits"
    assert_close(outputs.prediction, want[key])
    if name == "video":
        norm = captured["intermediates"]["encoders_video"]["stem_norm"]["__call__"][0]
        flat = norm.transpose(0, 4, 1, 2, 3).ravel()
        assert_close(flat[::4099][:64], want["video_tiny/stem_bn1_sample"])
