"""Loss terms beside reference values and gradients, and worked by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_msa import fill, load
from loaded_tables import LOSSES

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.ops.contrastive import info_nce, l2_normalize
from mmfusion_jax.ops.gradient_reversal import ramp, reverse_gradient
from mmfusion_jax.ops.independence import hsic, squared_cross_correlation
from mmfusion_jax.types import Batch, Outputs

close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
MODALITIES = {"text": "L", "video": "V", "audio": "A"}  # the order of MEA's labels
CONTRASTS = {
    "infonce_sym_5x7_tau0.07": 1 / 0.07,
    "infonce_sym_5x7_scale1": 1.0,
    "infonce_sym_5x7_expTau0.5": float(np.exp(0.5)),
}


@pytest.fixture(scope="module")
def arrays(golden):
    return load(golden)


def batch_of(rows, **labels):
    mask = jnp.ones((rows, 1), bool)
    masks = dict.fromkeys(MODALITIES, mask)
    return Batch({}, masks, labels, jnp.ones(rows))


def value_of(term, outputs, batch):
    return Objective({"task": WeightedLoss(term)}).value("task", outputs, batch)


@pytest.mark.parametrize("case", CONTRASTS)
def test_info_nce(arrays, case):
    term = LOSSES["info_nce"](pairs=("p",), scale=CONTRASTS[case])
    loss = lambda x, y: value_of(
        term, Outputs(x, {"p/x": l2_normalize(x), "p/y": l2_normalize(y)}), batch_of(5)
    )
    ins = [jnp.asarray(arrays[f"{case}/in.{n}"], jnp.float32) for n in "xy"]
    value, grads = jax.value_and_grad(loss, (0, 1))(*ins)
    close(value, arrays[f"{case}/out"])
    for name, grad in zip("xy", grads, strict=True):
        close(grad, arrays[f"{case}/grad.{name}"])


def test_info_nce_one_way(arrays):
    # The one-way value has the inputs of the symmetric one.
    x, y = (jnp.asarray(arrays[f"infonce_sym_5x7_tau0.07/in.{n}"]) for n in "xy")
    values = info_nce(
        l2_normalize(x), l2_normalize(y), jnp.ones(5, bool), symmetric=False
    )
    close(jnp.mean(values), arrays["infonce_oneway_5x7_tau0.07/out"])


@pytest.mark.parametrize("official", [False, True])
def test_algorithm_1_and_the_official_variant(arrays, official):
    """The projections are in the model; the official variant normalizes y first."""
    linear = lambda x, name, d: (
        x @ fill(f"{name}.weight", (5, d)).T + fill(f"{name}.bias", (5,))
    )

    def loss(x, y):
        x = l2_normalize(linear(x, "alg1.x_proj", 9))
        y = l2_normalize(y) if official else y
        y = linear(y, "alg1.y_proj", 4)
        scale = np.log(1 / 0.07) if official else 1 / 0.07
        y = y if official else l2_normalize(y)
        return jnp.mean(info_nce(x, y, jnp.ones(6, bool), scale=scale))

    ins = [jnp.asarray(arrays[f"alg1_proj/in.{n}"], jnp.float32) for n in "xy"]
    case = "official_clip" if official else "alg1_proj"
    value, grads = jax.value_and_grad(loss, (0, 1))(*ins)
    close(value, arrays[f"{case}/out"])
    for name, grad in zip("xy", grads, strict=True):
        close(grad, arrays[f"{case}/grad.{name}"])


def test_designs_by_hand():
    """Rows 0 and 1 share a class; the products are 2 on the diagonal, else 1."""
    x = jnp.eye(3)
    y = jnp.eye(3) + 1
    batch = batch_of(3, label=jnp.array([0.5, 2.0, -1.0]))
    outputs = Outputs(x, {"p/x": x, "p/y": y})
    e = np.e
    want = {
        "pair": [np.log(1 + 2 / e)] * 3,
        "pair_other_class": [np.log(1 + 1 / e), np.log(1 + 1 / e), np.log(1 + 2 / e)],
        "same_class": [np.log(2), np.log(2), 0],
    }
    for positives, values in want.items():
        term = LOSSES["info_nce"](("p",), 1.0, positives=positives, label="label")
        close(term(outputs, batch), values)


def test_weights_of_classes():
    batch, logits = batch_of(2, label=jnp.array([1, 0])), Outputs(jnp.zeros((2, 2)))
    term = LOSSES["cross_entropy"]("label", class_weights=(0.5, 3.0))
    close(term(logits, batch), [3 * np.log(2), np.log(2) / 2])
    with pytest.raises(ConfigError, match=r"C10.*must have 2"):
        LOSSES["cross_entropy"]("label", class_weights=(1.0,))(logits, batch)


def test_losses_against_a_label_by_hand():
    batch = batch_of(
        2, number=jnp.array([1.0, -2.0]), flags=jnp.array([[1, 0], [0, 0]])
    )
    score = Outputs(jnp.array([3.0, -2.5]))
    close(LOSSES["l1"]("number")(score, batch), [2, 0.5])
    close(LOSSES["mse"]("number")(score, batch), [4, 0.25])
    logits = Outputs(jnp.array([[0.0, np.log(3), 0, 0], [0, 0, np.log(7), 0]]))
    want = [(np.log(4 / 3) + np.log(2)) / 2, (np.log(2) + np.log(8 / 7)) / 2]
    close(LOSSES["multilabel"]("flags")(logits, batch), want)


def test_omega_by_hand():
    """The weight of a modality is 1 minus its probability, and 1 with "one"."""
    aux = {"discriminator/agnostic/text": jnp.zeros((1, 2))}
    aux["importance/text"] = jnp.array([[0.0, np.log(3)]])
    want = {"detached": 0.75 * np.log(2), "joint": 0.75 * np.log(2), "one": np.log(2)}
    for omega, value in want.items():
        term = LOSSES["agnostic_adversary"](("text",), omega)

        def loss(x, term=term):
            outputs = Outputs(x, {**aux, "importance/text": x})
            return jnp.sum(term(outputs, batch_of(1)))

        got, grad = jax.value_and_grad(loss)(aux["importance/text"])
        close(got, value)
        assert bool(jnp.any(grad)) == (omega == "joint")


def test_hsic_and_difference(arrays):
    for case, names, op in (
        ("hsic_5", "ab", hsic),
        ("misa_diff_6x5", "xy", squared_cross_correlation),
    ):
        ins = [jnp.asarray(arrays[f"{case}/in.{n}"], jnp.float32) for n in names]
        run = jax.value_and_grad(op, (0, 1))
        value, grads = run(*ins, jnp.ones(len(ins[0])))
        close(value, arrays[f"{case}/out"])
        for name, grad in zip(names, grads, strict=True):
            close(grad, arrays[f"{case}/grad.{name}"])
    x = jnp.asarray(arrays["hsic_5/in.a"], jnp.float32)
    close(hsic(x, x, jnp.ones(5)), arrays["hsic_5/self"])


def test_disparity_is_the_mean_over_modalities(arrays):
    aux = {}
    for name, letter in MODALITIES.items():
        aux[f"exclusive/{name}"] = jnp.asarray(arrays[f"hsic_disparity/in.e{letter}"])
        aux[f"agnostic/{name}"] = jnp.asarray(arrays[f"hsic_disparity/in.a{letter}"])
    term = LOSSES["hsic"](tuple(MODALITIES))
    got = value_of(term, Outputs(jnp.zeros(8), aux), batch_of(8))
    close(got, arrays["hsic_disparity/out"])


@pytest.mark.parametrize("strength, key", [(1.0, "grl_1.0"), (None, "grl_none")])
def test_gradient_reversal(arrays, strength, key):
    h, w, b = (jnp.asarray(arrays[f"grl_in/{n}"], jnp.float32) for n in "hWb")
    batch = batch_of(4, label=jnp.asarray(arrays["grl_in/labels"]))

    def loss(h, w):
        seen = h if strength is None else reverse_gradient(h, strength)
        outputs = Outputs(seen @ w.T + b)
        return value_of(LOSSES["cross_entropy"]("label"), outputs, batch)

    value, (dh, dw) = jax.value_and_grad(loss, (0, 1))(h, w)
    close(value, arrays[f"{key}/loss"])
    close(dh, arrays[f"{key}/grad.h"])
    close(dw, arrays[f"{key}/grad.W"])


def test_the_strength_of_reversal_grows():
    close(ramp(jnp.array([0.0, 0.1, 1.0])), 2 / (1 + np.exp([0.0, -1.0, -10.0])) - 1)
    assert ramp(None) == 1


def test_adversaries(arrays):
    """The model has two linear discriminators; the gradient is of both losses."""
    key = "spec_mea/adv_detach_True"
    cast = lambda x: jnp.asarray(x, jnp.float32)
    h = {
        kind: {m: cast(arrays[f"spec_mea/adv/in.h_{kind}.{m}"]) for m in "LVA"}
        for kind in "ae"
    }
    wi, weight = cast(fill("mea.D.Wi", (6, 3))), cast(fill("mea.D.m.weight", (3, 6)))
    bias, batch = cast(fill("mea.D.m.bias", (3,))), batch_of(4)
    kinds = ("agnostic_adversary", "exclusive_adversary", "importance_discriminator")

    def losses(h, wi, weight):
        judge, aux = lambda x: x @ weight.T + bias, {}
        for name, m in MODALITIES.items():
            agnostic = h["a"][m]
            aux |= {
                f"discriminator/agnostic/{name}": judge(reverse_gradient(agnostic)),
                f"discriminator/exclusive/{name}": judge(h["e"][m]),
                f"importance/{name}": jax.lax.stop_gradient(agnostic) @ wi,
            }
        outputs = Outputs(jnp.zeros(4), aux)
        terms = {kind: LOSSES[kind](tuple(MODALITIES)) for kind in kinds}
        return {kind: value_of(term, outputs, batch) for kind, term in terms.items()}

    found = losses(h, wi, weight)
    for kind, short in zip(kinds, ("L_agn", "L_exc", "L_imp"), strict=True):
        close(found[kind], arrays[f"{key}/{short}"])
    total = lambda *p: losses(*p)[kinds[0]] + losses(*p)[kinds[1]]
    dh, dwi, dw = jax.grad(total, (0, 1, 2))(h, wi, weight)
    close(dwi, arrays[f"{key}/grad.Wi"])  # 0: omega is a constant
    close(dw, arrays[f"{key}/grad.Dm.weight"])
    for kind in "ae":
        for m in "LVA":
            close(dh[kind][m], arrays[f"{key}/grad.h_{kind}.{m}"])
