"""CFN-SR: parameter counts, ablations, missing modalities, the released network."""

import functools
from typing import Any

import chex
import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import FrozenDict
from golden_cfn import assert_close, load, mfcc, to_torch, variables, video
from groups import in_ci

from mmfusion_jax.encoders.audio_conv import AudioConv
from mmfusion_jax.encoders.resnext3d import ResNeXt3D
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.losses.supervised import CrossEntropy
from mmfusion_jax.models.cfn_sr import CFNSR
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.training.state import TrainState, create_state
from mmfusion_jax.training.step import make_train_step
from mmfusion_jax.types import Batch, Tokens

ABLATIONS = {
    "audio_to_video": {},
    "video_to_audio": {"cross": "video_to_audio"},
    "no cross-modal block": {"cross": "none"},
    "no self-attention": {"self_attention": False},
    "no residual": {"residual": False},
    "Eq. 6": {"pre_norm": False},
}
COUNTS = {
    "audio_to_video": 26_301_417,
    "video_to_audio": 26_301_417,
    "no cross-modal block": 25_916_072,
    "no self-attention": 26_051_369,
    "no residual": 26_301_417,
    "Eq. 6": 26_301_417 - 128,  # without the normalization after the last layer
}
NO_DROPOUT = {"dropout": 0.0, "embed_dropout": 0.0, "layer_dropout": 0.0}
OBJECTIVE = Objective({"task": WeightedLoss(CrossEntropy("emotion"))})


def make_batch(audio, clip, labels):
    inputs = {"audio": jnp.asarray(audio), "video": jnp.asarray(clip)}
    masks = {name: jnp.ones(x.shape[:2], bool) for name, x in inputs.items()}
    labels = jnp.asarray(labels)
    return Batch(inputs, masks, {"emotion": labels}, jnp.ones(len(labels)))


class Patches(nn.Module):
    """A small video encoder: every 2x2 patch of every frame is a token."""

    axis: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, values, mask, *, train):
        frames = zero_masked(values / jnp.float32(255), mask)
        x = einops.rearrange(frames, "b t (h i) (w j) c -> b t h w (i j c)", i=2, j=2)
        x = nn.Dense(8, dtype=self.dtype)(x)
        x = BatchNorm(self.axis, dtype=self.dtype)(x, mask, train=train)
        _, *grid, d = x.shape
        mask = jnp.repeat(mask, grid[1] * grid[2], axis=1)
        return Tokens(x.reshape(*mask.shape, d), mask, tuple(grid))


def small(axis=None, dtype=None, **options):
    encoders = {
        "audio": AudioConv(8, 4, 4, 0.0, axis=axis, dtype=dtype),
        "video": Patches(axis, dtype),
    }
    options = {"axis": axis, "dtype": dtype, **NO_DROPOUT, **options}
    return CFNSR(
        FrozenDict(encoders), 3, hidden_dim=8, num_layers=1, num_heads=2, **options
    )


@functools.cache
def small_batch():
    keys = jax.random.split(jax.random.key(0))
    audio = jax.random.normal(keys[0], (4, 24, 5))
    clip = jax.random.randint(keys[1], (4, 3, 4, 8, 1), 0, 256).astype(jnp.uint8)
    return make_batch(audio, clip, [0, 1, 2, 1])


@functools.cache
def weights(**options):
    init = jax.jit(functools.partial(small(**options).init, train=False))
    return init(jax.random.key(1), small_batch())


@functools.partial(jax.jit, static_argnames=("model", "train"))
def apply(model, tree, batch, train=False):
    outputs, _ = model.apply(tree, batch, train=train, mutable=["batch_stats"])
    return outputs


def without(batch, missing):
    masks = {name: mask & (name not in missing) for name, mask in batch.masks.items()}
    return batch.replace(masks=masks)


def task_loss(model, tree):
    """The training loss as a function of parameters and a batch."""

    def loss(params, batch):
        variables = {**tree, "params": params}
        outputs, _ = model.apply(variables, batch, train=True, mutable=["batch_stats"])
        return OBJECTIVE(outputs, batch, jnp.zeros(()))[0]

    return loss


@pytest.mark.parametrize("name", ABLATIONS)
def test_counts_of_table_2(name):
    encoders = {"audio": AudioConv(), "video": ResNeXt3D()}
    model = CFNSR(encoders, 8, **ABLATIONS[name])
    batch = make_batch(np.zeros((1, 212, 13)), np.zeros((1, 4, 32, 32, 3)), [0])
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
    count = sum(leaf.size for leaf in jax.tree.leaves(made["params"]))
    assert count == COUNTS[name]


@pytest.mark.ci
@pytest.mark.parametrize("cross", ["audio_to_video", "video_to_audio"])
def test_another_modality_takes_the_place_of_video(cross):
    def renamed(tree):
        return {key.replace("video", "image"): x for key, x in tree.items()}

    batch, tree = small_batch(), weights(cross=cross)
    other = CFNSR(
        FrozenDict(renamed(small().encoders)),
        3,
        hidden_dim=8,
        num_layers=1,
        num_heads=2,
        cross=cross,
        attended_modality="image",
        **NO_DROPOUT,
    )
    tree_of_other = {kind: renamed(x) for kind, x in tree.items()}
    batch_of_other = batch.replace(
        inputs=renamed(batch.inputs), masks=renamed(batch.masks)
    )
    want = apply(small(cross=cross), tree, batch)
    got = apply(other, tree_of_other, batch_of_other)
    np.testing.assert_array_equal(got.prediction, want.prediction)
    np.testing.assert_array_equal(got.aux["image"], want.aux["video"])
    with pytest.raises(ConfigError, match="requires encoders for image, "):
        apply(small(attended_modality="image"), tree, batch)


@pytest.mark.ci
def test_learns_one_batch():
    batch, tx = small_batch(), optax.adam(1e-2)
    make = functools.partial(create_state, small(), tx)
    state = jax.jit(make)(batch, jax.random.key(0))
    step, losses = jax.jit(make_train_step(small(), OBJECTIVE, tx)), []
    for _ in range(20):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("name", in_ci(ABLATIONS, "audio_to_video"))
def test_survives_missing_modalities(name):
    tree = weights(**ABLATIONS[name])
    run = jax.jit(jax.value_and_grad(task_loss(small(**ABLATIONS[name]), tree)))
    for missing in (), ("audio",), ("video",), ("audio", "video"):
        batch = without(small_batch(), missing)
        chex.assert_tree_all_finite(run(tree["params"], batch))


def test_rows_that_fill_up_change_nothing():
    batch = small_batch()
    filled = batch.replace(weight=jnp.array([1.0, 1, 1, 0]))
    real = jax.tree.map(lambda x: x[:3], batch)
    want = apply(small(), weights(), real, train=True).prediction
    got = apply(small(), weights(), filled, train=True).prediction[:3]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_batch_mates_matter_only_for_the_released_code():
    batch, one = small_batch(), jax.tree.map(lambda x: x[:1], small_batch())
    alone = apply(small(), weights(), one).prediction[0]
    among = apply(small(), weights(), batch).prediction[0]
    np.testing.assert_allclose(among, alone, rtol=1e-4, atol=1e-5)
    released_code = small(variant="released_code")
    np.testing.assert_allclose(
        apply(released_code, weights(), one).prediction[0], alone, rtol=1e-4, atol=1e-5
    )
    assert (
        np.max(np.abs(apply(released_code, weights(), batch).prediction[0] - alone))
        > 1e-3
    )


EVEN = {
    "paper": ({}, 1),
    "scale": ({"attention_scale": 16.0}, 16),
    "no residual": ({"residual": False}, 1),
    "released code": ({"variant": "released_code"}, 4),  # examples
}


@pytest.mark.parametrize("name", in_ci(EVEN, "scale"))
def test_even_attention_adds_one_part_in_as_many_as_there_are_positions(name):
    tree, (options, factor) = weights(), EVEN[name]
    score = jax.tree.map(jnp.zeros_like, tree["params"]["cross"]["score"])
    cross = {**tree["params"]["cross"], "score": score}
    even = {**tree, "params": {**tree["params"], "cross": cross}}
    added = apply(small(**options), even, small_batch()).aux["log/added/video"]
    np.testing.assert_allclose(added, factor / 8, rtol=1e-5)  # 2 x 4 positions


@pytest.mark.ci
def test_a_missing_modality_gets_nothing_added():
    run = jax.jit(functools.partial(small().apply, train=False))
    aux = run(weights(), without(small_batch(), ("video",))).aux
    assert not np.any(aux["log/added/video"])


def test_trains_on_a_batch_of_one():
    one = jax.tree.map(lambda x: x[:1], small_batch())
    run = jax.jit(jax.value_and_grad(task_loss(small(), weights())))
    chex.assert_tree_all_finite(run(weights()["params"], one))


@pytest.mark.parametrize("variant", ["paper", "released_code"])
def test_devices_agree(variant):
    model, spread = small(variant=variant), small("data", variant=variant)
    want = apply(model, weights(), small_batch(), train=True)
    halves = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), small_batch())
    run = lambda batch: apply(spread, weights(), batch, train=True)
    got = jax.pmap(run, axis_name="data")(halves)
    got = jax.tree.map(lambda x: x.reshape(4, *x.shape[2:]), got)
    chex.assert_trees_all_close(got, want, rtol=1e-3, atol=1e-4)


def test_extras_are_what_the_head_saw():
    outputs, p = apply(small(), weights(), small_batch()), weights()["params"]["head"]
    joint = jnp.concatenate([outputs.aux["video"], outputs.aux["audio"]], axis=1)
    logits = joint @ p["kernel"] + p["bias"]
    np.testing.assert_allclose(outputs.prediction, logits, rtol=1e-4, atol=1e-5)
    by_step = outputs.aux["attention"].reshape(4, 3, 8)
    np.testing.assert_allclose(by_step.sum(axis=2), 1, rtol=1e-5)


@pytest.mark.ci
def test_video_may_be_a_few_vectors():
    class Units(nn.Module):
        @nn.compact
        def __call__(self, values, mask, *, train):
            return Tokens(nn.Dense(8)(values), mask)

    batch = small_batch()
    units = jnp.asarray(np.linspace(-1, 1, 4 * 2 * 5).reshape(4, 2, 5))
    batch = batch.replace(
        inputs={**batch.inputs, "video": units},
        masks={**batch.masks, "video": jnp.ones((4, 2), bool)},
    )
    encoders = {"audio": AudioConv(8, 4, 4), "video": Units()}
    for cross in "audio_to_video", "video_to_audio":
        model = small(cross=cross).clone(encoders=encoders)
        run = jax.jit(functools.partial(model.init_with_output, train=False))
        outputs, _ = run(jax.random.key(0), batch)
        assert outputs.prediction.shape == (4, 3)
        weights = outputs.aux["attention"]
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


def test_computes_in_bfloat16():
    got = apply(small(dtype=jnp.bfloat16), weights(), small_batch()).prediction
    want = apply(small(), weights(), small_batch()).prediction
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cross": "v_to_a"}, r"(?s)cross='v_to_a' is unknown.*video_to_audio"),
        ({"variant": "released"}, r"(?s)variant='released'.*mean 'released_code'"),
        ({"encoders": {"audio": AudioConv()}}, "requires encoders for video, "),
    ],
)
def test_says_what_is_wrong(options, message):
    with pytest.raises(ConfigError, match=message):
        small().clone(**options).init(jax.random.key(0), small_batch(), train=False)


# --- The released network ------------------------------------------------------------


def released(stem_relu, variant):
    encoders = {
        "audio": AudioConv(dropout=0.0),
        "video": ResNeXt3D(stem_relu=stem_relu),
    }
    return CFNSR(encoders, 8, variant=variant, **NO_DROPOUT)


@functools.cache
def golden_batch():
    return make_batch(mfcc(), video("small", 30, 64, 64), [3, 5])


@functools.cache
def golden_weights():
    model, batch = released(True, "paper"), golden_batch()
    return variables(lambda: model.init(jax.random.key(0), batch, train=False))


def test_logits_of_the_released_network(golden):
    @jax.jit
    def logits(tree, batch):
        models = released(True, "paper"), released(False, "released_code")
        return [m.apply(tree, batch, train=False).prediction for m in models]

    ours, official = logits(golden_weights(), golden_batch())
    assert_close(ours, load(golden)["logits/per_sample/stem_relu1"])
    assert_close(official, load(golden)["logits/official/stem_relu0"])


@pytest.mark.ci
def test_gradients_of_the_released_network(golden):
    want, tree = load(golden), golden_weights()
    model = released(False, "released_code")

    def loss(params):
        outputs = model.apply({**tree, "params": params}, golden_batch(), train=False)
        return OBJECTIVE(outputs, golden_batch(), jnp.zeros(()))[0]

    value, grads = jax.jit(jax.value_and_grad(loss))(tree["params"])
    assert_close(value, want["grad/official/bn_eval/loss"])
    grads = to_torch(grads)
    norms = [
        sum(np.sum(g**2) for name, g in grads.items() if name.startswith(f"{group}."))
        for group in want["grad/group_names"]
    ]
    norms, wanted = np.sqrt(norms), want["grad/official/bn_eval/norms"]
    np.testing.assert_allclose(norms, wanted, rtol=1e-3)
    prefix = "grad/official/bn_eval/sample/"
    for key in (key for key in want if key.startswith(prefix)):
        name = key.removeprefix(prefix)
        flat = grads[name].ravel()
        rtol = 2e-2 if name == "video.conv1.weight" else 5e-4
        assert_close(flat[:: max(1, flat.size // 32)][:32], want[key], rtol)


@pytest.mark.slow
def test_first_steps_of_the_released_network(golden):
    want, tx = load(golden), optax.adam(1e-5)
    model = released(False, "paper")
    step = jax.jit(make_train_step(model, OBJECTIVE, tx))
    tree, zero = golden_weights(), jnp.zeros((), jnp.int32)
    state = TrainState(
        step=zero,
        params=tree["params"],
        stats=tree["batch_stats"],
        opt_state=tx.init(tree["params"]),
        key=jax.random.key(0),
        skipped_steps={"consecutive": zero, "total": zero},
    )
    losses = []
    for i in range(3):
        state, metrics = step(state, golden_batch())
        losses.append(metrics["loss"])
        if i == 0:
            norm = state.stats["encoders_video"]["stem_norm"]
            assert_close(norm["mean"][:32], want["running/video.bn1.running_mean"])
            assert_close(norm["var"][:32], want["running/video.bn1.running_var"])
    assert_close(np.array(losses), want["adam/per_sample/losses"], 1e-3)
