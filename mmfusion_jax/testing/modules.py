"""Checks of encoders, fusion blocks and models."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmfusion_jax.errors import shown_name, type_name
from mmfusion_jax.testing.compare import ONLY, VECTOR
from mmfusion_jax.testing.inputs import make_streams
from mmfusion_jax.testing.module_case import ModuleCase
from mmfusion_jax.testing.module_properties import COMMON
from mmfusion_jax.testing.report import (
    CounterexampleError,
    Report,
    check_is_object,
    described,
    run_properties,
)
from mmfusion_jax.types import Batch, Outputs, Streams, Tokens

ENCODER_SHAPES = (
    ((16, 6), np.float32),
    ((8,), np.int32),
    ((200,), np.float32),
    ((4, 16, 16, 3), np.float32),
)
"""Shapes of one example that encoders are tried with: features, ids, audio, frames."""

MODALITIES = ("audio", "text", "video")
NAME_FIELDS = ("modality_order", "modalities")
PAIR_FIELDS = (("target", "source"), ("x", "y"))
FUSION_SHAPES = ((5, 8), (1, 8))
"""Shapes (n d) that the streams of a block are tried with."""


def check_fusion(
    block: Any,
    streams: Mapping[str, Tokens | Sequence[int]] | None = None,
    *,
    name: str = "",
    positional: bool = False,
    fixed_length: bool = False,
    batch_statistics: bool = False,
    tolerance: float = 1e-4,
    low_precision_tolerance: float = 0.1,
) -> Report:
    """Checks that a fusion block does what every block must.

    Example:
        >>> import mmfusion_jax as mmf
        >>> block = mmf.fusion.Identity()  # or a block of yours
        >>> report = mmf.testing.check_fusion(block, {"audio": (5, 8), "video": (7, 8)})
        >>> "masked values" in report.checked
        True

    Args:
        block: A Linen module, `(streams, *, train) -> Streams`, or an array (b d).
        streams: Name -> Tokens of a batch, or the shape (n d) of one example. By
            default the names are those of the block's own options.
        name: Name of the block in messages; its class by default.
        positional: Whether a result depends on the number of a position, as with
            positional encodings; padding is then at the end.
        fixed_length: Whether all batches have the same number of positions.
        batch_statistics: Whether training compares the examples of a batch.
        tolerance: Allowed difference of two programs, relative to the largest value.
        low_precision_tolerance: The same for bfloat16 against float32.

    Returns:
        The properties that hold, and those that were not checked.

    Raises:
        AssertionError: A property does not hold; one sentence for each.
    """
    check_is_object(block, "a fusion block")
    if streams is not None and not isinstance(streams, Mapping):
        raise TypeError(f"streams is {type_name(streams)}, not a mapping of names")
    case = ModuleCase(
        block,
        {},
        lambda streams: (streams,),
        _fusion_outputs,
        "fusion",
        batch_statistics,
        positional,
        fixed_length,
        tolerance=tolerance,
        low_precision_tolerance=low_precision_tolerance,
    )
    shapes = _fusion_streams(block) if streams is None else [streams]
    name = name or type(block).__name__
    case.streams = _first_that_fits(name, case, [make_streams(x) for x in shapes])
    return run_properties(name, case, COMMON)


def _fusion_streams(block: Any) -> list[dict[str, Any]]:
    """Streams that a block may read, by its options."""
    names = MODALITIES
    for field in NAME_FIELDS:
        names = tuple(getattr(block, field, ())) or names
    for pair in PAIR_FIELDS:
        found = tuple(getattr(block, field, "") for field in pair)
        names = found if all(isinstance(x, str) and x for x in found) else names
    uneven: dict[str, Any] = {m: (4 + i, 8) for i, m in enumerate(names)}
    return [uneven, *({m: shape for m in names} for shape in FUSION_SHAPES)]


def _fusion_outputs(result: Any, aux: Any) -> dict:
    """The streams of a block, or its vector (b d) as one; its auxiliary outputs."""
    if getattr(result, "ndim", 0) == 2:
        some = jax.numpy.ones((len(result), 1), bool)
        result = {VECTOR: Tokens(result[:, None], some)}
    if not isinstance(result, Mapping):
        raise CounterexampleError(
            f"it returns {type_name(result)}, not streams or an array (b d)"
        )
    return {**result, **_aux_outputs(aux)}


def _aux_outputs(aux: Any) -> dict[str, Tokens]:
    """Auxiliary outputs as tokens: every value of an example is one position."""
    found = {}
    for path, x in jax.tree_util.tree_leaves_with_path(aux):
        name = "aux/" + "/".join(str(getattr(k, "key", "")) for k in path).strip("/")
        if x.ndim and jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
            flat = x.reshape(len(x), -1, 1)
            found[name] = Tokens(flat, jax.numpy.ones(flat.shape[:2], bool))
    return found


def check_encoder(
    encoder: Any,
    values: Any = None,
    mask: Any = None,
    *,
    name: str = "",
    positional: bool = True,
    fixed_length: bool = False,
    extra_padding: int = 0,
    batch_statistics: bool = False,
    tolerance: float = 1e-4,
    low_precision_tolerance: float = 0.1,
) -> Report:
    """Checks that an encoder does what every encoder must.

    Example:
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.Precomputed()  # or an encoder of yours
        >>> report = mmf.testing.check_encoder(encoder, (16, 6))
        >>> "missing stays missing" in report.checked
        True

    Args:
        encoder: A Linen module, `(values, mask, *, train) -> Tokens`.
        values: A batch (b t ...), or the shape (t ...) of one example, (t) for ids if
            the encoder has a vocabulary. By default the first of `ENCODER_SHAPES` that
            the encoder accepts.
        mask: (b t) bool, of a batch.
        name: Name of the encoder in messages; its class by default.
        positional: False if a result does not depend on the number of a position;
            padding may then be anywhere.
        fixed_length: Whether all batches have the same number of steps.
        extra_padding: Number of padded steps that are added; 0 for half as many as
            there are.
        batch_statistics: Whether training compares the examples of a batch, other than
            by a collection "batch_stats".
        tolerance: Allowed difference of two programs, relative to the largest value.
        low_precision_tolerance: The same for bfloat16 against float32.

    Returns:
        The properties that hold, and those that were not checked.

    Raises:
        AssertionError: A property does not hold; one sentence for each.
    """
    check_is_object(encoder, "an encoder")
    case = ModuleCase(
        encoder,
        {},
        lambda streams: (streams["input"].values, streams["input"].mask),
        _encoder_outputs,
        "encoder",
        batch_statistics,
        positional,
        fixed_length,
        extra_padding,
        tolerance,
        low_precision_tolerance,
    )
    name, batches = (
        name or type(encoder).__name__,
        _encoder_inputs(encoder, values, mask),
    )
    case.streams = _first_that_fits(name, case, batches)
    return run_properties(name, case, COMMON)


def _encoder_inputs(encoder: Any, values: Any, mask: Any) -> list[Streams]:
    """Batches that an encoder is tried with."""
    high = getattr(encoder, "vocab_size", 0) or 256
    if values is None:
        shapes = ENCODER_SHAPES
    elif isinstance(values, tuple | list):
        ids = len(values) == 1 and hasattr(encoder, "vocab_size")
        shapes = [(tuple(values), np.int32 if ids else np.float32)]
    else:
        full: Any = np.ones(np.shape(values)[:2], bool) if mask is None else mask
        return [make_streams({"input": Tokens(values, full)})]
    return [
        make_streams({"input": shape}, dtypes={"input": dtype}, high=high)
        for shape, dtype in shapes
    ]


def _encoder_outputs(result: Any, aux: Any) -> dict:
    """The tokens of an encoder, and its auxiliary outputs."""
    if not isinstance(result, Tokens):
        raise CounterexampleError(f"it returns {type_name(result)}, not Tokens")
    return {ONLY: result, **_aux_outputs(aux)}


def _first_that_fits(
    part: str, case: ModuleCase, batches: Sequence[Streams]
) -> Streams:
    """Returns the first batch with which a part can be traced.

    Raises:
        AssertionError: It cannot be traced with any.
    """
    problem, first = "", None
    for batch in batches:
        try:
            jax.eval_shape(lambda b=batch: case.init(case.key, b))
        except CounterexampleError as error:
            problem = str(error)
            raise AssertionError(f"{shown_name(part)}: {problem}") from error
        except Exception as error:  # a part may raise anything
            problem, first = problem or described(error), first or error
        else:
            return batch
    if len(batches) == 1:
        raise AssertionError(f"{shown_name(part)}: it raises {problem}") from first
    raise AssertionError(
        f"{shown_name(part)}: no input of the kit fits, the first raises {problem}; "
        "give the shapes of one example"
    ) from first


def check_model(
    model: Any,
    inputs: Mapping[str, Any],
    *,
    name: str = "",
    labels: Mapping[str, Any] | None = None,
    dtypes: Mapping[str, Any] | None = None,
    vocabulary: int = 8,
    fixed_length: bool = True,
    batch_statistics: bool = False,
    tolerance: float = 1e-4,
    low_precision_tolerance: float = 0.1,
) -> Report:
    """Checks that a model does what every model must.

    Example:
        >>> import mmfusion_jax as mmf
        >>> encoders = {m: mmf.encoders.Precomputed() for m in ("audio", "video")}
        >>> model = mmf.models.LateFusion(encoders, head_size=3)  # or yours
        >>> report = mmf.testing.check_model(model, {"audio": (16, 4), "video": (1, 6)})
        >>> "subsets of modalities" in report.checked
        True

    Args:
        model: A Linen module, `(batch, *, train) -> Outputs`.
        inputs: Modality -> Tokens with the raw values (b t ...) and masks of a batch,
            or the shape (t ...) of one example.
        name: Name of the model in messages; its class by default.
        labels: Name -> target of every example, for models that read labels.
        dtypes: Modality -> dtype of the values, where it is not float32.
        vocabulary: Number of different ids.
        fixed_length: Whether all batches have the same number of steps.
        batch_statistics: Whether training compares the examples of a batch, other than
            by a collection "batch_stats".
        tolerance: Allowed difference of two programs, relative to the largest value.
        low_precision_tolerance: The same for bfloat16 against float32.

    Returns:
        The properties that hold, and those that were not checked.

    Raises:
        AssertionError: A property does not hold; one sentence for each.
    """

    def arguments(streams: Any) -> tuple:
        count = len(next(iter(streams.values())).mask)
        arrays = {k: np.asarray(v) for k, v in (labels or {}).items()}
        targets: Any = {k: v[np.arange(count) % len(v)] for k, v in arrays.items()}
        batch = Batch(
            inputs={k: x.values for k, x in streams.items()},
            masks={k: x.mask for k, x in streams.items()},
            labels=targets,
            weight=jax.numpy.ones(count),
        )
        return (batch,)

    check_is_object(model, "a model")
    case = ModuleCase(
        model,
        {},
        arguments,
        _model_outputs,
        "model",
        batch_statistics,
        True,
        fixed_length,
        0,
        tolerance,
        low_precision_tolerance,
    )
    batch = make_streams(inputs, dtypes=dtypes, high=vocabulary)
    name = name or type(model).__name__
    case.streams = _first_that_fits(name, case, [batch])
    return run_properties(name, case, COMMON)


def _model_outputs(result: Any, aux: Any) -> dict:
    """The prediction of a model as one token, and its auxiliary outputs."""
    if not isinstance(result, Outputs):
        raise CounterexampleError(f"it returns {type_name(result)}, not Outputs")
    y = result.prediction
    values = y.reshape(len(y), 1, -1)
    prediction = Tokens(values, jax.numpy.ones(values.shape[:2], bool))
    return {"prediction": prediction, **_aux_outputs({**result.aux, **aux})}
