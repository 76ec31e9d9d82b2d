"""The model `fused`: every block of FUSIONS, from a config alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs
from groups import in_ci
from ml_collections import ConfigDict

from mmfusion_jax.config import build
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.pipeline import collate
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.fusion import FUSIONS
from mmfusion_jax.fusion.adapters import StackedModalities
from mmfusion_jax.models.fused import Fused

ENCODERS = {
    "audio": {"name": "audio_cnn", "hidden_dim": 8, "channels": 4, "pool": 4},
    "text": {"name": "conv_lstm", "hidden_dim": 4, "vocab_size": small_configs.WORDS},
    "video": {"name": "image_cnn", "channels": (4,)},
}
"""Of different widths, which `projection_dim` makes equal."""

OPTIONS: dict[str, dict] = {
    "adaptive_gate": {"hidden_dim": 4},
    "cross_modal_alignment": {"num_heads": 2},
    "hierarchical_attention": {"num_heads": 2, "num_layers": 1},
    "modality_attention": {"num_heads": 2},
    "predictive_self_attention": {"num_heads": 2, "num_layers": 2},
    "reinforcement_unit": {"num_heads": 2},
    "residual_attention": {"hidden_dim": 4, "target": "video", "source": "audio"},
    "tensor_convolution": {
        "x": "audio",
        "y": "video",
        "into": "joint",
        "channels": (2, 1),
    },
    "transformer_context": {"num_heads": 2, "num_layers": 1},
}
"""Block -> options at which a test is quick; others have none that matter."""

ADDED = {
    "adaptive_gate": {"gate": (3,), "weight/text": ()},
    "cross_modal_alignment": {"alpha": (3, 3)},
    "graph_fusion": {"joint": (8,)},
    "modality_weighting": {"weights": (3,), "weight/audio": ()},
    "residual_attention": {"attention": (48, 1)},
    "tensor_convolution": {"joint": (16,)},
}
"""Block -> auxiliary outputs that it adds, with their shapes."""


def config(fusion: str, modalities=tuple(ENCODERS), **options) -> ConfigDict:
    """The recipe of a small config with any block."""
    made = {
        "name": "fused",
        "encoders": {m: ENCODERS[m] for m in modalities},
        "fusion": {"name": fusion, **OPTIONS.get(fusion, {})},
        "projection_dim": 8,
        **options,
    }
    return small_configs.small("cfn_sr", model=made, pretrain_unimodal=())


def components(asked: ConfigDict) -> build.TrainingComponents:
    return build.build_components(resolve(asked), small_configs.digits(), steps=10)


def some_batch(count: int = 6):
    source = small_configs.digits().source("train")
    return collate([source[i] for i in range(count)])


def shapes(asked: ConfigDict):
    """The outputs of a model as shapes."""
    model, batch = components(asked).model, some_batch()
    run = lambda: model.apply(
        model.init(jax.random.key(0), batch, train=False), batch, train=False
    )
    return jax.eval_shape(run)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_outputs(fusion):
    outputs = shapes(config(fusion))
    assert outputs.prediction.shape == (6, 3)
    found = {name: x.shape[1:] for name, x in outputs.aux.items()}
    assert {f"pooled/{m}": (8,) for m in ENCODERS}.items() <= found.items()
    assert ADDED.get(fusion, {}).items() <= found.items()


# Blocks of the papers, whose models are trained in other tests, and the slowest one.
SLOW = ("hierarchical_attention", "predictive_self_attention", "reinforcement_unit")
SLOW += ("compact_bilinear",)


@pytest.mark.parametrize("fusion", in_ci(FUSIONS, "residual_attention", slow=SLOW))
def test_two_steps(fusion):
    parts, batch = components(config(fusion)), some_batch()
    state = small_configs.start(parts, batch)
    options = {"xla_backend_optimization_level": 0}
    step = jax.jit(parts.train_step(None), compiler_options=options)
    for _ in range(2):
        after, metrics = step(state, batch)
        assert np.isfinite(metrics["loss"])
        moved = jax.tree.map(lambda x, y: np.any(x != y), after.params, state.params)
        state = after
    assert moved["head"]["kernel"] and moved["project_audio"]["kernel"]
    if "fusion" in moved:
        assert any(jax.tree.leaves(moved["fusion"]))


SUBSETS = [
    subset
    for count in range(1, len(ENCODERS) + 1)
    for subset in itertools.combinations(ENCODERS, count)
]
NAMES = ("residual_attention", "tensor_convolution")
"""Blocks whose options name two modalities."""


@pytest.mark.parametrize(
    "fusion", in_ci((name for name in FUSIONS if name not in NAMES), "adaptive_gate")
)
def test_every_subset_of_encoders(fusion):
    for subset in SUBSETS:
        assert shapes(config(fusion, subset)).prediction.shape == (6, 3)


@pytest.mark.parametrize(
    "pooling", in_ci(("mean", "last", "flatten", "attention"), "attention")
)
@pytest.mark.parametrize("fusion", ["identity", "adaptive_gate", "stack_modalities"])
def test_poolings(fusion, pooling):
    outputs = shapes(config(fusion, pooling=pooling))
    assert outputs.prediction.shape == (6, 3)
    widths = {"identity": 24, "adaptive_gate": 8, "stack_modalities": 8}
    if pooling != "flatten":
        assert outputs.aux["fused"].shape == (6, widths[fusion])


def test_mean_of_the_present_modalities():
    parts = components(config("identity", combination="mean"))
    batch = some_batch()
    masks = {**batch.masks, "audio": np.zeros_like(batch.masks["audio"])}
    batch = batch.replace(masks=masks)
    params = small_configs.start(parts, batch).variables
    aux = jax.jit(lambda: parts.model.apply(params, batch, train=False))().aux
    want = (aux["text"] + aux["video"]) / 2
    np.testing.assert_allclose(aux["fused"], want, rtol=1e-5)
    assert not np.any(aux["audio"])


def test_a_head_that_reads_some_streams():
    asked = config("residual_attention", pooled_streams=("video",))
    assert shapes(asked).aux["fused"].shape == (6, 8)
    with pytest.raises(ConfigError, match=r"pooled_streams has 'vide'(?s:.*)'video'"):
        shapes(config("residual_attention", pooled_streams=("vide",)))


def test_without_projection_the_tokens_keep_their_width():
    aux = shapes(config("identity", projection_dim=0)).aux
    assert aux["fused"].shape == (6, 16)
    with pytest.raises(ConfigError, match="requires equal widths"):
        shapes(config("identity", projection_dim=0, combination="mean"))


def test_from_python():
    batch = some_batch()
    encoders = components(config("stack_modalities")).model.model.encoders
    model = Fused(encoders, 3, StackedModalities(("audio", "video")), pooling="last")
    run = lambda: model.init_with_output(jax.random.key(0), batch, train=False)[0]
    assert jax.eval_shape(run).prediction.shape == (6, 3)
    model = Fused(encoders, 3, "graph")
    with pytest.raises(ConfigError, match="'graph' is not a fusion block"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))


def test_a_block_may_return_a_vector():
    outputs = shapes(config("own_parts:SumOfMeans"))
    assert outputs.aux["joint"].shape == (6, 8)
    assert outputs.aux["confidence"].shape == (6,)


def test_weights_of_a_gate_sum_to_1():
    parts, batch = components(config("adaptive_gate")), some_batch()
    params = small_configs.start(parts, batch).variables
    aux = jax.jit(lambda: parts.model.apply(params, batch, train=False))().aux
    total = sum(aux[f"weight/{m}"] for m in ENCODERS)
    np.testing.assert_allclose(total, jnp.ones(6), rtol=1e-5)
