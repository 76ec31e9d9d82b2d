"""Planted mistakes: every property of the kit finds the one that it is for."""

import dataclasses
import itertools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs
import tiny_dataset
from groups import in_ci

from mmfusion_jax import testing
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.losses.objective import average
from mmfusion_jax.ops.masking import masked_mean, zero_masked
from mmfusion_jax.testing.report import run_properties
from mmfusion_jax.types import Outputs, Tokens

COUNTER = itertools.count()
SHAPE = (5, 3)
STREAMS = {"audio": (3, 4), "video": (4, 4)}


@jax.custom_jvp
def sine_with_a_callback(x):
    """A sine whose derivative is a callback, which itself has no derivative."""
    return jnp.sin(x)


@sine_with_a_callback.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jnp.sin(x), t * jax.pure_callback(
        np.cos, shape, x, vmap_method="expand_dims"
    )


@jax.custom_vjp
def sine_in_reverse_mode(x):
    """A sine with a derivative in reverse mode only."""
    return jnp.sin(x)


sine_in_reverse_mode.defvjp(lambda x: (jnp.sin(x), x), lambda x, dy: (dy * jnp.cos(x),))


class Encoder(nn.Module):
    """The masked mean of a projection, wrong in the way `kind` says."""

    kind: str = ""
    dtype: object = None

    @nn.compact
    def __call__(self, values, mask, *, train):
        return getattr(self, f"_{self.kind.replace(' ', '_')}")(values, mask, train)

    def _project(self, values, mask):
        x = nn.Dense(4, dtype=self.dtype, name="project")(zero_masked(values, mask))
        return Tokens(zero_masked(x, mask), mask)

    def _(self, values, mask, train):
        return self._project(values, mask)

    def _mean_over_padding(self, values, mask, train):
        x = self._project(values, mask)
        return x.replace(values=x.values - jnp.mean(values, axis=1)[:, None, :1])

    def _zeros_in_the_mean(self, values, mask, train):
        x = self._project(values, mask).values
        present = jnp.any(mask, axis=1, keepdims=True)
        return Tokens(jnp.mean(x, axis=1, keepdims=True), present)

    def _mask_dropped(self, values, mask, train):
        return Tokens(self._project(values, mask).values, jnp.ones_like(mask))

    def _integers(self, values, mask, train):
        x = self._project(values, mask)
        return x.replace(values=x.values.astype(jnp.int32))

    def _float_mask(self, values, mask, train):
        return Tokens(self._project(values, mask).values, mask.astype(jnp.float32))

    def _flat(self, values, mask, train):
        return self._project(values, mask).replace(values=values[:, 0])

    def _grid(self, values, mask, train):
        return self._project(values, mask).replace(grid=(7,))

    def _an_array(self, values, mask, train):
        return self._project(values, mask).values

    def _square_root(self, values, mask, train):
        x = self._project(values, mask)
        norm = jnp.sqrt(jnp.sum(values**2, axis=-1, keepdims=True))
        return x.replace(values=x.values + zero_masked(norm, mask))

    def _zero_times_infinity(self, values, mask, train):
        x = self._project(values, mask)
        return x.replace(values=x.values + jnp.sum(values * mask[..., None]) * 0)

    def _logarithm(self, values, mask, train):
        x = self._project(values, mask)
        spread = masked_mean(jnp.square(zero_masked(values, mask)), mask, axis=1)
        spread = zero_masked(jnp.log(spread), jnp.any(mask, axis=1))
        return x.replace(values=x.values + spread.sum(-1)[:, None, None])

    def _overflow(self, values, mask, train):
        x = self._project(values, mask)
        weights = jnp.exp(x.values) / jnp.sum(jnp.exp(x.values), axis=-1, keepdims=True)
        return x.replace(values=zero_masked(weights, mask))

    def _dropout_in_evaluation(self, values, mask, train):
        x = self._project(values, mask)
        drop = nn.Dropout(0.5, deterministic=False)
        return x.replace(values=drop(x.values))

    def _parameters_of_the_batch(self, values, mask, train):
        x = self._project(values, mask)
        table = self.param("table", nn.initializers.normal(), (len(values), 1, 4))
        return x.replace(values=zero_masked(x.values + table, mask))

    def _parameters_of_the_data(self, values, mask, train):
        init = lambda key: jnp.mean(zero_masked(values, mask))
        shift = self.param("shift", init)
        return self._project(values, mask).replace(values=values * 0 + shift)

    def _short_table(self, values, mask, train):
        x = self._project(values, mask)
        shape = (values.shape[1], 4)
        table = self.param("positions", nn.initializers.normal(), shape)
        return x.replace(values=zero_masked(x.values + table, mask))

    def _batch_norm(self, values, mask, train):
        x = self._project(values, mask)
        norm = nn.BatchNorm(use_running_average=not train, name="norm")
        return x.replace(values=zero_masked(norm(x.values), mask))

    def _norm_of_one_device(self, values, mask, train):
        x = self._project(values, mask)
        norm = BatchNorm(name="norm")
        return x.replace(values=norm(x.values, mask, train=train))

    def _updates_in_evaluation(self, values, mask, train):
        x = self._project(values, mask)
        norm = BatchNorm(name="norm")
        return x.replace(values=norm(x.values, mask, train=True))

    def _count_of_calls(self, values, mask, train):
        x = self._project(values, mask)
        return x.replace(values=zero_masked(x.values + next(COUNTER), mask))

    def _branch_on_values(self, values, mask, train):
        x = self._project(values, mask)
        return x if bool(jnp.all(mask)) else x.replace(values=2 * x.values)

    def _depends_on_jit(self, values, mask, train):
        x = self._project(values, mask)
        factor = 1 if isinstance(values, jax.core.Tracer) else 2
        return x.replace(values=factor * x.values)

    def _rank(self, values, mask, train):
        x = self._project(values, mask)
        factor = 1.0 if len(values) > 1 else 2.0
        return x.replace(values=factor * x.values)

    def _reverse_mode_only(self, values, mask, train):
        x = self._project(values, mask)
        return x.replace(values=sine_in_reverse_mode(x.values))

    def _first_order_only(self, values, mask, train):
        x = self._project(values, mask)
        return x.replace(values=sine_with_a_callback(x.values))

    def _stopped(self, values, mask, train):
        x = self._project(values, mask)
        return x.replace(values=jnp.sign(x.values) + zero_masked(values, mask)[..., :1])

    def _half_precision(self, values, mask, train):
        x = self._project(values, mask)
        if self.dtype is None:
            return x
        return x.replace(values=x.values + 1)


ENCODERS = {
    "mean over padding": "position 4 of example 1 is masked, but NaN there changes the "
    "output at position 0",
    "zeros in the mean": r"the output at position 0 of example 0 moves by .* with "
    "padding up to 7 instead of 5 positions",
    "mask dropped": "example 3 is masked everywhere, but the output at position 0 is "
    "marked as valid",
    "integers": "the output has values of int32, not float32",
    "float mask": "the output has a mask of float32, not bool",
    "flat": r"the output has values \(4, 3\) and a mask \(4, 5\) for 4 examples",
    "grid": r"the output has the grid \(7,\) for 5 positions",
    "an array": "returns an array, not Tokens",
    "square root": "with zeros everywhere, the gradient of input 'input' is not finite",
    "zero times infinity": "position 4 of example 1 is masked, but NaN there changes",
    "logarithm": "with zeros everywhere, the output at position 0 of example 0 is not",
    "overflow": "with values of 1e4, the output at position 0 of example 0 is not",
    "dropout in evaluation": "train=False requires a random key",
    "parameters of the batch": "parameters have other shapes for 1 than for 4 examples",
    "parameters of the data": "initial value of 'params/shift' changes when example 0",
    "short table": r"with padding up to 7 instead of 5 positions it raises .*positions",
    "batch norm": "with padding up to 7 instead of 5 positions the batch statistics "
    "'norm/mean' change",
    "norm of one device": r"moves by .* on two devices",
    "updates in evaluation": "train=False changes the statistics 'norm/mean'",
    "count of calls": "traced to another program the second time",
    "branch on values": "it raises TracerBoolConversionError",
    "depends on jit": r"the output at position 0 of example 0 moves by .* without jit",
    "rank": r"example 0 moves by .* under vmap, one example at a time",
    "stopped": "the gradient of 'project' is 0 everywhere",
    "first order only": "it cannot be differentiated twice, forward over reverse mode: "
    "ValueError: Pure callbacks do not support JVP",
    "half precision": r"the output at position 0 of example 0 moves by 1 in bfloat16",
}
"""Kind of encoder -> its sentence."""


@pytest.mark.parametrize("kind", in_ci(ENCODERS, "mean over padding", "integers"))
def test_encoders(kind):
    with pytest.raises(AssertionError, match=f"(?m)^my_encoder: .*{ENCODERS[kind]}"):
        testing.check_encoder(Encoder(kind), SHAPE, name="my_encoder")


class Block(nn.Module):
    """Adds the masked mean of audio to video, wrong in the way `kind` says."""

    kind: str = ""

    @nn.compact
    def __call__(self, streams, *, train):
        clean = {
            k: x.replace(values=zero_masked(x.values, x.mask))
            for k, x in streams.items()
        }
        method = getattr(self, f"_{self.kind.replace(' ', '_')}")
        return method(streams, clean, train)

    def _(self, streams, clean, train):
        if "audio" not in clean:
            return clean
        audio, video = clean["audio"], clean["video"]
        x = nn.Dense(4, use_bias=False, name="project")(audio.values)
        added = video.values + masked_mean(x, audio.mask, axis=1)[:, None]
        return {
            **clean,
            "video": video.replace(values=zero_masked(added, video.mask)),
        }

    def _attention_without_mask(self, streams, clean, train):
        audio, video = clean["audio"], clean["video"]
        scores = jnp.einsum("bnd,bsd->bns", video.values, audio.values)
        x = jax.nn.softmax(scores) @ audio.values
        x = video.replace(values=zero_masked(video.values + x, video.mask))
        return {**clean, "video": x}

    def _batch_mean(self, streams, clean, train):
        center = lambda x: zero_masked(x.values - jnp.mean(x.values, 0), x.mask)
        return {k: x.replace(values=center(x)) for k, x in clean.items()}

    def _neighbors(self, streams, clean, train):
        add = lambda x: zero_masked(jnp.cumsum(x.values, axis=0), x.mask)
        return {k: x.replace(values=add(x)) for k, x in clean.items()}

    def _batch_mean_in_training(self, streams, clean, train):
        return self._batch_mean(streams, clean, train) if train else clean

    def _positions(self, streams, clean, train):
        add = lambda x: zero_masked(x.values + jnp.arange(4.0), x.mask)
        first = lambda x: x.values * jnp.arange(x.values.shape[1])[:, None]
        return {k: x.replace(values=add(x) + first(x)) for k, x in clean.items()}

    def _loses_a_stream(self, streams, clean, train):
        return {"video": clean["video"]}

    def _argmax(self, streams, clean, train):
        audio, video = clean["audio"], clean["video"]
        scores = nn.Dense(1, name="scores")(audio.values)[..., 0]
        best = jnp.argmax(jnp.where(audio.mask, scores, -1e9), axis=1)
        x = jnp.take_along_axis(audio.values, best[:, None, None], axis=1)
        return {**clean, "video": video.replace(values=video.values + x)}

    def _modality_mean(self, streams, clean, train):
        means = jnp.stack([masked_mean(x.values, x.mask, 1) for x in clean.values()], 1)
        present = jnp.stack([x.present for x in clean.values()], axis=1)
        joint = jnp.sum(zero_masked(means, present), axis=1) / present.sum(1)[:, None]
        here = jnp.any(present, axis=1)[:, None]
        return {**clean, "joint": Tokens(joint[:, None], jnp.ones_like(here))}

    def _default_for_nothing(self, streams, clean, train):
        count = len(clean["audio"].mask)
        made = Tokens(jnp.ones((count, 1, 4)), jnp.ones((count, 1), bool))
        return {**clean, "joint": made}

    def _two_of_a_kind(self, streams, clean, train):
        rest = [masked_mean(x.values, x.mask, 1) for k, x in clean.items() if k < "b"]
        count = jnp.float32(len(rest))
        joint = sum(rest, jnp.zeros((len(clean["video"].mask), 4))) / count
        present = jnp.any(clean["video"].mask, axis=1)[:, None]
        return {**clean, "joint": Tokens(joint[:, None], present)}

    def _variance_of_the_batch(self, streams, clean, train):
        scale = lambda x: x.values / jnp.std(x.values[:, :1], axis=0, ddof=1)
        return {k: x.replace(values=scale(x)) for k, x in clean.items()}


BLOCKS = {
    "attention without mask": r"output 'video' at position 0 of example 1 moves by .* "
    "when the padding comes first|with padding up to 5 instead of 3 positions",
    "batch mean": r"example 1 of output 'audio' moves by .* when example 0 changes$",
    "neighbors": r"example 1 of output 'audio' moves by .* when example 0 changes$",
    "batch mean in training": "moves by .* when example 0 changes in training",
    "positions": r"output 'audio' at position .* when the padding comes first",
    "loses a stream": "stream 'audio' is not among the outputs",
    "argmax": "the gradient of 'scores' is 0 everywhere",
    "modality mean": "with no modality present, output 'joint' at position 0 of "
    "example 0 is not finite",
    "default for nothing": "every input is masked, but output 'joint' at position 0 of "
    "example 0 is marked as valid",
    "two of a kind": "without the stream 'audio', output 'joint' at position 0 of "
    "example 0 is not finite",
    "variance of the batch": "with a batch of one example, output 'audio' at position "
    "0 of example 0 is not finite",
}
"""Kind of block -> its sentence."""


@pytest.mark.parametrize("kind", in_ci(BLOCKS, "batch mean"))
def test_blocks(kind):
    with pytest.raises(AssertionError, match=f"(?m)^my_gate: .*({BLOCKS[kind]})"):
        testing.check_fusion(Block(kind), STREAMS, name="my_gate")


class Model(nn.Module):
    """Classifies the masked means, wrong in the way `kind` says."""

    kind: str = ""

    @nn.compact
    def __call__(self, batch, *, train):
        mean = lambda k: masked_mean(batch.inputs[k], batch.masks[k], axis=1)
        if self.kind == "reads padding":
            mean = lambda k: jnp.mean(batch.inputs[k], axis=1)
        x = jnp.concatenate([mean(k) for k in sorted(batch.inputs)], axis=-1)
        logits = nn.Dense(3, name="head")(x)
        if self.kind == "softmax of the batch":
            logits = logits - jnp.max(logits)
        if self.kind == "an array":
            return logits
        return Outputs(logits, {"pooled": x})


@pytest.mark.ci
@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (
            "reads padding",
            "position 2 of 'audio' of example 1 is masked, but NaN there",
        ),
        ("softmax of the batch", r"of output 'prediction' moves by .* when example"),
        ("an array", "returns an array, not Outputs"),
    ],
)
def test_models(kind, sentence):
    with pytest.raises(AssertionError, match=f"(?m)^my_model: .*{sentence}"):
        testing.check_model(Model(kind), STREAMS, name="my_model")


def test_parts_without_a_mistake():
    report = testing.check_encoder(Encoder(), SHAPE, positional=False)
    assert "padding position" in report.checked and "two devices" in report.checked
    assert list(report.not_checked) == ["dropped streams"]
    report = testing.check_fusion(Block(), STREAMS)
    assert "dropped streams" in report.checked
    assert "masked values" in str(report) and "not checked:" in str(report)
    testing.check_model(Model(), STREAMS)


@pytest.mark.ci
def test_a_part_without_forward_mode_is_not_differentiated_twice():
    report = testing.check_encoder(Encoder("reverse mode only"), SHAPE)
    assert "no forward mode" in report.not_checked["second derivatives exist"]
    assert "second derivatives exist" in testing.check_encoder(Encoder(), SHAPE).checked


class Pooled(nn.Module):
    """Returns one vector per example, without the mask if `kind` is "no mask"."""

    kind: str = ""

    @nn.compact
    def __call__(self, streams, *, train):
        means = [
            jnp.mean(x.values, axis=1)
            if self.kind == "no mask"
            else masked_mean(x.values, x.mask, axis=1)
            for x in streams.values()
        ]
        return nn.Dense(3, name="out")(jnp.concatenate(means, axis=-1))


@pytest.mark.ci
@pytest.mark.parametrize("count", [2, 5])
def test_a_block_that_returns_a_vector_and_a_batch_of_any_size(count):
    rng = np.random.default_rng(0)
    audio = Tokens(
        rng.standard_normal((count, 3, 4)).astype(np.float32),
        np.ones((count, 3), bool),
    )
    streams = {"audio": audio, "video": (4, 4)}
    assert testing.check_fusion(Pooled(), streams).checked
    with pytest.raises(AssertionError, match="NaN there changes output 'vector'"):
        testing.check_fusion(Pooled("no mask"), streams)


def test_all_failures_are_reported():
    with pytest.raises(AssertionError) as found:
        testing.check_encoder(Encoder("mean over padding"), SHAPE)
    lines = str(found.value).splitlines()
    assert len(lines) >= 2 and all(line.startswith("Encoder: ") for line in lines)


# --- Losses --------------------------------------------------------------------------


LOSS_KINDS = {
    "": lambda x, y, valid, value, batch: value,
    "mean": lambda x, y, valid, value, batch: jnp.mean(value),
    "mean of the batch": lambda x, y, valid, value, batch: jnp.broadcast_to(
        jnp.mean(value), value.shape
    ),
    "average": lambda x, y, valid, value, batch: average(value, batch.weight),
    "root": lambda x, y, valid, value, batch: jnp.sqrt(value),
    "logarithm": lambda x, y, valid, value, batch: zero_masked(jnp.log(value), valid),
    "product with the mask": lambda x, y, valid, value, batch: (
        jnp.sum((x - y) ** 2, axis=-1) * valid
    ),
    "half": lambda x, y, valid, value, batch: value.astype(jnp.bfloat16),
    "argmax": lambda x, y, valid, value, batch: (
        jnp.argmax(x, -1) == jnp.argmax(y, -1)
    ).astype(jnp.float32),
    "counts padding rows": lambda x, y, valid, value, batch: value / len(value),
    "per class": lambda x, y, valid, value, batch: (x - y) ** 2,
    "count of calls": lambda x, y, valid, value, batch: value * (1 + next(COUNTER)),
    "nothing": lambda x, y, valid, value, batch: None,
}


@dataclasses.dataclass(frozen=True)
class Loss:
    """Squared distance of two modalities, wrong in the way `kind` says."""

    kind: str = ""

    def __call__(self, outputs, batch):
        x, y = outputs.aux["audio"], outputs.aux["video"]
        valid = batch.has_modalities("audio", "video")
        value = jnp.sum(zero_masked(x - y, valid) ** 2, axis=-1)
        return LOSS_KINDS[self.kind](x, y, valid, value, batch)


LOSSES = {
    "mean": "returns one value for 8 examples, so rows of weight 0 count",
    "mean of the batch": r"example 0 moves by .* when example 2 changes",
    "root": r"the gradient of aux\['audio'\] is not finite",
    "logarithm": "with all outputs 0, the loss is not finite",
    "product with the mask": r"aux\['audio'\] of example . is masked, but NaN there "
    "changes the gradient of",
    "half": "returns bfloat16, not float32",
    "argmax": "the gradient is 0 everywhere",
    "counts padding rows": r"the loss moves by .* with rows of weight 0",
    "per class": r"returns the shape \(8, 5\) for 8 examples",
    "count of calls": r"the loss moves by .* without jit",
    "nothing": "returns None, not an array",
}
"""Kind of loss -> its sentence."""


@pytest.mark.parametrize("kind", in_ci(LOSSES, "mean", "root", "argmax"))
def test_losses(kind):
    with pytest.raises(AssertionError, match=f"(?m)^my_loss: .*{LOSSES[kind]}"):
        testing.check_loss(Loss(kind), name="my_loss")


def test_losses_without_a_mistake():
    assert not testing.check_loss(Loss()).not_checked
    report = testing.check_loss(Loss("average"), compares_examples=True)
    assert len(report.not_checked) == 2


def norm(outputs, batch):
    """A loss whose gradient is NaN for a prediction of 0."""
    return jnp.sqrt(jnp.sum(zero_masked(outputs.prediction, batch.weight > 0) ** 2, -1))


def test_a_gradient_of_the_prediction_that_is_not_finite_is_found():
    sentence = "with all outputs 0, the gradient of the prediction is not finite"
    with pytest.raises(AssertionError, match=f"(?m)^norm: {sentence}"):
        testing.check_loss(norm)


def test_a_result_of_nan_is_one_mistake():
    with pytest.raises(AssertionError) as found:
        testing.check_loss(lambda outputs, batch: outputs.prediction[:, 0] * jnp.nan)
    sentences = str(found.value).splitlines()
    assert all("not finite" in x or "weight 0" in x for x in sentences), sentences


def test_a_loss_may_read_rows_of_weight_0():
    # The objective ignores the value, and the gradient of a sum is not NaN.
    testing.check_loss(lambda outputs, batch: jnp.sum(outputs.prediction, axis=-1))


# --- Datasets ------------------------------------------------------------------------


class Views(tiny_dataset.Tones):
    """A source that returns its own arrays."""

    def __init__(self, size, seed):
        super().__init__(size, seed)
        self.rows = [tiny_dataset.Tones.__getitem__(self, i) for i in range(size)]

    def __getitem__(self, index):
        return self.rows[index]


class Random(tiny_dataset.Tones):
    """A source whose examples differ each time."""

    def __getitem__(self, index):
        made = super().__getitem__(index)
        made["inputs"]["audio"] += next(COUNTER)
        return made


class Changed(tiny_dataset.Tones):
    """A source with one change in one example."""

    def __init__(self, size, seed, change):
        super().__init__(size, seed)
        self.change = change

    def __getitem__(self, index):
        made = super().__getitem__(index)
        if index == 4:
            self.change(made)
        return made


def changed(change):
    return lambda: {"sources": {**SOURCES, "train": Changed(9, 7, change)}}


def longer(example):
    example["inputs"]["audio"] = np.zeros((30, 4), np.float32)
    example["masks"]["audio"] = np.ones(30, bool)


def infinite(example):
    example["inputs"]["audio"][2] = np.nan


def wide(example):
    example["inputs"]["audio"] = example["inputs"]["audio"].astype(np.float64)


def fourth(example):
    example["labels"]["label"] = np.int32(3)


def light(example):
    example["weight"] = np.float32(0)


TONES = tiny_dataset.Tones
SOURCES = {"train": TONES(9, 1), "valid": TONES(6, 2), "test": TONES(6, 3)}
IDS = InMemory(
    {"text": np.arange(8, dtype=np.int32).reshape(2, 4)},
    {"text": np.ones((2, 4), bool)},
    {"label": np.zeros(2, np.int32)},
)
DATASETS = {
    "longer": (
        changed(longer),
        r"'inputs/audio' of example 4 of split 'train' is 'float32 \(30, 4\)'",
    ),
    "infinite": (
        changed(infinite),
        "input 'audio' of example 4 of split 'train' is not finite at step 2",
    ),
    "wide": (changed(wide), "inputs 'audio' of example 4 of split 'train' is float64"),
    "fourth": (
        changed(fourth),
        "label 'label' of example 4 of split 'train' is 3, outside 0..2",
    ),
    "light": (changed(light), "the weight of example 4 of split 'train' is not 1"),
    "views": (
        lambda: {"sources": {**SOURCES, "train": Views(9, 7)}},
        "of example 0 of split 'train' changes when an example that was read before",
    ),
    "random": (
        lambda: {"sources": {**SOURCES, "train": Random(9, 7)}},
        "inputs 'audio' of example 0 of split 'train' differs when it is read again",
    ),
    "lambda": (
        lambda: {"sources": {**SOURCES, "train": Changed(9, 7, lambda made: None)}},
        "the source of split 'train' cannot be pickled",
    ),
    "leak": (
        lambda: {"sources": {**SOURCES, "test": TONES(6, 1)}},
        "example 0 of split 'test' has the inputs of example 0 of split 'train'",
    ),
    "labels": (
        lambda: {"labels": {"train": {"label": np.zeros(9, np.int32)}}},
        "is 1, but 0 in Dataset.labels",
    ),
    "no test": (lambda: {"sources": {"train": TONES(9, 1)}}, "split 'test'"),
    "empty": (lambda: {"sources": {**SOURCES, "valid": []}}, "split 'valid' .* empty"),
    "ids": (
        lambda: {"sources": {"train": IDS, "test": IDS}, "ids": {"text": (0, 5)}},
        r"input 'text' of example 1 of split 'train' has ids 4..7, outside 0..5",
    ),
    "groups": (
        lambda: {"groups": {"train": ["ann"], "test": ["bob"]}},
        "'ann' is in splits 'train' and 'test'",
    ),
}
"""Kind of mistake -> changed fields of a dataset, and the sentence."""


@pytest.mark.parametrize("kind", DATASETS)
def test_datasets(kind):
    change, sentence = DATASETS[kind]
    classes = {"label": tiny_dataset.CLASSES}
    data = Dataset("bad", "bad", SOURCES, classes)
    data = dataclasses.replace(data, **change())
    if kind == "groups":  # a dataset cannot be made with them
        data.groups["test"].append("ann")
    with pytest.raises(AssertionError, match=f"(?m)^my_data: .*{sentence}"):
        testing.check_dataset(data, "label", name="my_data")


def test_a_dataset_without_a_mistake():
    report = testing.check_dataset(tiny_dataset.tones(), "label")
    assert set(report.not_checked) == {"groups in one split", "ids in range"}
    testing.check_dataset(small_configs.digits(), "digit")  # views of arrays


# --- Augmentations -------------------------------------------------------------------


def noisy(x, mask, rng):
    noise = rng.standard_normal(x.shape).astype(np.float32)
    return np.where(mask[:, None], x + noise, x)


def in_place(x, mask, rng):
    x += noisy(x, mask, rng)
    return x


def without_mean(x, mask, rng):
    return np.where(mask[:, None], noisy(x, mask, rng) - x.mean(axis=0), x)


VALUES = {
    "longer": lambda x, mask, rng: np.concatenate([noisy(x, mask, rng), x]),
    "wide": lambda x, mask, rng: noisy(x, mask, rng).astype(np.float64),
    "global": lambda x, mask, rng: x + np.float32(np.random.rand()),
    "still": lambda x, mask, rng: x,
    "in place": in_place,
    "infinite": lambda x, mask, rng: x / np.float32(rng.integers(0, 2)),
    "missing": lambda x, mask, rng: noisy(x, np.ones_like(mask), rng),
    "reads padding": without_mean,
}
MASKS = {
    "masks all": lambda mask, rng: mask & (rng.random() < 0.5),
    "resamples masks": lambda mask, rng: rng.random(mask.shape) < 2,
}


@dataclasses.dataclass(frozen=True)
class Noise:
    """Adds noise to valid steps, wrong in the way `kind` says."""

    kind: str = ""
    modality: str = "audio"

    def __call__(self, example, rng):
        x, mask = (example[part][self.modality] for part in ("inputs", "masks"))
        if not mask.any() and self.kind != "missing":
            return example
        changed = VALUES.get(self.kind, noisy)(x, mask, rng)
        mask = MASKS.get(self.kind, lambda mask, rng: mask)(mask, rng)
        made = {
            **example,
            "inputs": {**example["inputs"], self.modality: changed},
            "masks": {**example["masks"], self.modality: mask},
        }
        if self.kind == "other":
            made["inputs"]["other"] = made["inputs"]["other"] + np.float32(rng.random())
        if self.kind == "label":
            made["labels"] = {"label": np.int32(9)}
        return made


AUGMENTATIONS = {
    "longer": r"the mask of input 'audio' .* seed 0 is bool \(20,\), not bool \(40,\)",
    "wide": r"'inputs/audio' becomes 'float64 \(20, 8\)' with seed 0",
    "global": "inputs 'audio' differs when it runs again with seed 0",
    "still": "the result is the same for 20 seeds",
    "in place": "inputs 'audio' of the given example is changed in place with seed 0",
    "other": "inputs 'other' changes with seed 0, but it augments 'audio'",
    "label": "labels 'label' changes with seed 0, but it augments 'audio'",
    "infinite": "input 'audio' is not finite with seed",
    "masks all": "every step of 'audio' is masked with seed",
    "resamples masks": "step 15 of 'audio' changes with masked values and seed 0",
    "missing": "inputs 'audio' changes with seed 0 although the modality is missing",
    "reads padding": "step 0 of 'audio' changes with masked values and seed 0",
}
"""Kind of augmentation -> its sentence."""


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_augmentations(kind):
    sentence = AUGMENTATIONS[kind]
    with pytest.raises(AssertionError, match=f"(?m)^my_noise: .*{sentence}"):
        testing.check_augmentation(Noise(kind), name="my_noise")


@dataclasses.dataclass(frozen=True)
class Raises:
    """An augmentation and a loss that raise an exception."""

    modality: str = "audio"

    def __call__(self, *_):
        raise KeyError("speech")


def test_an_exception_has_its_line_of_code():
    said = r"the first raises KeyError: 'speech' \(.*test_planted.py, line \d+\)"
    for check in (testing.check_augmentation, testing.check_loss):
        with pytest.raises(AssertionError, match=f"^Raises: .*{said}") as found:
            check(Raises())
        assert isinstance(found.value.__cause__, KeyError)


def test_an_exception_of_many_properties_is_one_sentence():
    def shapes(_):
        pass

    def jit(_):
        raise KeyError("speech")

    def padding_length(case):
        jit(case)

    with pytest.raises(AssertionError, match="^MyGate: jit raises KeyError.*") as found:
        run_properties("MyGate", None, [shapes, jit, padding_length])
    assert str(found.value).endswith("; also in padding length")


@pytest.mark.parametrize(
    ("check", "arguments", "words"),
    [
        ("check_augmentation", (Raises,), "Raises is a class, not an augmentation"),
        ("check_loss", (Raises,), "pass Raises(...)"),
        ("check_encoder", (Encoder,), "not an encoder"),
        ("check_fusion", (Block(), ["audio"]), "not a mapping of names"),
        ("check_dataset", (str, "label"), "not a Dataset; call the function"),
        ("check_dataset", (None, "label"), "the dataset is None, not a Dataset"),
    ],
)
def test_what_is_not_a_part_is_named(check, arguments, words):
    with pytest.raises(TypeError, match=re.escape(words)):
        getattr(testing, check)(*arguments)


def test_an_augmentation_without_a_mistake():
    assert not testing.check_augmentation(Noise()).not_checked
