"""Audio aligned by CTC in any model: by a config alone, through whole runs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_dataset

from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.encoders.ctc_aligned import CTCAligned
from mmfusion_jax.encoders.precomputed import Precomputed
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.ctc_alignment import CTCAlignment
from mmfusion_jax.models.encoder_aux import with_encoder_aux
from mmfusion_jax.results.metrics_file import read_metrics
from mmfusion_jax.runner import experiment
from mmfusion_jax.training.state import create_state
from mmfusion_jax.types import AUX, Outputs, Tokens

HERE = "test_ctc_aligned"
VIDEO = {"name": "feature_tokens", "hidden_dim": 8}
MODELS = ("concat_fc", "late_fusion", f"{HERE}:Own")
LSTM = {"name": "lstm", "hidden_dim": 8}
CTC = {"name": "ctc", "weight": 0.1, "modalities": ("audio",)}


def config(model="concat_fc", audio=None, loss=CTC, encoder="ctc_aligned", **fields):
    """The tones, whose audio has 24 steps, aligned to 4 positions.

    Args:
        model: its name.
        audio: options of the encoder of audio.
        loss: the second loss.
        encoder: the encoder of audio.
        **fields: full names of other fields -> values.
    """
    made = tiny_dataset.config(**fields)
    options = {"length": 4, "encoder": LSTM} if audio is None else audio
    encoders = {"audio": {"name": encoder, **options}, "video": VIDEO}
    made.model = {"name": model, "encoders": encoders}
    made.losses.ctc = loss
    return resolve(made)


def aligned(**options):
    """Changed options of the encoder of audio."""
    return {"audio": {"length": 4, "encoder": LSTM, **options}}


class Own(nn.Module):
    """A model of another package, which knows nothing of auxiliary outputs."""

    encoders: dict
    head_size: int

    @nn.compact
    def __call__(self, batch, *, train):
        audio = self.encoders["audio"]
        tokens = audio(batch.inputs["audio"], batch.masks["audio"], train=train)
        return Outputs(nn.Dense(self.head_size)(tokens.values[:, -1]))


class Scalar(nn.Module):
    """An encoder of another package that stores a scalar."""

    has_aux = True

    @nn.compact
    def __call__(self, values, mask, *, train):
        self.sow(AUX, "scale", jnp.ones(()))
        return Tokens(values, mask)


def one_step(spec):
    """The metrics of a first training step, and the outputs before it."""
    data = build_data.build_dataset(spec, 0)
    pipeline = build_data.build_pipeline(spec, data, 0)
    parts = build.build_components(spec, data, 10)
    batch = next(pipeline.train(0, 1))
    state = create_state(parts.model, parts.tx, batch, jax.random.key(0))
    outputs = parts.model.apply(state.variables, batch, train=False)
    step = parts.executor.compile(parts.train_step(parts.executor.axis))
    _, metrics = step(state, parts.executor.put(batch, train=True))
    return jax.device_get(metrics), outputs


def test_the_encoder_reads_the_aligned_sequence():
    x = jax.random.normal(jax.random.key(0), (2, 6, 3))
    mask = jnp.arange(6) < jnp.array([[6], [5]])
    encoder = CTCAligned(4, Precomputed(), "audio")
    variables = encoder.init(jax.random.key(1), x, mask, train=False)
    run = lambda x: encoder.apply(
        {"params": variables["params"]}, x, mask, train=False, mutable=[AUX]
    )
    tokens, stored = run(x)
    aligned, logits = CTCAlignment(4).apply(
        {"params": variables["params"]["align"]}, Tokens(x, mask), train=False
    )
    np.testing.assert_array_equal(tokens.values, aligned.values)
    assert tokens.mask.all()
    np.testing.assert_array_equal(stored[AUX]["ctc/audio"][-1], logits)
    np.testing.assert_array_equal(stored[AUX]["ctc/audio/valid"][-1], mask)
    pixels = jnp.clip(100 + 50 * x, 0, 255).astype(jnp.uint8)
    frames = run(pixels[..., None])[0]
    np.testing.assert_allclose(frames.values, run(pixels / 255)[0].values, rtol=1e-6)


def test_a_run_learns_the_alignment(tmp_path):
    spec = config(**{"train.epochs": 8})
    result = experiment.train(spec, tmp_path, "a test")
    (run,) = result.runs
    losses = [
        value
        for line in read_metrics(tmp_path)
        if (value := line.values.get("loss/ctc")) is not None
    ]
    assert run.steps == 32 and len(losses) == 16
    assert losses[-1] < losses[0] - 5
    assert all(np.isfinite(losses))
    assert experiment.evaluate(spec, tmp_path)


@pytest.mark.ci
@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_the_outputs_of_its_encoders(model):
    metrics, outputs = one_step(config(model))
    assert outputs.aux["ctc/audio"].shape == (8, 24, 5)
    assert outputs.aux["ctc/audio/valid"].shape == (8, 24)
    assert metrics["loss/ctc"] > 0 and np.isfinite(metrics["grad_norm"])


@pytest.mark.ci
@pytest.mark.parametrize(
    ("field", "value"),
    [("optim.gradient_accumulation_steps", 2), ("parallel", "pmap")],
)
def test_parts_of_a_batch_and_devices_have_the_same_loss(field, value):
    want, got = (one_step(config(**fields))[0] for fields in ({}, {field: value}))
    np.testing.assert_allclose(got["loss/ctc"], want["loss/ctc"], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (aligned(length=25), "C26", "length=25 is more than the 24 steps of audio"),
        (aligned(length=0), "C10", "model.encoders.audio.length=0 is out of range"),
        ({"audio": {"length": 4}}, "C31", "encoders.audio.encoder is missing"),
        (aligned(encoder="lstm"), "C11", ".encoder='lstm' is not a group of fields"),
        (aligned(encoder={}), "C31", "encoders.audio.encoder.name is missing"),
        (aligned(encoder={"name": "lsm"}), "C03", "audio.encoder.name='lsm' is not a"),
        (aligned(encoder=LSTM | {"x": 1}), "C02", "audio.encoder.x is unknown"),
        (aligned(encoder={"name": "builtins:dict"}), "C33", "a function of (values"),
        (aligned(modality="audio"), "C02", "audio.modality is unknown"),
        ({"loss": CTC | {"modalities": ("video",)}}, "C17", "output 'ctc/video'"),
        ({"encoder": f"{HERE}:Scalar", "audio": {}}, "C33", "'scale' without an axis"),
    ],
)
def test_mistakes_are_named(changes, code, said):
    with pytest.raises(ConfigError) as info:
        jax.eval_shape(lambda: one_step(config(**changes))[1])
    assert info.value.code == code and said in str(info.value)


def test_token_ids_are_not_aligned():
    encoder = CTCAligned(2, Precomputed(), "text")
    ids, mask = jnp.ones((2, 3), int), jnp.ones((2, 3), bool)
    with pytest.raises(ConfigError, match="C26.*'ctc_aligned' expects vectors"):
        encoder.init(jax.random.key(0), ids, mask, train=False)


def test_a_model_without_such_encoders_is_unchanged():
    model = Own({"audio": Precomputed()}, 3)
    assert with_encoder_aux(model, model.encoders) is model
