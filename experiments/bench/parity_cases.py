"""Cases of the functions of `mmfusion_jax/ops`, for comparison between devices.

`CASES` has at least one case for every public function of every module of `ops`; those
of `EXEMPT` do not compute arrays or run inside another case. A test checks that the two
are complete.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import types
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PACKAGE = "mmfusion_jax.ops"
ALL_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Case:
    """A call of a function of `ops`.

    Attributes:
        name: Module and function below `ops`, such as "masking.masked_mean", and the
            variant in brackets if there are several.
        shapes: Argument -> shape; the arrays are standard normal numbers and have a
            gradient.
        call: Maps the function and the arrays, by name, to a tree of arrays.
        dtypes: The dtypes of the arrays in which the function can be called.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    call: Callable[[Any, Any], Any]
    dtypes: tuple[str, ...] = ALL_DTYPES

    @property
    def function(self) -> str:
        """Name of the function below `ops`."""
        return self.name.split("[")[0]

    def load(self) -> Any:
        """Returns the function."""
        module, _, name = self.function.rpartition(".")
        return getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arguments, float64 rounded to float32."""
        # Of the name, so that another case does not change the numbers of this one.
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        return {
            name: rng.standard_normal(shape).astype(np.float32).astype(np.float64)
            for name, shape in self.shapes.items()
        }


def evaluate(case: Case, dtype: Any) -> dict[str, jax.Array]:
    """Returns outputs and gradients of a case by name, computed in `dtype`.

    The gradients are those of the sum of all float outputs, each element multiplied by
    a fixed number.
    """
    function = case.load()
    arrays = {name: jnp.asarray(x, dtype) for name, x in case.arrays().items()}

    def outputs(arrays: dict[str, jax.Array]) -> list[jax.Array]:
        found = jax.tree.leaves(case.call(function, types.SimpleNamespace(**arrays)))
        return [x for x in found if jnp.issubdtype(x.dtype, jnp.floating)]

    @jax.jit
    def run(arrays: dict[str, jax.Array]):
        y, vjp = jax.vjp(outputs, arrays)
        cotangents = [_fixed(x.shape).astype(x.dtype) for x in y]
        return y, vjp(cotangents)[0]

    y, gradients = run(arrays)
    found = {f"output {i}": x for i, x in enumerate(y)}
    return found | {f"gradient {name}": x for name, x in gradients.items()}


def _fixed(shape: tuple[int, ...]) -> np.ndarray:
    """Returns numbers between 0.5 and 1.5 with alternating signs."""
    index = np.arange(np.prod(shape, dtype=int))
    return ((0.5 + index * 7 % 11 / 10) * (-1.0) ** index).reshape(shape)


def public_functions() -> Iterator[str]:
    """Yields every public function of `ops`, such as "masking.masked_mean"."""
    package = importlib.import_module(PACKAGE)
    for info in pkgutil.walk_packages(package.__path__, f"{PACKAGE}."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            # Functions that `jax.jit` or `custom_vjp` wraps are not functions for
            # `inspect`, but have a module.
            is_function = callable(value) and not inspect.isclass(value)
            own = getattr(value, "__module__", "") == info.name
            if is_function and own and not name.startswith("_"):
                yield f"{info.name.removeprefix(f'{PACKAGE}.')}.{name}"


MASK = (
    np.array([[1, 1, 1, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]) > 0
)
"""(4 5): a gap, one step, none, all."""

VALID = np.array([1, 1, 0, 1, 1, 1]) > 0
GROUPS = np.array([0, 1, 1, 0, 2, 1])
PRESENT = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0], [0, 1, 0]]) > 0

_ROWS = {"x": (6, 8), "y": (6, 8)}
_LOGITS = {"logits": (4, 3, 5)}
_CLIP = {"x": (1, 4, 6, 6, 64), "w": (3, 3, 3, 2, 64)}
_SPARSE = {"x": (1, 3, 5, 5, 32), "w": (3, 3, 3, 16, 32)}
_STEM = {"x": (1, 4, 10, 10, 3), "w": (7, 7, 7, 3, 8)}
_LSTM = {
    "x": (5, 4, 3),
    "kernel": (2, 3, 16),
    "recurrent": (2, 4, 16),
    "bias": (2, 16),
}
_PREDICTED = {
    "scores": (2, 3, 4, 5),
    "previous": (2, 3, 4, 5),
    "kernel": (3, 3, 3, 3),
    "bias": (3,),
}


def _lstm(op: Any, a: Any) -> Any:
    weights = importlib.import_module(f"{PACKAGE}.lstm_scan").LSTMWeights
    return op(a.x, MASK.T, weights(a.kernel, 0.5 * a.recurrent, a.bias))


def _predict(form: str) -> Callable[[Any, Any], Any]:
    # Scores are float32 or wider by contract.
    wide = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
    visible = np.arange(5) < np.array([5, 3])[:, None, None, None]
    return lambda op, a: op(
        wide(a.scores), wide(a.previous), visible, a.kernel, a.bias, 0.25, form
    )


def _weighted_sum(op: Any, a: Any) -> jax.Array:
    scores = a.scores.astype(jnp.promote_types(a.scores.dtype, jnp.float32))
    return op(scores, MASK[:, None], a.values)


def _info_nce(op: Any, a: Any, **options: Any) -> jax.Array:
    return op(a.x, a.y, VALID, scale=0.5, **options)


def _sketch(op: Any, a: Any) -> jax.Array:
    index, sign = np.array([0, 2, 2, 5, 1, 0, 3, 5]), np.array([1, -1] * 4)
    return op(a.x, index, sign, 6)


def _last_valid(op: Any, a: Any) -> jax.Array:
    tokens = importlib.import_module("mmfusion_jax.types").Tokens
    return op(tokens(a.x, jnp.asarray(MASK)))


def _packed(op: Any, a: Any) -> tuple[Any, ...]:
    layout = op((2, 1, 3))
    return layout.linear(a.x, a.kernels, a.biases), layout.join(layout.split(a.x))


def _pool(op: Any, a: Any) -> jax.Array:
    return op(a.x, np.arange(5) < np.array([5, 3])[:, None])


def _grouped(method: str | None, stride: int, groups: int, **options: Any) -> Callable:
    return lambda op, a: op(
        a.x, a.w, stride=stride, groups=groups, method=method, **options
    )


def _batch_norm(op: Any, a: Any) -> jax.Array:
    # Only y has a gradient; the mean and the variance are compared through it.
    return op(a.x, MASK, a.scale, a.bias, 1e-5, None)[0]


CASES = (
    Case(
        "masking.zero_masked",
        {"x": (4, 5, 3)},
        lambda op, a: op(a.x, MASK),
    ),
    Case("masking.masked_mean", {"x": (4, 5, 3)}, lambda op, a: op(a.x, MASK, axis=1)),
    Case(
        "masking.masked_softmax",
        {"x": (4, 5, 3)},
        lambda op, a: op(3 * a.x, MASK, axis=1),
    ),
    Case("masking.last_valid", {"x": (4, 5, 3)}, _last_valid),
    Case("contrastive.l2_normalize", {"x": (6, 8)}, lambda op, a: op(a.x)),
    Case(
        "contrastive.contrast",
        {"logits": (6, 6)},
        lambda op, a: op(3 * a.logits, np.eye(6) > 0, (np.eye(6) < 1) & VALID),
    ),
    Case("contrastive.info_nce[pair]", _ROWS, _info_nce),
    Case(
        "contrastive.info_nce[pair_other_class]",
        _ROWS,
        lambda op, a: _info_nce(op, a, positives="pair_other_class", groups=GROUPS),
    ),
    Case(
        "contrastive.info_nce[same_class]",
        _ROWS,
        lambda op, a: _info_nce(op, a, positives="same_class", groups=GROUPS),
    ),
    Case("independence.hsic", _ROWS, lambda op, a: op(a.x, a.y, VALID)),
    Case(
        "independence.squared_cross_correlation",
        _ROWS,
        lambda op, a: op(a.x, a.y, VALID),
    ),
    Case(
        "gradient_reversal.reverse_gradient",
        {"x": (4, 3)},
        lambda op, a: op(a.x, np.array([0.5, 1, 0, 2])),
    ),
    Case("gradient_reversal.ramp", {"x": (4,)}, lambda op, a: op(0.1 * a.x)),
    Case("lstm_scan.lstm", _LSTM, _lstm),
    Case(
        "memory_efficient_attention.dot_attention",
        {"q": (4, 2, 3, 6), "k": (4, 2, 5, 6), "v": (4, 2, 5, 7)},
        lambda op, a: op(a.q, a.k, a.v, MASK),
    ),
    Case(
        "memory_efficient_attention.transposed_product",
        {"maps": (2, 3, 5), "x": (2, 3, 4)},
        lambda op, a: op(a.maps, a.x),
    ),
    Case(
        "parameter_free_layer_norm.layer_normalize",
        {"x": (4, 16)},
        lambda op, a: op(a.x),
    ),
    Case(
        "predicted_attention.predict_attention[literal]",
        _PREDICTED,
        _predict("literal"),
    ),
    Case("predicted_attention.predict_attention[logit]", _PREDICTED, _predict("logit")),
    Case(
        "softmax_weighted_sum.weighted_sum",
        {"scores": (4, 3, 5), "values": (4, 5, 6)},
        _weighted_sum,
    ),
    Case("compact_bilinear.count_sketch", {"x": (4, 8)}, _sketch),
    Case(
        "compact_bilinear.compact_bilinear",
        {"x": (4, 3, 8)},
        lambda op, a: op(a.x, PRESENT),
        dtypes=("float32",),  # the Fourier transform has no narrower dtype
    ),
    Case("compact_bilinear.signed_root_norm", {"x": (4, 8)}, lambda op, a: op(a.x)),
    Case(
        "feature_variation.varying_energy",
        {"x": (6, 2, 4)},
        lambda op, a: op(a.x, VALID),
    ),
    Case("late_fusion.average", _LOGITS, lambda op, a: op(a.logits, PRESENT)),
    Case(
        "late_fusion.weighted",
        {**_LOGITS, "scores": (4, 3)},
        lambda op, a: op(a.logits, PRESENT, a.scores),
    ),
    Case(
        "late_fusion.mean_score",
        {"scores": (4, 3), "weights": (4, 3)},
        lambda op, a: op(a.scores, PRESENT, a.weights),
    ),
    Case("late_fusion.product", _LOGITS, lambda op, a: op(a.logits, PRESENT)),
    Case(
        "late_fusion.multiplicative", _LOGITS, lambda op, a: op(a.logits, PRESENT, 0.3)
    ),
    Case(
        "chunked_map.map_in_chunks",
        {"x": (6, 4), "y": (6, 4)},
        lambda op, a: op(lambda x, y: jnp.tanh(x) * y, (a.x, a.y), 2),
    ),
    Case(
        "packed_sequences.PackedSequences",
        {"x": (2, 6, 4), "kernels": (3, 4, 5), "biases": (3, 5)},
        _packed,
    ),
    Case(
        "image_normalization.normalize_image",
        {"scale": (3,)},
        lambda op, a: (
            a.scale
            * op(
                np.arange(48, dtype=np.uint8).reshape(4, 4, 3),
                ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            )
        ),
    ),
    Case(
        "image_normalization.frames",
        {"x": (4, 5, 3, 2)},
        lambda op, a: op(a.x, MASK),
    ),
    Case(
        "masked_batch_norm.batch_normalize",
        {"x": (4, 5, 3, 6), "scale": (6,), "bias": (6,)},
        _batch_norm,
    ),
    Case(
        "conv.attention_map_conv.convolve_maps",
        {"x": (2, 6, 7, 3), "w": (3, 3, 3, 4)},
        lambda op, a: op(a.x, a.w),
    ),
    Case(
        "conv.few_channel_conv2d.convolve2d",
        {"x": (2, 3, 8, 9), "w": (3, 3, 3, 4)},
        lambda op, a: op(a.x, a.w),
    ),
    Case(
        "conv.few_channel_conv2d.convolve2d[many channels]",
        {"x": (1, 9, 6, 6), "w": (3, 3, 9, 10)},
        lambda op, a: op(a.x, a.w),
    ),
    Case(
        "conv.conv3d.convolve3d",
        {"x": (1, 4, 6, 6, 4), "w": (3, 3, 3, 2, 6)},
        lambda op, a: op(a.x, a.w, strides=(1, 2, 2), groups=2),
    ),
    Case("conv.conv3d.grouped_conv3d", _CLIP, _grouped(None, 1, 32)),
    Case("conv.conv3d.grouped_conv3d[stride 2]", _CLIP, _grouped(None, 2, 32)),
    Case("conv.conv3d.grouped_conv3d[few groups]", _SPARSE, _grouped(None, 2, 2)),
    Case("conv.conv3d.grouped_conv3d[lax]", _CLIP, _grouped("lax", 1, 32)),
    Case("conv.conv3d.grouped_conv3d[taps]", _CLIP, _grouped("taps", 1, 32)),
    Case("conv.conv3d.grouped_conv3d[taps, stride 2]", _CLIP, _grouped("taps", 2, 32)),
    Case(
        "conv.conv3d.grouped_conv3d[taps, few groups]", _SPARSE, _grouped("taps", 1, 2)
    ),
    Case(
        "conv.conv3d.grouped_conv3d[block_diagonal]",
        _CLIP,
        _grouped("block_diagonal", 1, 32, dense=32),
    ),
    Case("conv.conv3d.stem_conv3d", _STEM, lambda op, a: op(a.x, a.w)),
    Case(
        "conv.conv3d.stem_conv3d[taps]",
        _STEM,
        lambda op, a: op(a.x, a.w, method="taps"),
    ),
    Case(
        "conv.conv3d.pointwise_conv3d",
        {"x": (1, 4, 6, 6, 8), "w": (8, 5)},
        lambda op, a: op(a.x, a.w, stride=2),
    ),
    Case("conv.max_pool3d.max_pool", {"x": (2, 5, 6, 7, 3)}, _pool),
)
"""The cases, cheap to compile first."""

_CPU_FORM = "runs in the cases of conv.conv3d with taps"
EXEMPT = {
    "memory_efficient_attention.exact": "returns a dtype",
    "chunked_map.chunk_size_for": "returns a Python number",
    "compact_bilinear.random_hash": "draws NumPy numbers on the host",
    "context_mesh.context_devices": "returns a Python number",
    "context_mesh.check_context_mesh": "returns nothing",
    "context_mesh.replicate": "returns its argument on one device",
    "conv.grouped_cpu.conv": _CPU_FORM,
    "conv.grouped_cpu.gradients": _CPU_FORM,
    "conv.grouped_cpu_matmul.conv": _CPU_FORM,
    "conv.grouped_cpu_matmul.filter_gradient": _CPU_FORM,
    "conv.grouped_cpu_simd.conv": _CPU_FORM,
    "conv.grouped_cpu_simd.filter_gradient": _CPU_FORM,
    "conv.stem_cpu.conv": _CPU_FORM,
    "conv.stem_cpu.gradients": _CPU_FORM,
    "conv.stem_cpu.filter_gradient": _CPU_FORM,
    "custom_gradient.derivative_jaxpr": "returns a jaxpr",
    "custom_gradient.with_backward": "is in every case with a backward pass by hand",
    "row_gathering.gather_rows": "returns its arguments on one device",
    "unrolled_threefry.unrolled": "changes how random bits are computed, on CPU only",
}
"""Function without a case -> why."""
