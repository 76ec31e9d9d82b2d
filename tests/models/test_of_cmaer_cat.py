"""OF-CMAER-CAT: the golden model, counts, ablations, masks, missing modalities."""

import functools
import itertools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden_msa import load, weights
from groups import in_ci
from loaded_tables import ENCODERS, LOSSES
from paths import ROOT

from mmfusion_jax.config.load import load_config
from mmfusion_jax.config.optimizer import l2_penalty
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.encoders.signal_conv import SignalConv
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.fusion.cross_modal_alignment import CrossModalAlignment
from mmfusion_jax.fusion.transformer_context import TransformerContext
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.models.of_cmaer_cat import OFCMAERCAT
from mmfusion_jax.types import Batch, Outputs, Tokens

close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
ORDER = ("V", "A", "P")
CONFIG = ROOT / "configs" / "of_cmaer_cat.py"
WORDS = ["digits", "iemocap", "mosei", "deap", "stress", "mmmo", "deap-awom"]
WORDS.append("iemocap_emotion")
STEPS = {"V": 5, "A": 7, "P": 4}
BARE = dict(weighting=False, transformer=False, reconstruction=False)
ABLATIONS = {
    "cnn": dict(alignment=False, **BARE),
    "cmaa": BARE,
    "awom": dict(transformer=False),
    "full": dict(),
}
"""Rows of Table 4; "+ Contrastive Loss" is "awom" with that term."""


class Given(nn.Module):
    """An encoder whose inputs are tokens already."""

    @nn.compact
    def __call__(self, values, mask, *, train):
        return Tokens(values, mask)


def terms(contrast=0.1):
    return {
        "task": WeightedLoss(LOSSES["cross_entropy"]("label"), 1.0),
        "contrast": WeightedLoss(LOSSES["modality_contrast"](ORDER), contrast),
        "reconstruction": WeightedLoss(LOSSES["reconstruction"](ORDER), 0.1),
        "balance": WeightedLoss(LOSSES["gate_entropy"](gate="weights"), 0.01),
    }


def small(**options):
    encoders = {m: SignalConv(8) for m in ORDER}
    sizes = dict(hidden_dim=6, weight_hidden_dim=5, context_layers=1, context_heads=2)
    return OFCMAERCAT(encoders, 3, ORDER, **(sizes | options))


def made_up(b=4, width=3):
    key = jax.random.key(3)
    inputs = {m: jax.random.normal(key, (b, t, width)) for m, t in STEPS.items()}
    masks = {
        m: jnp.arange(t) < t - jnp.arange(b)[:, None] % 3 for m, t in STEPS.items()
    }
    return Batch(inputs, masks, {"label": jnp.arange(b) % 3}, jnp.ones(b))


@functools.cache
def start(**options):
    init = functools.partial(small(**options).init, train=True)
    return jax.jit(init)({"params": jax.random.key(0)}, made_up())


@pytest.fixture(scope="module")
def arrays(golden):
    return load(golden)


@pytest.fixture(scope="module")
def golden_case(arrays):
    """The model without transformer, its weights, and the batch of encoded streams."""
    torch = weights(arrays, "spec")
    line = lambda name: {
        "kernel": torch[f"cat.{name}.weight"].T,
        "bias": torch[f"cat.{name}.bias"],
    }
    params = {
        "alignment": {
            "query": {"kernel": torch["cat.Wq"]},
            "key": {"kernel": torch["cat.Wk"]},
            "value": {"kernel": torch["cat.Wv"]},
            "similarity": {"kernel": torch["cat.Wphi"]},
            "gate_hidden": line("G1"),
            "gate": line("G2"),
            "norm": {"scale": torch["cat.ln.weight"], "bias": torch["cat.ln.bias"]},
        },
        "weighting": {"hidden": line("w1"), "score": line("w2")},
        "project": line("proj"),
        "head": line("cls"),
    }
    inputs = {m: arrays[f"spec_cat/in.F{m}"].astype(np.float32) for m in ORDER}
    masks = {m: np.ones(x.shape[:2], bool) for m, x in inputs.items()}
    model = OFCMAERCAT(
        {m: Given() for m in ORDER},
        4,
        ORDER,
        transformer=False,
        reconstruction=False,
        hidden_dim=4,
        weight_hidden_dim=5,
    )
    return model, {"params": params}, Batch(inputs, masks, {}, np.ones(3, np.float32))


def test_golden_model(arrays, golden_case):
    model, params, batch = golden_case
    get = lambda name: arrays[f"spec_cat/full/{name}"]
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), batch)
    chex.assert_trees_all_equal_shapes(shapes, params)
    out = jax.jit(functools.partial(model.apply, train=False))(params, batch)
    for i, m in enumerate(ORDER):
        partners = [j for j in range(3) if j != i]
        close(out.aux["alpha"][:, i, partners], get(f"alpha{m}"))
    assert not np.any(np.diagonal(out.aux["alpha"], axis1=1, axis2=2))
    close(out.aux["weights"], get("w_tilde"))
    close(out.aux["fused"], get("h_fused"))
    close(jax.nn.softmax(out.prediction), get("probs"))
    value = lambda term: Objective({"task": WeightedLoss(term)}).value(
        "task", out, batch
    )
    paper = LOSSES["gate_entropy"](form="paper", gate="weights")
    close(-value(paper), -get("R_ent"))
    for negatives, name in (("batch", "batch"), ("same_sample", "literal_same_sample")):
        term = LOSSES["modality_contrast"](ORDER, 0.1, negatives)
        close(value(term), get(f"L_con_{name}"))


def test_golden_alignment(arrays, golden_case):
    _, params, batch = golden_case
    block = CrossModalAlignment(ORDER)
    streams = {m: Tokens(batch.inputs[m], batch.masks[m]) for m in ORDER}
    tree = {"params": params["params"]["alignment"]}
    got = jax.jit(functools.partial(block.apply, train=False))(tree, streams)
    for m in ORDER:
        close(got[m].values, arrays[f"spec_cat/full/Fa{m}"])


def count(tree):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("widths", [(3, 3, 3), (20, 5, 40)])
def test_parameter_counts_of_the_specification(widths):
    model = OFCMAERCAT({m: SignalConv() for m in ORDER}, 4, ORDER)
    sizes = dict(zip(ORDER, widths, strict=True))
    batch = made_up()
    inputs = {m: jnp.ones((2, STEPS[m], c)) for m, c in sizes.items()}
    masks = {m: jnp.ones((2, STEPS[m]), bool) for m in ORDER}
    batch = Batch(inputs, masks, {}, jnp.ones(2))
    init = functools.partial(model.init, train=False)
    tree = jax.eval_shape(init, jax.random.key(0), batch)["params"]
    part = {name: count(sub) for name, sub in tree.items()}
    assert part["alignment"] == 115_200
    assert part["weighting"] == 16_513
    assert part["project"] + part["head"] == 8_516
    assert sum(v for k, v in part.items() if k.startswith("decode_")) == 99_072
    assert part["context"] == 397_184
    for m, c in sizes.items():
        assert part[f"encoders_{m}"] == 384 * c + 49_920


KEY = jax.random.key(0)
ROWS = [(row, "weighted_sum") for row in ABLATIONS] + [("full", "concat")]


@functools.cache
def graded(row, head_type):
    """Loss and gradients of a model that does not drop out, by its parameters."""
    model = small(**ABLATIONS[row], head_type=head_type, dropout=0.0)
    model = model.clone(encoders={m: SignalConv(8, dropout=0.0) for m in ORDER})
    kept = terms()
    if row in ("cnn", "cmaa"):
        del kept["reconstruction"], kept["balance"]
    batch, objective = made_up(), Objective(kept)

    def loss(params):
        out = model.apply(params, batch, train=True)
        return objective(out, batch, jnp.array(0))[0]

    return jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize(("row", "head_type"), in_ci(ROWS, ROWS[0], several=True))
def test_rows_of_table_4(row, head_type):
    options = ABLATIONS[row] | {"head_type": head_type}
    tree = start(**options)
    gone = {
        "alignment": row == "cnn",
        "weighting": row in ("cnn", "cmaa"),
        "context": row != "full",
        "decode_V_0": row in ("cnn", "cmaa"),
    }
    for name, left_out in gone.items():
        assert (name in tree["params"]) != left_out
    value, grads = graded(row, head_type)(tree)
    assert np.isfinite(value)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all(), path
        # Adding the same to all scores changes no weight.
        if "'score']['bias']" not in jax.tree_util.keystr(path):
            assert np.any(grad), path


@pytest.mark.ci
def test_the_loss_falls_on_one_batch():
    tree = start(head_type="weighted_sum")
    tx = optax.adam(1e-2)
    state, values = tx.init(tree), []
    step = jax.jit(lambda g, s, p: tx.update(g, s, p))
    for _ in range(40):
        value, grads = graded("full", "weighted_sum")(tree)
        updates, state = step(grads, state, tree)
        tree = optax.apply_updates(tree, updates)
        values.append(float(value))
    assert values[-1] < 0.5 * values[0]


def test_equal_weights_without_awom():
    options = ABLATIONS["cmaa"]
    batch = made_up()
    masks = {**batch.masks, "A": batch.masks["A"].at[1].set(False)}
    batch = batch.replace(masks=masks)
    run = jax.jit(functools.partial(small(**options).apply, train=False))
    tree = start(**options, head_type="weighted_sum")
    out = run(tree, batch)
    want = [[1 / 3] * 3, [0.5, 0, 0.5], [1 / 3] * 3, [1 / 3] * 3]
    close(out.aux["weights"], want)


@pytest.mark.ci
def test_the_contrast_does_not_change_the_model():
    """The step of Table 4 adds a term, whose gradient reaches the encoders alone."""
    options = ABLATIONS["awom"]
    only = Objective({"task": terms()["contrast"]})
    value = lambda p: only(
        small(**options).apply(p, made_up(), train=True, rngs={"dropout": KEY}),
        made_up(),
        jnp.array(0),
    )[0]
    tree = start(**options, head_type="weighted_sum")
    grads = jax.jit(jax.grad(value))(tree)["params"]
    moved = {k for k, g in grads.items() if any(jnp.any(x) for x in jax.tree.leaves(g))}
    assert moved == {f"encoders_{m}" for m in ORDER}


@pytest.mark.ci
def test_weights_behind_the_transformer():
    """Eq. 11 over what the transformer makes of unweighted tokens."""
    model, batch = small(context_pooling="weighted"), made_up()
    apply = functools.partial(
        model.apply,
        train=False,
        mutable=["intermediates"],
        capture_intermediates=lambda module, _: module.name in ("context", "alignment"),
    )
    tree = start(context_pooling="weighted")
    out, kept = jax.jit(apply)(tree, batch)
    made = {k: v["__call__"][0] for k, v in kept["intermediates"].items()}
    block = TransformerContext(ORDER, num_layers=1, num_heads=2)
    params = {"params": tree["params"]["context"]}
    context = block.apply(params, made["alignment"], train=False)
    want = np.zeros_like(out.aux["fused"])
    for i, m in enumerate(ORDER):
        close(made["context"][m].values, context[m].values)
        mask = np.asarray(batch.masks[m])[..., None]
        mean = (np.asarray(context[m].values) * mask).sum(1) / mask.sum(1)
        want += np.asarray(out.aux["weights"])[:, i, None] * mean
    close(out.aux["fused"], want)
    with pytest.raises(ConfigError, match=r"C03.*context_pooling='mean'"):
        small(context_pooling="mean").init(KEY, batch, train=False)


def test_lambda_5_is_that_of_equation_19():
    """The gradient of lambda_5 |theta|^2 reaches biases and norms too."""
    spec = resolve(load_config(f"{CONFIG}:deap")).optimizer
    lambda_5, penalty = spec.coupled_weight_decay / 2, l2_penalty(spec)
    params = {"head": {"kernel": jnp.full(3, 2.0), "bias": jnp.full(1, 2.0)}}
    assert lambda_5 == 1e-6 and penalty is not None
    close(penalty(params), lambda_5 * 16)
    want = jax.tree.map(lambda x: 2 * lambda_5 * x, params)
    chex.assert_trees_all_close(jax.grad(penalty)(params), want)


SUBSETS = [s for n in (1, 2, 3) for s in itertools.combinations(ORDER, n)]


@pytest.mark.ci
def test_weights_of_every_subset_of_modalities():
    """One example for each subset, one with nothing, and a padding row."""
    batch = made_up(9)
    has = {m: jnp.array([m in s for s in SUBSETS] + [False, True]) for m in ORDER}
    masks = {m: mask & has[m][:, None] for m, mask in batch.masks.items()}
    batch = batch.replace(masks=masks, weight=jnp.ones(9).at[8].set(0))
    run = jax.jit(functools.partial(small().apply, train=False))
    weights = run(start(head_type="weighted_sum"), batch).aux["weights"]
    assert not np.any(weights[7:])
    for row, subset in enumerate(SUBSETS):
        heavy = np.flatnonzero(weights[row]).tolist()
        assert heavy == [ORDER.index(m) for m in ORDER if m in subset]
    close(weights[:7].sum(1), np.ones(7))


@pytest.mark.ci
def test_padding_changes_nothing():
    tree = start(head_type="weighted_sum")
    batch, run = made_up(), jax.jit(functools.partial(small().apply, train=False))
    more = lambda x: jnp.pad(x, [(0, 0), (0, 3)] + [(0, 0)] * (x.ndim - 2))
    padded = batch.replace(
        inputs={m: more(x) for m, x in batch.inputs.items()},
        masks={m: more(x) for m, x in batch.masks.items()},
    )
    close(run(tree, padded).prediction, run(tree, batch).prediction)


def test_any_number_of_modalities():
    for n in (1, 2, 5):
        names = tuple("abcde"[:n])
        model = OFCMAERCAT({m: SignalConv(8) for m in names}, 1, context_heads=2)
        inputs = {m: jnp.ones((2, 4, 3)) for m in names}
        masks = dict.fromkeys(names, jnp.ones((2, 4), bool))
        batch = Batch(inputs, masks, {}, jnp.ones(2))
        init = functools.partial(model.init_with_output, train=False)
        out, _ = jax.eval_shape(init, KEY, batch)
        assert out.prediction.shape == (2,)
        assert out.aux["weights"].shape == (2, n)


def test_projections_of_their_own():
    streams = {m: Tokens(jnp.ones((2, t, 4)), jnp.ones((2, t), bool))
               for m, t in STEPS.items()}  # fmt: skip
    block = CrossModalAlignment(ORDER, num_heads=2, per_modality=True)
    init = functools.partial(block.init, train=False)
    tree = jax.eval_shape(init, KEY, streams)["params"]
    assert {f"query_{m}" for m in ORDER} < tree.keys()
    with pytest.raises(ConfigError, match=r"C10.*heads=3"):
        CrossModalAlignment(ORDER, num_heads=3).init(KEY, streams, train=False)


def test_positions_begin_anew_in_each_modality():
    """Two modalities of the same tokens differ by their kind alone."""
    x = Tokens(jax.random.normal(KEY, (1, 4, 8)), jnp.ones((1, 4), bool))
    block = TransformerContext(("V", "A"), num_layers=1, num_heads=2)
    streams = {"V": x, "A": x, "P": x}
    tree = block.init(KEY, streams, train=False)
    tree["params"]["modality"] = jnp.zeros((2, 8))
    got = block.apply(tree, streams, train=False)
    close(got["V"].values, got["A"].values)
    assert got["P"] is x


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"head_type": "sum"}, "C03"),
        ({"modality_order": ("V", "A")}, "C22"),
    ],
)
def test_says_what_is_wrong(options, code):
    given = {"encoders": {m: SignalConv(8) for m in ORDER}, "head_size": 2}
    with pytest.raises(ConfigError, match=code):
        OFCMAERCAT(**(given | options)).init(KEY, made_up(), train=False)


def test_contrast_by_hand():
    """Unavailable modalities are no anchors, no partners and no negatives."""
    views = {"V": jnp.eye(3)[:2], "A": jnp.eye(3)[:2], "P": jnp.eye(3)[:2]}
    aux = {f"pooled/{m}": x for m, x in views.items()}
    masks = {m: jnp.ones((2, 1), bool) for m in ORDER}
    batch = Batch({}, masks, {}, jnp.ones(2))
    out = Outputs(jnp.zeros((2, 3)), aux)
    term = LOSSES["modality_contrast"](ORDER, 1.0)
    one = np.log(1 + np.exp(-1))
    close(term(out, batch), [3 * one] * 2)
    lacking = {**masks, "A": jnp.array([[True], [False]])}
    # Row 0: A is the only candidate of its kind, which costs 0; all else is among two.
    got = term(out, batch.replace(masks=lacking))
    close(got, [one / 2 + one + one / 2, 2 * one])
    sample = LOSSES["modality_contrast"](ORDER, 1.0, "same_sample")
    close(sample(out, batch), [3 * np.log(2)] * 2)
    # Row 1: V follows no one, and P finds V without a rival.
    close(sample(out, batch.replace(masks=lacking))[1], 0, atol=1e-6)
    single = jax.tree.map(lambda x: x[:1], (out, batch))
    assert float(term(*single)[0]) == 0


@pytest.mark.parametrize("word", WORDS)
def test_configs_name_what_the_model_gives(word):
    config = load_config(f"{CONFIG}:{word}")
    order = tuple(config.model.modality_order)
    assert set(order) == set(config.model.encoders)
    for name in {"contrastive", "reconstruction"} & set(config.losses):
        assert tuple(config.losses[name].modalities) == order
    options = config.model.to_dict() | {"head_size": 2}
    assert options.pop("name") == "of_cmaer_cat"
    specs = options.pop("encoders").items()
    made = {m: ENCODERS[spec.pop("name")](**spec) for m, spec in specs}
    OFCMAERCAT(encoders=made, **options)


def test_words_of_table_4():
    config = load_config(f"{CONFIG}:stress-contrastive")
    assert set(config.losses) == {"task", "contrastive", "reconstruction", "entropy"}
    assert config.model.alignment and config.model.weighting
    assert not config.model.transformer
    config = load_config(f"{CONFIG}:digits-cmaa")
    assert set(config.losses) == {"task"}
    assert config.model.alignment and not config.model.weighting
    assert not config.model.reconstruction
    for wrong in ("digits-cmaaa", "digit"):
        with pytest.raises(ConfigError, match="of_cmaer_cat knows av_mnist, clips"):
            load_config(f"{CONFIG}:{wrong}")
