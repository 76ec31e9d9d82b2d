"""Hetero-Fusion-Net: golden blocks, counts, options, and every subset of modalities."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from golden_msa import fill, load
from loaded_tables import LOSSES, MODELS
from paths import ROOT

from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.load import load_config
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.encoders.precomputed import Precomputed
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.fusion.adaptive_gate import AdaptiveGate
from mmfusion_jax.fusion.modality_attention import ModalityAttention
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.models.hetero_fusion_net import HeteroFusionNet, JointRepresentation
from mmfusion_jax.types import Batch, Outputs, Tokens

close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
CONFIG = ROOT / "configs" / "hetero_fusion_net.py"
NAMES = ("audio", "image", "text", "video")
WIDTHS = {"audio": 5, "image": 7, "text": 6, "video": 3}


def linear(name, shape):
    bias = fill(f"hfn.{name}.bias", shape[:1])
    return {"kernel": fill(f"hfn.{name}.weight", shape).T, "bias": bias}


def test_golden_blocks(golden):
    arrays = load(golden)
    get = lambda name: arrays[f"spec_hfn/full_self/{name}"]
    f = jnp.asarray(arrays["spec_hfn/in.f"], jnp.float32)
    here = jnp.ones((4, 1), bool)
    streams = {m: Tokens(f[:, i : i + 1], here) for i, m in enumerate("TIAV")}

    sides = {"query": "Wq", "key": "Wk", "value": "Wv"}
    tree = {k: {"kernel": fill(f"hfn.{w}.weight", (8, 8)).T} for k, w in sides.items()}
    tree["out"] = linear("Wo", (8, 8))
    block = ModalityAttention(tuple("TIAV"), num_heads=2)
    got, state = block.apply(
        {"params": {"attention": tree}}, streams, train=False, mutable="intermediates"
    )
    (weights,) = state["intermediates"]["attention"]["weights"]
    close(weights, get("attn"))
    close(np.concatenate([got[m].values for m in "TIAV"], 1), get("attended"))

    gate = AdaptiveGate(tuple("TIAV"), hidden_dim=0)
    tree = {"params": {"gate": linear("gate", (4, 32))}}
    got = gate.apply(tree, got, train=False)
    close(got["gate"].values[..., 0], get("gate"))
    close(got["joint"].values[:, 0], get("fused"))

    tree = {f"linear_{i}": linear(f"fc{i}", (8, 8)) for i in (1, 2)}
    tree["linear_3"] = linear("fc3", (6, 8))
    for i in (1, 2):
        tree[f"norm_{i}"] = {
            "scale": fill(f"hfn.ln{i}.weight", (8,)),
            "bias": fill(f"hfn.ln{i}.bias", (8,)),
        }
    joint = JointRepresentation(8, 6)
    z = joint.apply({"params": tree}, got["joint"].values[:, 0], train=False)
    close(z, get("z"))
    head = linear("cls", (5, 6))
    close(jax.nn.softmax(z @ head["kernel"] + head["bias"]), get("probs"))


def test_golden_entropy_of_gates(golden):
    arrays = load(golden)
    gates = jnp.asarray(arrays["entropy_hfn_normalised/in.g"], jnp.float32)
    batch = Batch({}, {}, {}, jnp.ones(len(gates)))
    objective = Objective({"task": WeightedLoss(LOSSES["gate_entropy"]())})

    def entropy(gates):
        return -objective.value("task", Outputs(gates, {"gate": gates}), batch)

    value, slope = jax.value_and_grad(entropy)(gates)
    close(value, arrays["entropy_hfn_normalised/out"])
    close(slope, arrays["entropy_hfn_normalised/grad.g"])


def model(**options):
    encoders = {name: Precomputed() for name in NAMES}
    sizes = {
        "hidden_dim": 8,
        "num_heads": 2,
        "gate_hidden_dim": 6,
        "latent_dim": 4,
    }
    return HeteroFusionNet(FrozenDict(encoders), 3, **(sizes | options))


def make_batch(present=None):
    """A row for every subset of four modalities but the empty one."""
    rows = list(itertools.product((True, False), repeat=4))[:-1]
    present = np.array(rows) if present is None else present
    b = len(present)
    rng = np.random.default_rng(0)
    inputs, masks = {}, {}
    for i, (name, width) in enumerate(WIDTHS.items()):
        inputs[name] = rng.normal(size=(b, 2, width)).astype(np.float32)
        masks[name] = present[:, i : i + 1] & np.array([[True, False]])
    label = {"label": np.arange(b) % 3}
    return Batch(inputs, masks, label, np.ones(b, np.float32))


OBJECTIVE = Objective(
    {
        "task": WeightedLoss(LOSSES["cross_entropy"]("label")),
        "heads": WeightedLoss(LOSSES["unimodal_losses"]("label", NAMES)),
        "gates": WeightedLoss(LOSSES["gate_entropy"](), 0.01),
        "consistency": WeightedLoss(LOSSES["consistency"](NAMES), 0.1),
    }
)


@functools.cache
def start(**options):
    init = jax.jit(functools.partial(model(**options).init, train=False))
    return init(jax.random.key(0), make_batch())


@functools.partial(jax.jit, static_argnames=("net", "mutable"))
def apply(net, params, batch, mutable=False):
    return net.apply(params, batch, train=False, mutable=mutable)


def sizes(make, **options):
    """The parameters of every part of a model of the paper's four features."""
    widths = {"audio": 768, "image": 2048, "text": 768, "video": 512}
    inputs = {m: jnp.zeros((2, 1, w)) for m, w in widths.items()}
    masks = {m: jnp.ones((2, 1), bool) for m in widths}
    batch = Batch(inputs, masks, {}, jnp.ones(2))
    net = make({m: Precomputed() for m in widths}, 7, **options)
    init = functools.partial(net.init, train=False)
    tree = jax.eval_shape(init, jax.random.key(0), batch)["params"]
    return {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in tree.items()}


def counts(found, *begin):
    return sum(n for name, n in found.items() if name.startswith(begin))


def test_counts_of_the_paper():
    found = sizes(HeteroFusionNet)
    assert counts(found, "align") == 2_103_296
    assert found["attend"] == 1_049_088 and found["gate"] == 525_572
    assert found["joint"] == 2 * 263_680 + 131_328
    assert sum(found.values()) == 4_336_644 + 257 * 7 + 2_052 * 7 == 4_352_807
    assert sizes(HeteroFusionNet, gate_hidden_dim=0)["gate"] == 8_196


@pytest.mark.parametrize("word", ["digits_early", "digits_late"])
def test_counts_of_the_baselines(word):
    options = load_config(f"{CONFIG}:{word}").model.to_dict()
    name, _ = options.pop("name"), options.pop("encoders")
    early = word == "digits_early"
    sides = {"hidden_dims": (1024, 512, 256) if early else (512, 256)}
    found = sizes(MODELS[name], **(options | sides | {"projection_dim": 512}))
    assert counts(found, "align") == 2_103_296
    if early:
        assert sum(found.values()) - 2_103_296 == 2_754_304 + 257 * 7
    else:
        assert counts(found, "hidden_text", "head_text") == 393_984 + 257 * 7
        assert found["weigh"] == 4 * 7 * 4 + 4


WORDS = ("digits", "av_mnist", "mosei", "iemocap", "iemocap_emotion", "clips")


@pytest.mark.parametrize(
    "word", [f"{w}{b}" for w in WORDS for b in ("", "_early", "_late")]
)
def test_every_config_names_what_exists(word):
    config = load_config(f"{CONFIG}:{word}")
    for name, value in config.data.modality_dropout.items():
        assert name in config.model.encoders and value == 0
    flags = config.data.label == "emotions"
    assert flags == (word in ("iemocap", "iemocap_early", "iemocap_late"))
    assert ("mis" in config) == (word.split("_early") == [word] and not flags)
    for spec in config.losses.values():
        if "modalities" in spec:
            assert set(spec.modalities) == set(config.model.encoders)
    data = Dataset("", "", {}, classes={config.data.label: ("a", "b")})
    if flags:
        data = Dataset("", "", {}, flags={config.data.label: ("a", "b")})
    spec = resolve(config)
    task = build.build_task(spec, data)
    build.check_selection_metric(spec.training.selection_metric, task)
    build.build_objective(spec, task)
    build_data.with_augmentations(data, spec)
    model = build.build_model(spec, task, None).model
    assert model.encoders.keys() == set(config.model.encoders)


def test_a_word_that_is_no_data_is_refused():
    with pytest.raises(ConfigError, match="digits_lately"):
        load_config(f"{CONFIG}:digits_lately")


@pytest.mark.parametrize(
    ("word", "shapes"),
    [
        ("mosei", {"audio": (3, 74), "text": (3, 300), "video": (3, 35)}),
        ("iemocap", {"audio": (3, 74), "text": (3, 300), "video": (3, 35)}),
        ("av_mnist", {"audio": (1, 32, 32, 1), "image": (1, 28, 28, 1)}),
    ],
)
def test_configs_fit_their_data(word, shapes):
    config = load_config(f"{CONFIG}:{word}")
    flags = word == "iemocap"
    kind = {"flags" if flags else "classes": {config.data.label: ("a", "b", "c")}}
    spec = resolve(config)
    task = build.build_task(spec, Dataset("", "", {}, **kind))
    net = build.build_model(spec, task, None)
    inputs = {m: jnp.zeros((2, *s), jnp.float32) for m, s in shapes.items()}
    masks = {m: jnp.ones((2, s[0]), bool) for m, s in shapes.items()}
    label = jnp.zeros((2, 3) if flags else 2, int)
    batch = Batch(inputs, masks, {config.data.label: label}, jnp.ones(2))
    objective = build.build_objective(spec, task)

    def run():
        tree = net.init(jax.random.key(0), batch, train=False)
        outputs = net.apply(tree, batch, train=False)
        task.metrics().collect(outputs, batch)
        return objective(outputs, batch, jnp.zeros(()))

    total, terms = jax.eval_shape(run)
    assert total.shape == () and len(terms) == 4


def test_a_missing_modality_is_as_if_there_were_none():
    net, whole = model(), make_batch(np.array([[True, False, True, True]] * 3))
    got = apply(net, start(), whole)
    assert not np.any(got.aux["image"]) and np.any(got.aux["audio"])
    assert not np.any(got.aux["gate"][:, 1]) and np.all(got.aux["gate"][:, 0] > 0)
    few = {m: Precomputed() for m in NAMES if m != "image"}
    params = dict(start()["params"])
    kernel = params["gate"]["hidden"]["kernel"]
    kernel = jnp.concatenate([kernel[:8], kernel[16:]])
    gate = {
        "hidden": {**params["gate"]["hidden"], "kernel": kernel},
        "gate": jax.tree.map(
            lambda x: jnp.delete(x, 1, axis=-1), params["gate"]["gate"]
        ),
    }
    small = HeteroFusionNet(
        FrozenDict(few), 3, hidden_dim=8, num_heads=2, gate_hidden_dim=6, latent_dim=4
    )
    params["gate"] = gate
    want = apply(small, {"params": params}, whole)
    close(got.prediction, want.prediction)


def test_none_at_all_says_the_bias_of_the_head():
    batch = make_batch(np.zeros((2, 4), bool))
    got = apply(model(), start(), batch)
    bias = start()["params"]["head"]["bias"]
    np.testing.assert_array_equal(got.prediction, np.stack([bias, bias]))


def test_a_lone_modality_asks_itself():
    net = model(include_self=False)
    alone = np.array([[True, False, False, False]])
    both = make_batch(np.array([[True, True, False, False]]))
    run = lambda batch: apply(net, start(include_self=False), batch, "intermediates")[
        1
    ]["intermediates"]["attend"]["attention"]["weights"][0][0, 0]
    close(run(make_batch(alone))[0], [1, 0, 0, 0])
    close(run(both)[:2], [[0, 1, 0, 0], [1, 0, 0, 0]])


def test_detached_heads_teach_nothing():
    batch = make_batch()
    for detach in (False, True):
        net = model(detach_unimodal_heads=detach)

        def heads(params, net=net):
            outputs = net.apply(params, batch, train=False)
            return OBJECTIVE.value("heads", outputs, batch)

        grads = jax.jit(jax.grad(heads))(start())["params"]
        assert np.any(grads["head_audio"]["kernel"])
        assert np.any(grads["align_audio"]["kernel"]) != detach


def test_unknown_gate_and_no_encoder_are_refused():
    with pytest.raises(ConfigError, match=r"gate='tanh' is unknown"):
        start(gate="tanh")
    with pytest.raises(ConfigError, match="at least one encoder"):
        HeteroFusionNet({}, 3).init(jax.random.key(0), make_batch(), train=False)


def test_bfloat16_keeps_parameters_and_gates_exact():
    net = model(dtype=jnp.bfloat16)
    params = start(dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    got = apply(net, params, make_batch())
    assert got.aux["gate"].dtype == jnp.float32
    want = apply(model(), params, make_batch())
    np.testing.assert_allclose(got.prediction, want.prediction, atol=0.1)


# --- The loss terms, by hand ---------------------------------------------------------


def row(**logits):
    masks = {m: jnp.array([[m != "video"]]) for m in NAMES}
    batch = Batch({}, masks, {"label": jnp.array([1])}, jnp.ones(1))
    aux = {f"logits/{m}": jnp.log(jnp.array([x])) for m, x in logits.items()}
    return batch, aux


def test_consistency_and_heads_by_hand():
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.7, 0.1])
    batch, aux = row(audio=p, image=q, text=q, video=[0.0, 0.5, 0.5])
    outputs = Outputs(jnp.log(jnp.array([p])), aux)
    cosine = (2 * 0.7 * 0.2 + 0.01) / 0.54
    got = LOSSES["consistency"](NAMES)(outputs, batch)
    close(got, [1 - (1 + 2 * cosine) / 3])
    got = LOSSES["unimodal_losses"]("label", NAMES)(outputs, batch)
    close(got, [-(np.log(0.2) + 2 * np.log(0.7)) / 3])


def test_gate_entropy_by_hand():
    gate = jnp.array([[0.5, 0.25, 0.0], [1.0, 0.0, 0.0]])
    batch, outputs = Batch({}, {}, {}, jnp.ones(2)), Outputs(gate, {"gate": gate})
    p = np.array([2 / 3, 1 / 3])
    got = LOSSES["gate_entropy"]()(outputs, batch)
    close(got, [np.sum(p * np.log(p)), 0])
    got = LOSSES["gate_entropy"]("paper")(outputs, batch)
    close(got, [0.5 * np.log(2) + 0.25 * np.log(4), 0])
