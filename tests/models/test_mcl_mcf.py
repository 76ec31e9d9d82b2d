"""MCL-MCF: counts, ablations, masks, dead convolutions, what its configs name."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mcl_mcf_models import PAIRS, count, loss_of, made_up, objective, small
from paths import ROOT

from mmfusion_jax.config.load import load_config
from mmfusion_jax.encoders.bert import Bert
from mmfusion_jax.encoders.lstm import LSTMEncoder
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.models.mcl_mcf import MCLMCF
from mmfusion_jax.ops.feature_variation import varying_energy
from mmfusion_jax.types import Outputs

close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
CONFIG = ROOT / "configs" / "mcl_mcf.py"
SIZES = {
    "mosi": (20, 5, (4, 6, 1), 199_295_928, 2_099_457),
    "mosei": (35, 74, (2, 4, 1), 199_316_880, 2_120_961),
    "sims": (709, 33, (4, 7, 1), 199_479_618, 2_283_009),
}
LSTM_BIASES = 2 * 256


@pytest.mark.parametrize("data", SIZES)
def test_counts_of_the_paper(data):
    video, audio, channels, total, inference = SIZES[data]
    text = Bert(num_layers=1, mlp_dim=8, vocab_size=50)
    encoders = {"text": text, "audio": LSTMEncoder(64), "video": LSTMEncoder(64)}
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
    assert all(part[k] == whole[k] for k in left)
    if options.get("mcf", True):
        assert part.keys() == left
    else:
        assert part.keys() == left | {"linear_0", "linear_1"}
        assert part["linear_0"] == (24 + 8 + 8 + 1) * 16
        assert part["linear_1"] == (16 + 1) * 16


def test_linear_layers_without_mcf():
    model = small(mcf=False, levels=())
    outputs, tree = model.init_with_output(jax.random.key(0), made_up(), train=False)
    modules = tree["params"]
    layer = lambda name, x: x @ modules[name]["kernel"] + modules[name]["bias"]
    parts = [outputs.aux[m] for m in ("text", "audio", "video")]
    x = np.maximum(layer("linear_0", np.concatenate(parts, axis=-1)), 0)
    want = layer("linear_1", x)
    np.testing.assert_allclose(outputs.aux["fused"], want, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def start():
    return small().init(jax.random.key(0), made_up(), train=True)


@pytest.mark.ci
def test_what_is_missing_is_in_no_pair(start):
    batch = made_up()
    masks = dict(batch.masks)
    masks["audio"] = masks["audio"].at[1].set(False)
    masks["text"] = masks["text"].at[2].set(False)
    rngs = {"dropout": jax.random.key(0)}
    batch = batch.replace(masks=masks)
    got = small().apply(start, batch, train=True, rngs=rngs).aux
    valid = lambda pair: got[f"{pair}/valid"].tolist()
    assert valid("level1/text_video") == [True, True, False, True]
    assert valid("level2/text_video_audio") == [True, False, False, True]
    assert valid("level3/text_video_video_audio") == [True, False, False, True]
    assert not np.any(got["audio"][1]) and np.any(got["audio"][0])


@pytest.mark.ci
def test_a_dead_convolution_is_finite(start):
    params = dict(start["params"])
    for pair in ("text_video", "text_audio", "video_audio"):
        name = f"tcf_{pair}"
        params[name] = {**params[name], "bias_2": jnp.full(1, -1e3)}
    run = jax.jit(jax.value_and_grad(functools.partial(loss_of, made_up())))
    chex.assert_tree_all_finite(run({"params": params}))
    rngs = {"dropout": jax.random.key(0)}
    got: Outputs = small().apply({"params": params}, made_up(), train=True, rngs=rngs)
    assert not np.any(got.aux["log/varying_energy/text_video"])


def smallest_shares(**options):
    """Least share of energy that differs between examples at the start, 30 seeds."""
    batch = made_up()
    text = Bert(24, 1, 4, 40, vocab_size=50, max_position_embeddings=16, dropout=0.0)
    model = small(text, **options)

    def shares(key):
        keys = {"params": key, "dropout": key}
        aux = model.init_with_output(keys, batch, train=True)[0].aux
        views = {k: v for k, v in aux.items() if k.endswith(("/x", "/y"))}
        found = {k: varying_energy(v, jnp.ones(4, bool)) for k, v in views.items()}
        return found | {k: v[0] for k, v in aux.items() if k.startswith("log/")}

    found = jax.jit(jax.vmap(shares))(jax.random.split(jax.random.key(0), 30))
    return {k: float(jnp.min(v)) for k, v in found.items()}


@pytest.mark.ci
def test_no_view_starts_dead_or_constant():
    found = smallest_shares()
    assert len(found) == 2 * len(PAIRS) + 3
    assert min(found.values()) > 0.01, found
    code = smallest_shares(variant="released_code")
    assert min(code.values()) < 0.01


@pytest.mark.ci
def test_a_learnable_scale_starts_at_the_fixed_one(start):
    model = small(learnable_scale=True)
    params = {k: v for k, v in start["params"].items()}
    tau = jnp.log(1 / 0.07)
    for pair in PAIRS:
        name = pair.replace("/", "_")
        params[name] = {**params[name], "tau": tau}
    rngs = {"dropout": jax.random.key(0)}
    run = functools.partial(model.apply, {"params": params}, train=True, rngs=rngs)
    got = objective(1.0)(run(made_up()), made_up(), 0)[0]
    plain = small().apply(start, made_up(), train=True, rngs=rngs)
    close(got, objective(1 / 0.07)(plain, made_up(), 0)[0])


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"modality_order": ("text", "audio")}, "C22"),
        ({"modality_order": ("text", "audio", "image")}, "C22"),
        ({"levels": (1, 4)}, "C03"),
        ({"variant": "papr"}, "C03"),
        ({"tcf_last_activation": "gelu"}, "C03"),
        ({"projection_dim": 6}, "C29"),
    ],
)
def test_says_what_is_wrong(options, code):
    with pytest.raises(ConfigError, match=code):
        count(small(**options), made_up())


@pytest.mark.parametrize("word", ["digits", *SIZES, "mmmo", "mosi_utterances"])
def test_configs_name_pairs_that_the_model_gives(word):
    config = load_config(f"{CONFIG}:{word}")
    pairs = [p for i in "123" for p in config.losses[f"level{i}"].pairs]
    assert sorted(pairs) == sorted(PAIRS)
    if word in SIZES:
        assert config.model.channels == SIZES[word][2]


@pytest.mark.ci
def test_all_devices_together_give_the_value_of_one(answer_of):
    """And no device computes the images of examples of another one."""
    found = answer_of("subprocess_mcl_mcf.py")
    assert len(found["differences"]) == 3
    assert not {k: v for k, v in found["differences"].items() if v > 1e-12}
    assert found["rows"] == 8  # half of a chunk
