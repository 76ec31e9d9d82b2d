"""MEA: the golden blocks, parameter counts, ablations, masks, missing modalities."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import assert_ignores_poison, poisoned
from flax.core import FrozenDict
from golden_msa import load, weights

from mmfusion_jax.encoders import ConvLSTM
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.fusion.hierarchical_attention import HierarchicalAttention
from mmfusion_jax.fusion.predictive_self_attention import (
    ModalityWeights,
    PredictiveSelfAttention,
)
from mmfusion_jax.layers.discriminator import DoubleDiscriminator
from mmfusion_jax.layers.graph import GraphFusion
from mmfusion_jax.layers.perceptron import Perceptron
from mmfusion_jax.layers.reinforcement import Reinforcement
from mmfusion_jax.layers.transformer import sinusoid
from mmfusion_jax.losses import LOSSES
from mmfusion_jax.losses.objective import Objective, Weighted
from mmfusion_jax.models.mea import MEA
from mmfusion_jax.ops.masking import masked_mean
from mmfusion_jax.types import Batch, Outputs, Tokens

ORDER = ("L", "V", "A")
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)


@pytest.fixture(scope="module")
def arrays(golden):
    return load(golden)


@pytest.fixture(scope="module")
def torch(arrays):
    return weights(arrays, "spec")


@pytest.fixture(scope="module")
def streams(arrays):
    values = {m: arrays[f"spec_mea/in.Z{m}"].astype(np.float32) for m in ORDER}
    return {m: Tokens(x, np.ones(x.shape[:2], bool)) for m, x in values.items()}


def linear(torch, name):
    kernel = {"kernel": torch[f"{name}.weight"].T}
    bias = f"{name}.bias"
    return kernel | ({"bias": torch[bias]} if bias in torch else {})


def norm(torch, name):
    return {"scale": torch[f"{name}.weight"], "bias": torch[f"{name}.bias"]}


def perceptron(torch, name, first="fc1", second="fc2"):
    return {
        "expand": linear(torch, f"{name}.{first}"),
        "shrink": linear(torch, f"{name}.{second}"),
    }


def units(torch, *names):
    """The parameters of a Reinforcement, one unit by name each."""
    trees = [unit(torch, name) for name in names]
    return jax.tree.map(lambda *x: np.stack(x), *trees)


def unit(torch, name):
    get = lambda part: torch[f"{name}.{part}"]
    tree = {
        "norm_scale": get("ln1.weight"),
        "norm_bias": get("ln1.bias"),
        "query": get("Wq.weight").T,
        "key": get("Wk.weight").T,
        "value": get("Wv.weight").T,
        "feed_scale": get("ln2.weight"),
        "feed_bias": get("ln2.bias"),
        "expand": get("ffn1.weight").T,
        "expand_bias": get("ffn1.bias"),
        "shrink": get("ffn2.weight").T,
        "shrink_bias": get("ffn2.bias"),
    }
    if f"{name}.conv.weight" in torch:
        tree["conv"] = get("conv.weight").transpose(2, 3, 1, 0)
        tree["conv_bias"] = get("conv.bias")
    return tree


@pytest.mark.parametrize("form", ["literal", "logit"])
def test_golden_predictive_self_attention(arrays, torch, streams, form):
    make = functools.partial(Reinforcement, heads=2, mu=0.25, form=form)
    params = {f"layer_{i}": units(torch, f"mea.psa.{i}") for i in range(3)}
    for depth in (1, 2, 3):
        block = PredictiveSelfAttention(("L",), make, depth, "off")
        tree = {"params": {k: params[k] for k in list(params)[:depth]}}
        got, extra = block.apply(tree, streams, train=False, mutable="intermediates")
        key = f"spec_mea/psa_{form}_head/layer{depth - 1}"
        close(got["L"].values, arrays[f"{key}.out"])
        seen = extra["intermediates"][f"layer_{depth - 1}"]["attention"][0][0]
        close(seen, arrays[f"{key}.attn"])
        assert got["V"] is streams["V"]


def weighing(torch):
    tree = {}
    for m in ORDER:
        w, b, p = (torch[f"mea.walt.{m}.{x}"] for x in "WbP")
        tree[f"{m}_look"] = {"kernel": w.T, "bias": b}
        tree[f"{m}_score"] = {"kernel": p[:, None]}
    return tree


def test_golden_modality_weights(arrays, torch, streams):
    block, tree = ModalityWeights(ORDER), {"params": weighing(torch)}
    got, extra = block.apply(tree, streams, train=False, mutable="intermediates")
    want = arrays["spec_mea/wal_token.psi"]
    close(extra["intermediates"]["psi"][0], want)
    close(got["A"].values, streams["A"].values * want[:, 2, None, None])


def hierarchy(torch):
    names = lambda step: [f"mea.hca.{m}.{step}" for m in ORDER]
    pairs = [f"mea.hca.{m}.fine_{s}" for m in ORDER for s in ORDER if s != m]
    return {
        "mixed_0": units(torch, *names("mixed")),
        "coarse_0": units(torch, *names("coarse")),
        "fine_0": units(torch, *pairs),
    }


def test_golden_hierarchical_attention(arrays, torch, streams):
    tree = {"params": units(torch, "mea.mru")}
    layer = Reinforcement(((0,),), heads=2)
    (got,), _ = layer.apply(tree, [streams["V"]], [streams["L"]], train=False)
    close(got.values, arrays["spec_mea/mru.V_to_L"])

    make = functools.partial(Reinforcement, heads=2)
    block = HierarchicalAttention(ORDER, make, depth=1)
    got = block.apply({"params": hierarchy(torch)}, streams, train=False)
    close(got["L"].values, arrays["spec_mea/hca.L"])


def test_golden_encoders_and_graph(arrays, torch, streams):
    layer, vectors = Perceptron(6, 6), []
    for m in ORDER:
        tree = {"params": perceptron(torch, f"mea.S{m}")}
        x = masked_mean(streams[m].values, streams[m].mask, axis=1)
        vectors.append(layer.apply(tree, x, train=False))
    close(vectors[0], arrays["spec_mea/h_e.L"])

    tree = {
        "project": linear(torch, "mea.dgf_e.We"),
        "strength": linear(torch, "mea.dgf_e.Q"),
    }
    present = np.ones((3, 3), bool)
    got = GraphFusion().apply({"params": tree}, jnp.stack(vectors, axis=1), present)
    close(got, arrays["spec_mea/dgf.self_loops_False"])


def test_golden_agnostic_encoder(arrays, torch, streams):
    make = functools.partial(Reinforcement, heads=2)
    block = HierarchicalAttention(ORDER, make, depth=1)
    target = block.apply({"params": hierarchy(torch)}, streams, train=False)["L"]
    tree = {"params": perceptron(torch, "mea.Agn")}
    x = masked_mean(target.values, target.mask, axis=1)
    got = Perceptron(6, 6).apply(tree, x, train=False)
    close(got, arrays["spec_mea/h_a.L"])


def adversaries(names):
    options = {"modalities": names}
    return {
        "agnostic": Weighted(LOSSES["agnostic_adversary"](**options)),
        "exclusive": Weighted(LOSSES["exclusive_adversary"](**options)),
    }


def test_golden_discriminators(arrays, torch):
    stored = lambda side: {
        m: arrays[f"spec_mea/adv/in.{side}.{m}"].astype(np.float32) for m in ORDER
    }
    params = {
        "modality": linear(torch, "mea.D.m"),
        "importance": {"kernel": torch["mea.D.Wi"]},
    }
    full = jnp.ones((4, 1), bool)
    batch = Batch({}, dict.fromkeys(ORDER, full), {}, jnp.ones(4))
    objective = Objective(adversaries(ORDER))

    def loss(params, own, common):
        extras = DoubleDiscriminator().apply({"params": params}, own, common, 3)
        outputs = Outputs(jnp.zeros(4), extras)
        return objective(outputs, batch, jnp.zeros(()))

    run = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    (_, terms), (layers, own, common) = run(params, stored("h_e"), stored("h_a"))
    want = lambda name: arrays[f"spec_mea/adv_detach_True/{name}"]
    close(terms["agnostic"], want("L_agn"))
    close(terms["exclusive"], want("L_exc"))
    close(layers["modality"]["kernel"].T, want("grad.Dm.weight"))
    for m in ORDER:
        close(own[m], want(f"grad.h_e.{m}"))
        close(common[m], want(f"grad.h_a.{m}"))


PAPER = {
    "mosi": (734_078, (3, 3, 3), 8, 1),
    "mosei": (736_034, (3, 3, 3), 10, 1),
    "iemocap": (740_453, (3, 3, 5), 8, 8),
}
FEATURES = {"text": 300, "video": 35, "audio": 74}


def features(lengths, widths, rows=3):
    keys = jax.random.split(jax.random.key(0), len(widths))
    inputs = {
        name: jax.random.normal(key, (rows, t, width))
        for key, t, (name, width) in zip(keys, lengths, widths.items(), strict=True)
    }
    real = {
        n: np.arange(x.shape[1]) < 4 - np.arange(rows)[:, None] % 2
        for n, x in inputs.items()
    }
    masks = {name: jnp.asarray(mask) for name, mask in real.items()}
    scores = jnp.linspace(-1, 1, rows)
    return Batch(inputs, masks, {"score": scores}, jnp.ones(rows))


def model(
    kernels=(3, 3, 3), width=40, heads=8, outputs=1, order=tuple(FEATURES), **options
):
    encoders = {m: ConvLSTM(width, k) for m, k in zip(order, kernels, strict=True)}
    return MEA(FrozenDict(encoders), outputs, order, heads=heads, **options)


def count(made, batch):
    init = functools.partial(made.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), batch)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize("name", PAPER)
def test_counts_of_the_specification(name):
    want, kernels, heads, outputs = PAPER[name]
    batch = features((5, 6, 7), FEATURES)
    assert count(model(kernels, heads=heads, outputs=outputs), batch) == want


SMALL = {"text": 3, "video": 4, "audio": 2}


def small(**options):
    depths = {"psa_layers": 2, "hca_layers": 1}
    rest = {"order": tuple(SMALL), "dropout": 0.0, "remat": False}
    return model(width=8, heads=2, **{**depths, **rest, **options})


@functools.cache
def small_batch():
    return features((4, 6, 5), SMALL)


# What Table V and the options leave of the small model: units, weights, perceptrons.
UNIT, CONV, WEIGH, MLP, GRAPH = 776, 38, 80, 4_736, 64 * 64 + 129
DENSE = sum(w * w + 2 * w for w in (4 * 8, 6 * 8, 5 * 8))
HALF = -64 * 64  # the head reads one vector less
OPTIONS = {
    "no adversary": ({"adversarial": False}, -387),
    "no omega": ({"omega": "one"}, -192),
    "no exclusive": (
        {"exclusive": False},
        -6 * UNIT - 3 * CONV - 6 * WEIGH - 3 * MLP - GRAPH + HALF,
    ),
    "no agnostic": ({"agnostic": False}, -12 * UNIT - MLP - GRAPH - 192 + HALF),
    "no psa": ({"psa_layers": 1}, -3 * UNIT - 3 * CONV - 3 * WEIGH),
    "no prediction chain": ({"mu": 0.0}, -3 * CONV),
    "no wal": ({"wal": "off"}, -6 * WEIGH),
    "no hca": ({"hca_layers": 0}, -12 * UNIT),
    "no mixed": ({"mixed": False}, -3 * UNIT),
    "no coarse": ({"coarse": False}, -3 * UNIT),
    "no fine": ({"fine": False}, -6 * UNIT),
    "no graph": ({"fusion": "concat"}, -2 * GRAPH - 4 * HALF),
    "addition": ({"fusion": "addition"}, -2 * GRAPH),
    "dense wal": ({"wal": "dense"}, 2 * DENSE - 6 * WEIGH),
    "residual": ({"head_form": "residual"}, 64 * 129 + 128 * 129 + 64),
    "out": ({"out_proj": True}, 18 * 72),
    "narrow": ({"ffn_mult": 2}, -18 * (2 * 8 * 16 + 16)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_build_and_count(name):
    options, change = OPTIONS[name]
    assert count(small(**options), small_batch()) == full_count() + change


@functools.cache
def full_count():
    return count(small(), small_batch())


@functools.cache
def weights_of(made):
    init = jax.jit(functools.partial(made.init, train=False))
    return init(jax.random.key(1), small_batch())


def objective():
    names = {"modalities": tuple(SMALL)}
    terms = {"task": Weighted(LOSSES["mse"]("score"))}
    extra = ("hsic", "agnostic_adversary", "exclusive_adversary", "importance")
    return Objective(terms | {n: Weighted(LOSSES[n](**names), 0.1) for n in extra})


def total(made, params, batch):
    """The whole loss, and the prediction."""
    outputs = made.apply(params, batch, train=True)
    loss, _ = objective()(outputs, batch, jnp.zeros(()))
    return loss, outputs.prediction


@functools.partial(jax.jit, static_argnums=0)
def gradients(made, params, batch):
    run = jax.value_and_grad(total, argnums=1, has_aux=True)
    (loss, prediction), grads = run(made, params, batch)
    return loss, prediction, grads


def without(batch, missing):
    masks = {name: mask & (name not in missing) for name, mask in batch.masks.items()}
    return batch.replace(masks=masks)


@pytest.mark.slow
def test_ignores_masked_values():
    made, batch = small(), small_batch()
    absent = batch.masks["audio"].at[1].set(False)
    batch = batch.replace(masks={**batch.masks, "audio": absent})

    def make(bad):
        masks = batch.masks
        spoilt = {n: poisoned(x, masks[n], bad) for n, x in batch.inputs.items()}
        return batch.replace(inputs=spoilt)

    loss = lambda params, batch: total(made, params, batch)[0]
    assert_ignores_poison(loss, weights_of(made), make)


@pytest.mark.slow
def test_survives_missing_modalities():
    made, answers = small(), []
    for size in range(4):
        for missing in itertools.combinations(SMALL, size):
            batch = without(small_batch(), missing)
            result = gradients(made, weights_of(made), batch)
            chex.assert_tree_all_finite(result)
            answers.append(np.asarray(result[1]))
    spread = np.abs(np.diff(np.stack(answers[:-1]), axis=0)).max(axis=1)
    assert (spread > 1e-5).all(), "every modality that is left must be read"


@pytest.mark.slow
def test_missing_modality_is_as_if_it_never_were():
    batch = without(small_batch(), {"audio"})
    tree = gradients(small(), weights_of(small()), batch)[2]["params"]
    silent = {
        "encoder": tree["encoders_audio"],
        "source": tree["cross_attention"]["text_0_fine_audio"],
        "alone": tree["self_attention"]["audio_1"],
        "exclusive": tree["exclusive_audio"],
    }
    chex.assert_trees_all_equal(silent, jax.tree.map(jnp.zeros_like, silent))
    assert jnp.any(tree["encoders_text"]["conv"]["kernel"] != 0)


@pytest.mark.slow
def test_padding_changes_nothing():
    made, batch = small(), small_batch()
    pad = lambda x: jnp.pad(x, [(0, 0), (0, 3)] + [(0, 0)] * (x.ndim - 2))
    padded = batch.replace(
        inputs=jax.tree.map(pad, batch.inputs), masks=jax.tree.map(pad, batch.masks)
    )
    run = jax.jit(lambda b: made.apply(weights_of(made), b, train=False).prediction)
    close(run(padded), run(batch))


@pytest.mark.slow
def test_learns_one_batch():
    made, batch = small(), small_batch()
    params, tx = weights_of(made), optax.adam(0.01)
    update, state, errors = jax.jit(tx.update), tx.init(params), []
    for _ in range(40):
        _, prediction, grads = gradients(made, params, batch)
        errors.append(float(jnp.mean((prediction - batch.labels["score"]) ** 2)))
        updates, state = update(grads, state)
        params = optax.apply_updates(params, updates)
    assert errors[-1] < 0.1 < errors[0]


def test_graph_of_one_and_of_none():
    nodes, layer = jax.random.normal(jax.random.key(0), (3, 2, 4)), GraphFusion()
    present = jnp.array([[True, True], [True, False], [False, False]])
    params = layer.init(jax.random.key(1), nodes, present)
    got = layer.apply(params, nodes, present)
    projected = nodes @ params["params"]["project"]["kernel"]
    close(got[0], jnp.sum(jax.nn.sigmoid(projected[0]), axis=0))
    close(got[1], jax.nn.sigmoid(projected[1, 0]))
    close(got[2], jnp.zeros(4))


def test_where_the_discriminators_send_gradients():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    params = DoubleDiscriminator().init(jax.random.key(1), {}, {"a": x}, 2)

    def gradient(name, omega, strength=2.0):
        layer = DoubleDiscriminator(omega)
        said = lambda h: layer.apply(params, {"a": h}, {"a": h}, 2, strength)[name]
        return jax.grad(lambda h: jnp.sum(said(h)[:, 0]))(x)

    plain = gradient("discriminator/exclusive/a", "one")
    close(gradient("discriminator/agnostic/a", "one"), -2 * plain)
    assert not gradient("importance/a", "detached").any()
    forth = params["params"]["importance"]["kernel"][:, 0]
    close(gradient("importance/a", "joint")[0], -2 * forth)
    with pytest.raises(KeyError):
        gradient("importance/a", "one")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"psa": "logits"}, "C03"),
        ({"wal": "tokens"}, "C03"),
        ({"hca_sources": "old"}, "C03"),
        ({"omega": "two"}, "C03"),
        ({"fusion": "add"}, "C03"),
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
    with pytest.raises(ConfigError, match="widths.*'text': 8"):
        count(MEA(FrozenDict(encoders), 1, heads=2), batch)
    with pytest.raises(ConfigError, match="order="):
        count(MEA(FrozenDict(encoders), 1, ("text",)), batch)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 6), "int32"), ((2, 6, 4), "float32"), ((2, 6, 3, 5, 1), "uint8")],
)
def test_encoder_takes_any_sequence(shape, dtype):
    values = jnp.asarray(np.arange(np.prod(shape)).reshape(shape) % 7, dtype)
    mask = jnp.arange(6) < jnp.array([[6], [4]])
    encoder = ConvLSTM(6, vocabulary=7 if len(shape) == 2 else 0)
    init = jax.jit(functools.partial(encoder.init, train=False))
    params = init(jax.random.key(0), values, mask)
    run = jax.jit(functools.partial(encoder.apply, train=False))
    tokens = run(params, values, mask)
    assert tokens.values.shape == (2, 6, 6)
    other = jnp.where(mask.reshape(2, 6, *[1] * (len(shape) - 2)), values, 6)
    chex.assert_trees_all_equal(tokens, run(params, other, mask))
    assert jnp.ptp(tokens.values[0]) > 0


def test_encoder_positions():
    x, mask = jnp.zeros((1, 5, 2)), jnp.ones((1, 5), bool)

    def start(x=x, width=4, **options):
        init = functools.partial(ConvLSTM(width, **options).init, train=False)
        return jax.eval_shape(init, jax.random.key(0), x, mask)

    assert start(positions="learned")["params"]["positions_table"].shape == (5, 4)
    assert "positions_table" not in start(positions="none")["params"]
    with pytest.raises(ConfigError, match="positions="):
        start(positions="rotary")
    with pytest.raises(ConfigError, match="odd"):
        start(width=5)
    with pytest.raises(ConfigError, match="vocabulary"):
        start(x[..., 0].astype(int))


def test_starts_at_position_0():
    """Without an LSTM's help: a convolution of zeros leaves bias and positions."""
    table = sinusoid(3, 4, first=0)
    close(table, np.concatenate([[[0, 0, 1, 1]], sinusoid(2, 4)]))
