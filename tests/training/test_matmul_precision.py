"""The precision of products: in the program of a TPU, and what it does to values."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs
from golden_msa import load
from groups import in_ci
from loaded_tables import LOSSES
from precision import double
from single_pass import single_pass

from mmfusion_jax.analysis.cost import find_products
from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.inference.program import predict_batch
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.ops.contrastive import l2_normalize
from mmfusion_jax.ops.independence import hsic
from mmfusion_jax.ops.memory_efficient_attention import dot_attention
from mmfusion_jax.training.state import create_state
from mmfusion_jax.types import Batch, Outputs

PAPERS = ("cfn_sr", "mea", "mcl_mcf", "hetero_fusion_net", "of_cmaer_cat")
PRODUCT = re.compile(r"stablehlo\.(?:dot_general|convolution)\b.*")
ASKED = re.compile(r"(?:DEFAULT|HIGHEST|HIGH)\b")


@functools.cache
def traced_step(paper: str, precision: str):
    """The training step of a small config, traced and not compiled."""
    spec = resolve(small_configs.small(paper, matmul_precision=precision))
    data = small_configs.digits()
    parts = build.build_components(spec, data, 1)
    batch = build_data.build_pipeline(spec, data, 0).dummy_batch()
    init = lambda: create_state(parts.model, parts.tx, batch, jax.random.key(0))
    return jax.jit(parts.train_step(None)).trace(jax.eval_shape(init), batch)


def asked_precisions(traced) -> list[set[str]]:
    """The precisions of the operands of every product in the program of a TPU."""
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    return [set(ASKED.findall(line)) for line in PRODUCT.findall(text)]


@pytest.mark.parametrize("paper", in_ci(PAPERS, "hetero_fusion_net"))
def test_every_product_of_a_tpu_has_the_asked_precision(paper):
    found = asked_precisions(traced_step(paper, "highest"))
    assert len(found) > 20
    assert all(one == {"HIGHEST"} for one in found), found


@pytest.mark.parametrize("paper", in_ci(PAPERS, "hetero_fusion_net"))
def test_losses_and_heads_have_the_highest_precision(paper):
    traced = traced_step(paper, "default")
    products = find_products(traced.jaxpr.jaxpr, "tpu")
    count = {"default": 0, "highest": 0}
    for product in products:
        count[product.precision] += 1
        # Products outside of the scope of a module are those of losses.
        modules = re.sub(r"\w+\(|\)", "", product.module).strip("/")
        if not modules or re.search(r"\bhead\b", modules):
            assert product.precision == "highest", product
    assert count["default"] > count["highest"] > 2
    if paper != "cfn_sr":  # with a dtype or two convolutions more than in the text
        assert len(asked_precisions(traced)) == len(products)


def test_a_prediction_has_the_precision_of_the_training():
    """Predictors and exported programs are made of this function."""
    spec = resolve(small_configs.small("hetero_fusion_net", matmul_precision="high"))
    data = small_configs.digits()
    model = build.build_model(spec, build.build_task(spec, data), None)
    batch = build_data.build_pipeline(spec, data, 0).dummy_batch()
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), batch, train=False)
    )
    predict = lambda variables, batch: predict_batch(
        model, variables, jnp.zeros(3), batch, spec.model.modalities
    )
    found = asked_precisions(jax.jit(predict).trace(variables, batch))
    assert {"HIGH"} in found and {"HIGHEST"} in found and {"DEFAULT"} not in found


def test_other_values_are_refused():
    with pytest.raises(ConfigError, match="matmul_precision"):
        resolve(small_configs.small("mea", matmul_precision="float32"))


close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
RNG = np.random.default_rng(0)


def value_and_gradients(function, *args):
    return jax.value_and_grad(function, range(len(args)))(*args)


def info_nce_case(arrays):
    """Loss and gradients of InfoNCE, with reference values."""
    case = "infonce_sym_5x7_tau0.07"
    term = LOSSES["info_nce"](pairs=("p",))
    batch = Batch({}, {"text": jnp.ones((5, 1), bool)})

    def loss(x, y):
        outputs = Outputs(x, {"p/x": l2_normalize(x), "p/y": l2_normalize(y)})
        return Objective({"task": WeightedLoss(term)}).value("task", outputs, batch)

    ins = [jnp.asarray(arrays[f"{case}/in.{n}"], jnp.float32) for n in "xy"]
    wanted = arrays[f"{case}/out"], tuple(arrays[f"{case}/grad.{n}"] for n in "xy")
    return functools.partial(value_and_gradients, loss), ins, wanted


def in_double(function, ins):
    """What a function and its gradients are in float64."""
    with double():
        wide = [jnp.asarray(np.asarray(x), jnp.float64) for x in ins]
        return jax.device_get(value_and_gradients(function, *wide))


def hsic_case(_):
    ins = [jnp.asarray(RNG.normal(size=(7, d)), jnp.float32) for d in (4, 3)]
    function = lambda x, y: hsic(x, y, jnp.ones(7))
    made = functools.partial(value_and_gradients, function)
    return made, ins, in_double(function, ins)


def attention_case(_):
    shapes = (3, 2, 5, 4), (3, 2, 7, 4), (3, 2, 7, 6)
    ins = [jnp.asarray(RNG.normal(size=s), jnp.float32) for s in shapes]
    mask = np.ones((3, 7), bool)

    def function(q, k, v):
        with jax.default_matmul_precision("highest"):  # as the config asks
            return jnp.sum(jnp.sin(dot_attention(q, k, v, mask)))

    made = functools.partial(value_and_gradients, function)
    return made, ins, in_double(function, ins)


def ctc_case(_):
    term, mask = LOSSES["ctc"](("text",)), jnp.ones((2, 5), bool)
    batch = Batch({}, {"text": mask})
    logits = jnp.asarray(3 * RNG.normal(size=(2, 5, 3)), jnp.float32)

    def function(logits):
        outputs = Outputs(logits, {"ctc/text": logits, "ctc/text/valid": mask})
        return Objective({"task": WeightedLoss(term)}).value("task", outputs, batch)

    made = functools.partial(value_and_gradients, function)
    return made, [logits], in_double(function, [logits])


CASES = {
    "info_nce": info_nce_case,
    "hsic": hsic_case,
    "attention": attention_case,
    "ctc": ctc_case,
}


@pytest.mark.parametrize("name", CASES)
def test_values_under_a_single_bfloat16_pass(name, golden):
    function, ins, wanted = CASES[name](load(golden))
    jax.tree.map(close, jax.device_get(single_pass(function)(*ins)), wanted)
    # The test can fail: without a precision the same values are off.
    off = jax.tree.leaves(single_pass(function, everywhere=True)(*ins))
    pairs = zip(off, jax.tree.leaves(wanted), strict=True)
    assert not all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)
