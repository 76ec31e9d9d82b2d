"""Derivatives of first and second order of every function in `ops`.

In double precision and along random directions: tangents against finite differences,
tangents against gradients, and the Hessian forward over reverse, reverse over reverse
and as finite differences of the gradient.
"""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import double

from mmfusion_jax import ops
from mmfusion_jax.ops import compact_bilinear, late_fusion, masking
from mmfusion_jax.ops.chunked_map import map_in_chunks
from mmfusion_jax.ops.contrastive import contrast, info_nce, l2_normalize
from mmfusion_jax.ops.conv import (
    conv3d,
    grouped_cpu,
    grouped_cpu_matmul,
    grouped_cpu_simd,
    stem_cpu,
)
from mmfusion_jax.ops.conv.attention_map_conv import convolve_maps
from mmfusion_jax.ops.conv.few_channel_conv2d import convolve2d
from mmfusion_jax.ops.conv.max_pool3d import max_pool
from mmfusion_jax.ops.feature_variation import varying_energy
from mmfusion_jax.ops.gradient_reversal import ramp, reverse_gradient
from mmfusion_jax.ops.image_normalization import HALF, frames, normalize_image
from mmfusion_jax.ops.independence import hsic, squared_cross_correlation
from mmfusion_jax.ops.lstm_scan import LSTMWeights, lstm
from mmfusion_jax.ops.masked_batch_norm import batch_normalize
from mmfusion_jax.ops.memory_efficient_attention import (
    dot_attention,
    transposed_product,
)
from mmfusion_jax.ops.packed_sequences import PackedSequences
from mmfusion_jax.ops.parameter_free_layer_norm import layer_normalize
from mmfusion_jax.ops.predicted_attention import predict_attention
from mmfusion_jax.ops.softmax_weighted_sum import weighted_sum
from mmfusion_jax.types import Tokens

WITHOUT_DERIVATIVE = {
    "chunked_map.chunk_size_for": "an integer",
    "compact_bilinear.random_hash": "random integers",
    "context_mesh.context_devices": "an integer",
    "context_mesh.check_context_mesh": "returns nothing",
    "context_mesh.replicate": "its argument on one device; test_row_gathering",
    "contrastive.ViewRows": "a tuple",
    "custom_gradient.derivative_jaxpr": "a jaxpr",
    "custom_gradient.with_backward": "makes functions; test_custom_gradient",
    "lstm_scan.LSTMStates": "a tuple",
    "lstm_scan.LSTMWeights": "a tuple",
    "memory_efficient_attention.exact": "a dtype",
    "row_gathering.gather_rows": "its arguments on one device; test_row_gathering",
    "unrolled_threefry.unrolled": "a key",
}
"""Public name of ops -> why it is not among the cases."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A function and where it is differentiated.

    Attributes:
        function: Function of arrays.
        arguments: Shapes of random normal arrays, or the arrays.
        of_values: The tangent is the derivative of the values.
        of_gradient: The Hessian is the derivative of the gradient.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    of_values: bool = True
    of_gradient: bool = True


def case(function: Callable[..., Any], *arguments: Any, **flags: bool) -> Case:
    return Case(function, arguments, **flags)


ROWS = np.array([True, True, False, True])
STEPS = np.arange(5) < np.array([[5], [2], [0]])
KEYS = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
PRESENT = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0]], bool)
CLASSES = np.array([0, 1, 0, 0])


def nan_where(mask: np.ndarray, *shape: int) -> np.ndarray:
    """Random values, NaN where `mask` is False."""
    x = np.random.default_rng(1).normal(1, 2, (*mask.shape, *shape))
    return np.where(mask.reshape(*mask.shape, *(1 for _ in shape)), x, np.nan)


def normalized(x, scale, bias, mask):
    return batch_normalize(x, mask, scale, bias, 1e-5, None)[0]


def states(mask, x, *weights):
    return lstm(x, mask, LSTMWeights(*weights))


def steps_last(x):
    return masking.last_valid(Tokens(x, jnp.asarray(STEPS)))


def tied(*shape: int) -> np.ndarray:
    """Values of which many are equal, as after a ReLU."""
    return np.random.default_rng(2).integers(0, 3, shape).astype(float)


WEIGHTS = ((2, 3, 16), (2, 4, 16), (2, 16))
QKV = ((3, 2, 3, 4), (3, 2, 4, 4), (3, 2, 4, 5))
HASH = compact_bilinear.random_hash(4, 6, [0])
PACKED = PackedSequences((2, 3))
FULL = np.ones((1, 5), bool)
FEW, MANY = {"stride": 1, "groups": 2}, {"stride": 2, "groups": 16}
CASES = {
    "chunked_map.map_in_chunks": case(
        lambda x: map_in_chunks(jnp.sin, (x,), 2), (4, 3)
    ),
    "compact_bilinear.count_sketch": case(
        lambda x: compact_bilinear.count_sketch(x, *HASH, 6), (3, 4)
    ),
    "compact_bilinear.compact_bilinear": case(
        lambda x: compact_bilinear.compact_bilinear(x, jnp.asarray(PRESENT)), (3, 3, 6)
    ),
    "compact_bilinear.signed_root_norm": case(
        compact_bilinear.signed_root_norm, np.array([[1.0, -2.0, 0.3], [4.0, 0.5, -1]])
    ),
    "contrastive.l2_normalize": case(l2_normalize, (4, 3)),
    "contrastive.contrast": case(
        lambda x: contrast(x, jnp.eye(4, dtype=bool), ~jnp.eye(4, dtype=bool)), (4, 4)
    ),
    "contrastive.info_nce": case(
        lambda x, y: info_nce(x, y, jnp.asarray(ROWS), scale=2.0),
        nan_where(ROWS, 3),
        nan_where(ROWS, 3),
    ),
    "contrastive.info_nce/same_class": case(
        lambda x, y, scale: info_nce(
            x,
            y,
            jnp.asarray(ROWS),
            scale=scale,
            positives="same_class",
            groups=jnp.asarray(CLASSES),
        ),
        (4, 3),
        (4, 3),
        (),
    ),
    "feature_variation.varying_energy": case(
        lambda x: varying_energy(x, jnp.asarray(ROWS)), nan_where(ROWS, 3)
    ),
    "gradient_reversal.reverse_gradient": case(
        lambda x: reverse_gradient(x, jnp.array([0.5, 2.0])), (2, 3), of_values=False
    ),
    "gradient_reversal.ramp": case(ramp, (3,)),
    "image_normalization.frames": case(
        lambda x: frames(x, jnp.ones((2, 3), bool))[0], (2, 3, 2, 1)
    ),
    "image_normalization.normalize_image": case(
        lambda x: normalize_image(x, HALF), (2, 3)
    ),
    "independence.hsic": case(
        lambda x, y: hsic(x, y, jnp.asarray(ROWS)), nan_where(ROWS, 3), (4, 2)
    ),
    # Its norms are constants of the gradient.
    "independence.squared_cross_correlation": case(
        lambda x, y: squared_cross_correlation(x, y, jnp.asarray(ROWS)),
        nan_where(ROWS, 3),
        (4, 2),
        of_values=False,
        of_gradient=False,
    ),
    "late_fusion.average": case(
        lambda x: late_fusion.average(x, jnp.asarray(PRESENT)), (3, 3, 2)
    ),
    "late_fusion.weighted": case(
        lambda x, w: late_fusion.weighted(x, jnp.asarray(PRESENT), w),
        (3, 3, 2),
        (3, 3),
    ),
    "late_fusion.mean_score": case(
        lambda x, w: late_fusion.mean_score(x, jnp.asarray(PRESENT), w), (3, 3), (3, 3)
    ),
    "late_fusion.product": case(
        lambda x: late_fusion.product(x, jnp.asarray(PRESENT)), (3, 3, 2)
    ),
    "late_fusion.multiplicative": case(
        lambda x: late_fusion.multiplicative(x, jnp.asarray(PRESENT), 0.5), (3, 3, 2)
    ),
    "masked_batch_norm.batch_normalize": case(
        functools.partial(normalized, mask=STEPS), (3, 5, 2), (2,), (2,)
    ),
    "masked_batch_norm.batch_normalize/nan": case(
        functools.partial(normalized, mask=STEPS), nan_where(STEPS, 3, 2), (2,), (2,)
    ),
    "masked_batch_norm.batch_normalize/empty": case(
        functools.partial(normalized, mask=np.zeros((3, 5), bool)),
        (3, 5, 2),
        (2,),
        (2,),
    ),
    "masking.last_valid": case(steps_last, nan_where(STEPS, 2)),
    "masking.masked_mean": case(
        lambda x: masking.masked_mean(x, jnp.asarray(STEPS), 1), nan_where(STEPS, 2)
    ),
    "masking.masked_softmax": case(
        lambda x: masking.masked_softmax(x, jnp.asarray(STEPS), 1), nan_where(STEPS)
    ),
    "masking.zero_masked": case(
        lambda x: masking.zero_masked(x, jnp.asarray(STEPS)), nan_where(STEPS, 2)
    ),
    "memory_efficient_attention.transposed_product": case(
        transposed_product, (2, 3, 4), (2, 3, 2)
    ),
    "packed_sequences.PackedSequences": case(
        PACKED.linear, (2, 5, 3), (2, 3, 2), (2, 2)
    ),
    "parameter_free_layer_norm.layer_normalize": case(layer_normalize, (3, 4)),
    "softmax_weighted_sum.weighted_sum": case(
        lambda s, v: weighted_sum(s, jnp.asarray(KEYS)[:, None], v),
        (3, 2, 4),
        (3, 4, 2),
    ),
    "conv.attention_map_conv.convolve_maps": case(
        convolve_maps, (2, 4, 3, 2), (3, 3, 2, 3)
    ),
    "conv.attention_map_conv.convolve_maps/1x1": case(
        convolve_maps, (1, 1, 1, 2), (3, 3, 2, 1)
    ),
    "conv.few_channel_conv2d.convolve2d": case(convolve2d, (2, 2, 4, 5), (3, 3, 2, 3)),
    "conv.conv3d.convolve3d": case(
        functools.partial(conv3d.convolve3d, strides=(1, 2, 2)),
        (1, 2, 3, 3, 2),
        (3, 3, 3, 2, 2),
    ),
    "conv.conv3d.grouped_conv3d": case(
        functools.partial(conv3d.grouped_conv3d, **FEW),
        (1, 2, 3, 3, 4),
        (3, 3, 3, 2, 4),
    ),
    "conv.conv3d.grouped_conv3d/simd": case(
        functools.partial(conv3d.grouped_conv3d, **MANY),
        (1, 1, 3, 2, 16),
        (3, 3, 3, 1, 16),
    ),
    "conv.conv3d.grouped_conv3d/block_diagonal": case(
        functools.partial(conv3d.grouped_conv3d, **FEW, method="block_diagonal"),
        (1, 2, 3, 3, 4),
        (3, 3, 3, 2, 4),
    ),
    "conv.conv3d.stem_conv3d": case(
        conv3d.stem_conv3d, (1, 2, 3, 4, 1), (7, 7, 7, 1, 2)
    ),
    "conv.conv3d.pointwise_conv3d": case(
        functools.partial(conv3d.pointwise_conv3d, stride=2), (1, 3, 3, 2, 3), (3, 4)
    ),
    "conv.grouped_cpu.conv": case(
        functools.partial(grouped_cpu.conv, **FEW), (1, 2, 3, 3, 4), (3, 3, 3, 2, 4)
    ),
    "conv.grouped_cpu.gradients": case(
        functools.partial(grouped_cpu.gradients, **FEW),
        (1, 2, 3, 3, 4),
        (3, 3, 3, 2, 4),
        (1, 2, 3, 3, 4),
    ),
    "conv.grouped_cpu_matmul.conv": case(
        lambda x, w: grouped_cpu_matmul.conv(x, w, 2, 2, (1, 1)),
        (1, 2, 3, 3, 4),
        (3, 3, 3, 2, 4),
    ),
    "conv.grouped_cpu_matmul.filter_gradient": case(
        lambda x, dy: grouped_cpu_matmul.filter_gradient(x, dy, 1, 2),
        (1, 2, 2, 3, 4),
        (1, 2, 2, 3, 4),
    ),
    "conv.grouped_cpu_simd.conv": case(
        lambda x, w: grouped_cpu_simd.conv(x, w, 1, 16, (1, 1)),
        (1, 1, 2, 2, 16),
        (3, 3, 3, 1, 16),
    ),
    "conv.grouped_cpu_simd.filter_gradient": case(
        lambda x, dy: grouped_cpu_simd.filter_gradient(x, dy, 1, 16),
        (1, 1, 2, 2, 16),
        (1, 1, 2, 2, 16),
    ),
    "conv.stem_cpu.conv": case(stem_cpu.conv, (1, 1, 3, 4, 1), (7, 7, 7, 1, 2)),
    "conv.stem_cpu.gradients": case(
        stem_cpu.gradients, (1, 1, 3, 4, 1), (7, 7, 7, 1, 2), (1, 1, 2, 2, 2)
    ),
    "conv.stem_cpu.filter_gradient": case(
        stem_cpu.filter_gradient, (1, 1, 3, 4, 1), (1, 1, 2, 2, 2)
    ),
    "conv.max_pool3d.max_pool": case(
        lambda x: max_pool(x, jnp.asarray(STEPS)), nan_where(STEPS, 4, 3, 2)
    ),
    "conv.max_pool3d.max_pool/ties": case(
        lambda x: max_pool(x, jnp.asarray(FULL)),
        tied(1, 5, 4, 3, 1),
        of_values=False,
        of_gradient=False,
    ),
    "conv.max_pool3d.max_pool/1x1": case(
        lambda x: max_pool(x, jnp.asarray(FULL)), (1, 5, 1, 1, 2)
    ),
    "lstm_scan.lstm": case(
        functools.partial(states, np.ones((5, 3), bool)), (5, 3, 3), *WEIGHTS
    ),
    "lstm_scan.lstm/masked": case(
        functools.partial(states, STEPS.T), (5, 3, 3), *WEIGHTS
    ),
    "memory_efficient_attention.dot_attention": case(
        lambda *qkv: dot_attention(*qkv, jnp.asarray(KEYS)), *QKV
    ),
    "predicted_attention.predict_attention": case(
        lambda s, p, w, b: predict_attention(
            s, p, jnp.ones((2, 1, 1, 3), bool), w, b, 0.3, "literal"
        ),
        (2, 2, 3, 3),
        (2, 2, 3, 3),
        (3, 3, 2, 2),
        (2,),
    ),
}


def test_every_function_of_ops_is_a_case():
    found = set()
    for module in pkgutil.walk_packages(ops.__path__, "mmfusion_jax.ops."):
        short = module.name.removeprefix("mmfusion_jax.ops.")
        for name, value in vars(importlib.import_module(module.name)).items():
            own = getattr(value, "__module__", None) == module.name
            if own and callable(value) and not name.startswith("_"):
                found.add(f"{short}.{name}")
    tested = {name.partition("/")[0] for name in CASES}
    assert found == tested | WITHOUT_DERIVATIVE.keys()
    assert not tested & WITHOUT_DERIVATIVE.keys()


@functools.partial(jax.jit, static_argnums=0)
def derivatives(function, x, v, u):
    """Values, tangents, gradients and Hessian-vector products, each in two ways."""
    values = lambda x: jax.tree.leaves(function(*x))
    loss = lambda x: sum(jnp.sum(jnp.sin(y + 0.3)) for y in values(x))
    gradient = jax.grad(loss)
    dot = lambda a, b: sum(
        jnp.vdot(p, q)
        for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
    step = 1e-5
    moved = lambda sign: jax.tree.map(lambda a, b: a + sign * step * b, x, v)
    slope = lambda f: jax.tree.map(
        lambda a, b: (a - b) / (2 * step), f(moved(1)), f(moved(-1))
    )
    y, tangent = jax.jvp(values, (x,), (v,))
    dy = [u[: a.size].reshape(a.shape) for a in y]
    pulled = jax.vjp(values, x)[1](dy)[0]
    return {
        "tangent": (tangent, slope(values)),
        "transpose": (dot(dy, tangent), dot(pulled, v)),
        "hessian": (
            jax.jvp(gradient, (x,), (v,))[1],
            jax.grad(lambda x: dot(gradient(x), v))(x),
        ),
        "slope of gradient": (jax.jvp(gradient, (x,), (v,))[1], slope(gradient)),
    }


def assert_derivatives(one: Case) -> None:
    rng = np.random.default_rng(0)
    with double():
        x = [
            jnp.asarray(rng.normal(0.2, 1, a) if isinstance(a, tuple) else a)
            for a in one.arguments
        ]
        v = [jnp.asarray(rng.normal(size=a.shape)) for a in x]
        u = jnp.asarray(rng.normal(size=10_000))
        found = jax.tree.map(np.asarray, derivatives(one.function, x, v, u))
    if not one.of_values:
        del found["tangent"]
    if not one.of_gradient:
        del found["slope of gradient"]
    for name, (got, want) in found.items():
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            scale = 1 + np.max(np.abs(b), initial=0)
            np.testing.assert_allclose(
                a / scale, b / scale, rtol=0, atol=2e-8, err_msg=name
            )


@pytest.mark.ci
@pytest.mark.parametrize("name", CASES)
def test_derivatives(name):
    assert_derivatives(CASES[name])


def test_derivatives_of_a_normalization_with_nan_in_masked_rows():
    assert_derivatives(CASES["masked_batch_norm.batch_normalize/nan"])


def test_tangents_of_equal_maxima_are_those_of_the_first():
    x = jnp.zeros((1, 1, 1, 4, 1))
    dx = jnp.arange(1.0, 5.0).reshape(x.shape)
    pool = lambda x: max_pool(x, jnp.ones((1, 1), bool))
    tangent = jax.jvp(pool, (x,), (dx,))[1]
    np.testing.assert_array_equal(tangent.ravel(), [1, 2])


def test_reversed_gradients_have_reversed_tangents_and_a_reversed_hessian():
    f = lambda x: reverse_gradient(x, 0.5) ** 3
    assert jax.jvp(f, (2.0,), (1.0,))[1] == -6
    assert jax.hessian(f)(2.0) == jax.grad(jax.grad(f))(2.0) == -6
