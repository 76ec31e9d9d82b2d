"""MCL-MCF: the golden model, counts, ablations, masks, dead convolutions."""

import functools
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import assert_ignores_poison, poisoned
from flax.traverse_util import flatten_dict, unflatten_dict
from golden_msa import fill, load, weights

from mmfusion_jax.config_file import load_config
from mmfusion_jax.encoders import Bert
from mmfusion_jax.encoders.lstm_last import LSTMLast
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.fusion.tensor_convolution import TensorConvolution
from mmfusion_jax.layers.pair_projection import PairProjection
from mmfusion_jax.layers.readout import first
from mmfusion_jax.losses import LOSSES
from mmfusion_jax.losses.objective import Objective, Weighted
from mmfusion_jax.models.mcl_mcf import MCLMCF
from mmfusion_jax.ops.info_nce import info_nce
from mmfusion_jax.types import Batch, Outputs, Tokens
from mmfusion_jax.weights import TABLES

close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
ORDER = ("text", "audio", "video")
CONFIG = Path(__file__).parent.parent / "configs" / "mcl_mcf.py"
CLIPS = {
    "level1/text_audio": "ta_clip",
    "level1/text_video": "tv_clip",
    "level1/video_audio": "av_clip",
    "level2/text_video_audio": "mass_t_clip",
    "level2/video_text_audio": "mass_v_clip",
    "level2/audio_text_video": "mass_a_clip",
    "level2/audio_text_video_audio": "mass_tav_clip",
    "level3/text_video_text_audio": "tfn_tv",
    "level3/text_video_video_audio": "tfn_ta",
    "level3/text_audio_video_audio": "tfn_av",
}
LINEARS = {
    "mix_text_video": "conv_tv",
    "mix_video_audio": "conv_av",
    "mix_text_audio": "conv_vt",
    "mix_text_video_audio": "conv_tav",
    "lift_text": "getresNet.0.0",
    "lift_video": "getresNet2.0.0",
    "lift_audio": "getresNet3.0.0",
    "mix": "getresNet4.0.0",
    "fuse": "conv_res",
    "hidden_0": "fusion_prj.linear_1",
    "hidden_1": "fusion_prj.linear_2",
    "head": "fusion_prj.linear_3",
    "encoders_video/out": "visual_enc.linear_1",
    "encoders_audio/out": "acoustic_enc.linear_1",
}
LINEARS |= {
    f"{pair.replace('/', '_')}/{side}": f"{name}.{side}_learn_weight"
    for pair, name in CLIPS.items()
    for side in "xy"
}
IMAGES = {
    "tcf_text_video": "conv_tfn_t",
    "tcf_text_audio": "conv_tfn_v",
    "tcf_video_audio": "conv_tfn_a",
}
LSTMS = {"encoders_video/lstm": "visual_enc", "encoders_audio/lstm": "acoustic_enc"}


def swapped(x):
    """The kernel for t', a', v', q from theirs for t', v', a', q."""
    t, v, a, q = np.split(x[..., 0].T, 4)
    return np.concatenate([t, a, v, q])


def origin(path):
    """The names of a golden weight for our path, and how it becomes ours."""
    parent, leaf = path.rsplit("/", 1)
    if path.startswith("encoders_text/"):
        ours = path.removeprefix("encoders_text/")
        (rule,) = (rule for rule in TABLES["bert"].rules if rule.names(ours))
        return [f"text_enc.bertmodel.{n}" for n in rule.names(ours)], rule.layout
    if parent in LSTMS:
        base = f"{LSTMS[parent]}.rnn"
        if leaf == "bias":
            both = [f"{base}.bias_ih_l0", f"{base}.bias_hh_l0"]
            return both, lambda a, b: (a + b)[None]
        place = {"input_kernel": "ih", "recurrent_kernel": "hh"}[leaf]
        return [f"{base}.weight_{place}_l0"], lambda x: x.T[None]
    if parent in IMAGES:
        kind, i = leaf.split("_")
        name = f"{IMAGES[parent]}.{2 * int(i)}."
        if kind == "bias":
            return [f"{name}bias"], lambda x: x
        return [f"{name}weight"], lambda x: x.transpose(2, 3, 1, 0)
    if leaf == "bias":
        return [f"{LINEARS[parent]}.bias"], lambda x: x
    if parent == "fuse":
        return ["conv_res.weight"], swapped
    return [f"{LINEARS[parent]}.weight"], lambda x: x.reshape(x.shape[:2]).T


def small(text=None, **options):
    text = text or Bert(24, 2, 4, 40, vocabulary=50, places=16, dropout=0.0)
    encoders = {"text": text, "audio": LSTMLast(8), "video": LSTMLast(8)}
    sizes = {"mixed": 8, "lifted": 16, "hidden": 10, "projected": 12, "dropout": 0.0}
    return MCLMCF(encoders, 1, **(sizes | options))


def objective(scale, weight=0.05):
    terms = {"task": Weighted(LOSSES["l1"]("label"), 1.0)}
    for i in "123":
        pairs = tuple(p for p in CLIPS if p.startswith(f"level{i}"))
        terms[f"level{i}"] = Weighted(LOSSES["info_nce"](pairs, scale), weight)
    return Objective(terms)


@pytest.fixture(scope="module")
def arrays(golden):
    return load(golden)


@pytest.fixture(scope="module")
def batch(arrays):
    get = lambda name: arrays[f"mcl_small/in.{name}"]
    inputs = {"text": np.stack([get("ids"), get("types")], -1).astype(np.int32)}
    masks = {"text": get("mask") > 0}
    for name, theirs, size in (("audio", "acoustic", "a"), ("video", "visual", "v")):
        inputs[name] = get(theirs).swapaxes(0, 1).astype(np.float32)
        masks[name] = np.arange(inputs[name].shape[1]) < get(f"{size}_len")[:, None]
    label = {"label": get("y")[:, 0].astype(np.float32)}
    return Batch(inputs, masks, label, np.ones(6, np.float32))


@pytest.fixture(scope="module")
def params(arrays, batch):
    torch = weights(arrays, "mcl_small")
    init = functools.partial(small(parity="official").init, train=True)
    tree = flatten_dict(jax.eval_shape(init, jax.random.key(0), batch)["params"])
    filled = {}
    for path, leaf in tree.items():
        names, layout = origin("/".join(path))
        filled[path] = np.asarray(layout(*(torch[name] for name in names)))
        assert filled[path].shape == leaf.shape, path
    return unflatten_dict(filled)


def test_golden_model(arrays, batch, params):
    model, goal = small(parity="official"), objective(float(np.log(1 / 0.07)))
    rngs = {"dropout": jax.random.key(0)}

    @functools.partial(jax.value_and_grad, has_aux=True)
    def total(params):
        outputs = model.apply({"params": params}, batch, train=True, rngs=rngs)
        value, terms = goal(outputs, batch, 0)
        return value, (outputs, terms)

    (value, (outputs, terms)), grads = jax.jit(total)(params)
    get = lambda name: arrays[f"mcl_small/{name}"]
    extras = outputs.extras
    close(extras["text"], get("act.text_enc")[:, 0])
    close(extras["fused"], get("act.conv_res")[..., 0])
    close(outputs.prediction, get("out.preds")[:, 0])
    for pair, name in CLIPS.items():
        term = LOSSES["info_nce"]((pair,), float(np.log(1 / 0.07)))
        close(jnp.mean(term(outputs, batch)), get(f"act.{name}"))
    for i in "123":
        close(terms[f"level{i}"], get(f"out.nce{i}"))
    close(terms["task"], get("out.l1"))
    close(value, get("out.total"))
    names, norms = get("params.names"), get("grad.params.l2")
    norm = dict(zip((str(n) for n in names), norms, strict=True))
    for path, grad in flatten_dict(grads).items():
        for name in origin("/".join(path))[0]:
            want = norm[name]
            np.testing.assert_allclose(
                np.linalg.norm(grad), want, rtol=1e-4, atol=2e-6, err_msg=name
            )


def test_prediction_needs_no_modules_of_the_losses(arrays, batch, params):
    model = small(parity="official")
    run = functools.partial(model.init, train=False)
    unneeded = ("level", "mix_", "tcf_")
    lean = {k: v for k, v in params.items() if not k.startswith(unneeded)}
    got = model.apply({"params": lean}, batch, train=False)
    close(got.prediction, arrays["mcl_small/out.preds"][:, 0])
    assert run(jax.random.key(0), batch)["params"].keys() == params.keys()


@pytest.mark.parametrize(
    ("case", "parity", "scale"),
    [("alg1_proj", "paper", 1 / 0.07), ("official_clip", "official", np.log(1 / 0.07))],
)
def test_golden_projection(arrays, case, parity, scale):
    x, y = (jnp.asarray(arrays[f"alg1_proj/in.{n}"], jnp.float32) for n in "xy")

    def weight(side, width):
        base = f"alg1.{side}_proj"
        kernel = fill(f"{base}.weight", (5, width)).T.astype(np.float32)
        return {"kernel": kernel, "bias": fill(f"{base}.bias", (5,)).astype(np.float32)}

    tree = {"params": {"x": weight("x", 9), "y": weight("y", 4)}}

    def loss(x, y):
        views = PairProjection(5, parity).apply(tree, x, y)
        return jnp.mean(info_nce(*views, jnp.ones(6, bool), scale=float(scale)))

    value, (dx, dy) = jax.value_and_grad(loss, (0, 1))(x, y)
    close(value, arrays[f"{case}/out"])
    close(dx, arrays[f"{case}/grad.x"])
    close(dy, arrays[f"{case}/grad.y"])


SIZES = {
    "mosi": (20, 5, (4, 6, 1), 199_295_928, 2_099_457),
    "mosei": (35, 74, (2, 4, 1), 199_316_880, 2_120_961),
    "sims": (709, 33, (4, 7, 1), 199_479_618, 2_283_009),
}
LSTM_BIASES = 2 * 256


def made_up(b=4, video=6, audio=5):
    key = jax.random.key(3)
    t = {"text": 5, "audio": 7, "video": 6}
    inputs = {
        "text": jax.random.randint(key, (b, 5), 0, 50),
        "audio": jax.random.normal(key, (b, 7, audio)),
        "video": jax.random.normal(key, (b, 6, video)),
    }
    masks = {m: jnp.arange(n) < n - jnp.arange(b)[:, None] % 3 for m, n in t.items()}
    return Batch(inputs, masks, {"label": jnp.linspace(-1, 1, b)}, jnp.ones(b))


def count(model, batch):
    init = functools.partial(model.init, train=True)
    tree = jax.eval_shape(init, jax.random.key(0), batch)["params"]
    sizes = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in tree.items()}
    sizes.pop("encoders_text")
    return sizes


@pytest.mark.parametrize("data", SIZES)
def test_counts_of_the_paper(data):
    video, audio, channels, total, inference = SIZES[data]
    text = Bert(depth=1, hidden=8, vocabulary=50)
    encoders = {"text": text, "audio": LSTMLast(64), "video": LSTMLast(64)}
    model = MCLMCF(encoders, 1, channels=channels)
    sizes = count(model, made_up(2, video, audio))
    assert sum(sizes.values()) == total - LSTM_BIASES
    losses = sum(v for k, v in sizes.items() if k.startswith(("level", "mix_", "tcf_")))
    assert sum(sizes.values()) - losses == inference - LSTM_BIASES


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ({"levels": (2, 3)}, ("level1",)),
        ({"levels": (1, 3)}, ("level2", "mix_")),
        ({"levels": (1, 2)}, ("level3", "tcf_")),
        ({"levels": ()}, ("level", "mix_", "tcf_")),
        (
            {"levels": (), "mcf": False},
            ("level", "mix_", "tcf_", "lift", "mix", "fuse"),
        ),
        ({"mcf": False}, ("mix ", "fuse")),
    ],
)
def test_ablations_build_no_more_than_they_need(options, gone):
    whole, part = count(small(), made_up()), count(small(**options), made_up())
    left = {k for k in whole if not f"{k} ".startswith(gone)}
    assert part.keys() == left
    if options.get("mcf", True):
        assert all(part[k] == whole[k] for k in left)
    else:
        assert part["hidden_0"] == (24 + 8 + 8 + 1) * 10


@pytest.fixture(scope="module")
def start():
    return small().init(jax.random.key(0), made_up(), train=True)


def loss_of(batch, params):
    rngs = {"dropout": jax.random.key(0)}
    outputs = small().apply(params, batch, train=True, rngs=rngs)
    value, _ = objective(1 / 0.07)(outputs, batch, 0)
    return value + jnp.sum(outputs.prediction**2)


def test_ignores_what_is_masked_and_missing(start):
    batch = made_up()
    masks = dict(batch.masks)
    masks["audio"] = masks["audio"].at[1].set(False)
    masks["text"] = masks["text"].at[2].set(False)

    def make(bad):
        real = {m: poisoned(batch.inputs[m], masks[m], bad) for m in ("audio", "video")}
        return batch.replace(inputs={**batch.inputs, **real}, masks=masks)

    assert_ignores_poison(lambda p, batch: loss_of(batch, p), start, make)
    rngs = {"dropout": jax.random.key(0)}
    got = small().apply(start, make(0.0), train=True, rngs=rngs).extras
    valid = lambda pair: got[f"{pair}/valid"].tolist()
    assert valid("level1/text_video") == [True, True, False, True]
    assert valid("level2/text_video_audio") == [True, False, False, True]
    assert valid("level3/text_video_video_audio") == [True, False, False, True]
    assert not np.any(got["audio"][1]) and np.any(got["audio"][0])


def test_a_dead_convolution_is_finite(start):
    params = dict(start["params"])
    for name in IMAGES:
        params[name] = {**params[name], "bias_2": jnp.full(1, -1e3)}
    run = jax.jit(jax.value_and_grad(functools.partial(loss_of, made_up())))
    chex.assert_tree_all_finite(run({"params": params}))
    rngs = {"dropout": jax.random.key(0)}
    got: Outputs = small().apply({"params": params}, made_up(), train=True, rngs=rngs)
    assert not np.any(got.extras["active/text_video"])


@pytest.mark.parametrize("last", ["relu", "leaky_relu", "none"])
def test_convolution_of_the_outer_product(last):
    x, y = (jax.random.normal(jax.random.key(i), (5, 1, 7 + i)) for i in range(2))
    streams = {"x": Tokens(x, jnp.ones((5, 1), bool))}
    streams["y"] = Tokens(y, jnp.arange(5)[:, None] != 2)
    block = TensorConvolution("x", "y", "z", (3, 1), last, chunk=2)
    tree = block.init(jax.random.key(2), streams, train=False)
    run = functools.partial(block.apply, tree, train=False)
    got = jax.jit(run)(streams)["z"]
    assert got.present.tolist() == [True, True, False, True, True]
    z = np.einsum("bi,bj->bij", x[:, 0], y[:, 0])[..., None]
    for i in range(2):
        kernel, bias = (tree["params"][f"{n}_{i}"] for n in ("kernel", "bias"))
        patches = np.lib.stride_tricks.sliding_window_view(z, (3, 3), (1, 2))
        z = np.einsum("bijcpq,pqck->bijk", patches, kernel) + bias
        slope = {"relu": 0.0, "leaky_relu": 0.01, "none": 1.0}[last] if i else 0.0
        z = np.where(z > 0, z, slope * z)
    want = z.reshape(5, -1) * (np.arange(5) != 2)[:, None]
    np.testing.assert_allclose(first(got), want, rtol=2e-5, atol=1e-5)
    whole = block.clone(chunk=0).apply(tree, streams, train=False)["z"]
    close(whole.values, got.values)


def test_a_learnable_scale_starts_at_the_fixed_one(start):
    model = small(learnable_scale=True)
    params = {k: v for k, v in start["params"].items()}
    tau = jnp.log(1 / 0.07)
    for pair in CLIPS:
        name = pair.replace("/", "_")
        params[name] = {**params[name], "tau": tau}
    rngs = {"dropout": jax.random.key(0)}
    run = functools.partial(model.apply, {"params": params}, train=True, rngs=rngs)
    got = objective(1.0)(run(made_up()), made_up(), 0)[0]
    plain = small().apply(start, made_up(), train=True, rngs=rngs)
    close(got, objective(1 / 0.07)(plain, made_up(), 0)[0])


def test_lstm_takes_pixels_and_no_ids():
    clip = jnp.full((2, 3, 4, 4, 1), 255, jnp.uint8)
    mask = jnp.ones((2, 3), bool)
    tree = LSTMLast(4).init(jax.random.key(0), clip, mask, train=False)
    run = functools.partial(LSTMLast(4).apply, tree, train=False)
    close(run(clip, mask).values, run(jnp.ones((2, 3, 16)), mask).values)
    with pytest.raises(ConfigError, match="C26"):
        run(jnp.ones((2, 3), int), mask)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"order": ("text", "audio")}, "C22"),
        ({"order": ("text", "audio", "image")}, "C22"),
        ({"levels": (1, 4)}, "C03"),
        ({"parity": "papr"}, "C03"),
        ({"tcf_last_activation": "gelu"}, "C03"),
        ({"lifted": 6}, "C29"),
    ],
)
def test_says_what_is_wrong(options, code):
    with pytest.raises(ConfigError, match=code):
        count(small(**options), made_up())


@pytest.mark.parametrize("word", ["digits", *SIZES, "mmmo", "mosi_utterances"])
def test_configs_name_pairs_that_the_model_gives(word):
    config = load_config(f"{CONFIG}:{word}")
    pairs = [p for i in "123" for p in config.losses[f"level{i}"].pairs]
    assert sorted(pairs) == sorted(CLIPS)
    if word in SIZES:
        assert config.model.channels == SIZES[word][2]
