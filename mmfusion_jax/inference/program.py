"""Programs of a model in StableHLO, which JAX runs without this package."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmfusion_jax.errors import (
    ConfigError,
    describe_exception,
    missing_dependency,
    shown,
    suggest,
)
from mmfusion_jax.inference.exported_folder import flat_arrays
from mmfusion_jax.results.predictor_file import PredictorInfo
from mmfusion_jax.types import WEIGHT_PREFIX, Array, Batch, Model, PyTree

PLATFORMS = ("cpu", "cuda", "tpu")
KNOWN_PLATFORMS = (*PLATFORMS, "rocm")
FALLBACK_SIZES = (1, 8)
"""Batch sizes of a model that cannot be mapped over the examples of a batch."""


def predict_batch(
    model: Model, variables: PyTree, prior: Array, batch: Batch, modalities: Any
) -> dict[str, Any]:
    """Returns what a model predicts for the examples of a batch.

    Args:
        model: The model.
        variables: Its variables.
        prior: Prediction for an example without any modality, (k) or ().
        batch: The examples, scaled and padded.
        modalities: The modalities that the model reads.

    Returns:
        "prediction", (b k) or (b), and "weights", modality -> (b).
    """
    outputs = model.apply(variables, batch, train=False)
    y = outputs.prediction
    present = batch.has_any_modality(*modalities)
    present = present.reshape(present.shape + (1,) * (y.ndim - 1))
    weights = {
        name.removeprefix(WEIGHT_PREFIX): x
        for name, x in outputs.aux.items()
        if name.startswith(WEIGHT_PREFIX)
    }
    return {
        "prediction": jax.numpy.where(present, y, prior.astype(y.dtype)),
        "weights": weights,
    }


class ProgramExporter:
    """Exports the prediction of a model as a function of arrays.

    The variables are an argument, by their names in `model.safetensors`, so that
    several programs share one copy of them.

    Args:
        model: The model.
        variables: Its variables.
        info: Shapes of the inputs, and the prediction without any modality.
        modalities: The modalities that the model reads.
    """

    def __init__(
        self,
        model: Model,
        variables: PyTree,
        info: PredictorInfo,
        modalities: Sequence[str],
    ):
        self.model, self.info, self.modalities = model, info, modalities
        self.variables = variables
        self.arrays = flat_arrays(variables)
        self.prior = np.asarray(info.prior, np.float32)

    def batch_program(
        self,
        arrays: Mapping[str, Any],
        inputs: Mapping[str, Any],
        masks: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Maps variables by name, inputs (b t ...) and masks (b t) to predictions."""
        leaves = [arrays[name] for name in self.arrays]
        variables = jax.tree.unflatten(jax.tree.structure(self.variables), leaves)
        weight = jax.numpy.ones(masks[self.modalities[0]].shape[:1], np.float32)
        batch = Batch(inputs, masks, weight=weight)
        prior = jax.numpy.asarray(self.prior)
        return predict_batch(self.model, variables, prior, batch, self.modalities)

    def mapped_program(
        self,
        arrays: Mapping[str, Any],
        inputs: Mapping[str, Any],
        masks: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Returns the same as `batch_program`, computed for each example alone.

        The batch size may be unknown: no model divides a batch of one.
        """

        def one(inputs: Mapping[str, Any], masks: Mapping[str, Any]):
            add_axis = lambda tree: jax.tree.map(lambda x: x[None], tree)
            found = self.batch_program(arrays, add_axis(inputs), add_axis(masks))
            return jax.tree.map(lambda x: x[0], found)

        return jax.vmap(one)(inputs, masks)

    def specs(self, batch_size: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns shapes and dtypes of inputs and masks.

        Args:
            batch_size: A number, or a symbolic one.
        """
        inputs, masks = {}, {}
        for name in self.modalities:
            spec = self.info.inputs[name]
            shape = (batch_size, *spec.shape)
            inputs[name] = jax.ShapeDtypeStruct(shape, np.dtype(spec.dtype))
            masks[name] = jax.ShapeDtypeStruct(shape[:2], np.dtype(bool))
        return inputs, masks

    def export(self, batch_size: int | None, platforms: Sequence[str]) -> bytes:
        """Returns a serialized program.

        Args:
            batch_size: Number of examples; None for any number.
            platforms: Platforms of JAX.

        Raises:
            MissingDependencyError: `flatbuffers` is not installed.
        """
        from jax import export

        program: Callable[..., Any] = self.batch_program
        size: Any = batch_size
        if batch_size is None:
            program, (size,) = self.mapped_program, export.symbolic_shape("b")
        abstract = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
        exported = export.export(jax.jit(program), platforms=list(platforms))(
            jax.tree.map(abstract, self.arrays), *self.specs(size)
        )
        return bytes(exported.serialize())

    def difference(
        self, program: bytes, inputs: Mapping[str, Any], masks: Mapping[str, Any]
    ) -> float:
        """Returns the largest difference of an output of a program from the library's.

        Args:
            program: A serialized program that runs on this machine.
            inputs: Modality -> values (b t ...).
            masks: Modality -> valid steps (b t).
        """
        from jax import export

        arrays = {name: np.asarray(x) for name, x in self.arrays.items()}
        got = export.deserialize(bytearray(program)).call(arrays, inputs, masks)
        want = jax.jit(self.batch_program)(arrays, inputs, masks)
        return largest_difference(got, want)

    def random_batch(self, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns inputs and masks of random examples, some without a modality."""
        rng = np.random.default_rng(0)
        inputs, masks = {}, {}
        for number, (name, spec) in enumerate(self.specs(size)[0].items()):
            if np.issubdtype(spec.dtype, np.floating):
                values = rng.normal(size=spec.shape).astype(spec.dtype)
            else:  # pixels, or ids that every vocabulary has
                high = 256 if spec.dtype == np.uint8 else 2
                values = rng.integers(0, high, spec.shape).astype(spec.dtype)
            inputs[name], masks[name] = values, np.ones(spec.shape[:2], bool)
            # Example i lacks modality i - 1; the first one has all.
            masks[name][number + 1 :: len(self.modalities) + 1] = False
        return inputs, masks


def largest_difference(got: PyTree, want: PyTree) -> float:
    """Returns the largest absolute difference between two trees of arrays."""
    got, want = jax.device_get((got, want))
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    return max(float(np.abs(a - b).max(initial=0)) for a, b in pairs)


def check_platforms(platforms: Sequence[str]) -> None:
    """Raises ConfigError for a platform that JAX does not have."""
    if not platforms:
        raise ConfigError("C01", "--platforms is empty.", ",".join(PLATFORMS))
    for name in platforms:
        if name not in KNOWN_PLATFORMS:
            raise ConfigError(
                "C03",
                f"platform {shown(name)} is unknown.",
                suggest(str(name), KNOWN_PLATFORMS),
            )


def check_flatbuffers() -> None:
    """Raises MissingDependencyError unless programs can be serialized."""
    try:
        import flatbuffers  # noqa: F401  jax.export imports it when it serializes
    except ImportError as error:
        raise missing_dependency("flatbuffers", "export", "the export") from error


def why_not_mapped(error: Exception) -> str:
    """Returns a sentence about a model that cannot be exported for any batch size."""
    return (
        "the model has no program for any batch size, since it cannot be mapped over "
        f"examples: {describe_exception(error)}"
    )
