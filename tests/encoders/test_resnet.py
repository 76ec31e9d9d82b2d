"""ResNet: counts, masks, PyTorch, transformers, weights, groups of the optimiser."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_dataset
from loaded_tables import ENCODERS, WEIGHT_MAPPINGS

from mmfusion_jax.config.optimizer import build_optimizer
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.encoders.resnet import ResNet
from mmfusion_jax.errors import ConfigError, WeightsError
from mmfusion_jax.ops.image_normalization import IMAGENET
from mmfusion_jax.weights.convert import load

KINDS = ("basic", "bottleneck")
RNG = np.random.default_rng(0)
CLIPS = RNG.standard_normal((2, 3, 21, 18, 3)).astype(np.float32)
MASK = np.arange(3) < np.array([[3], [2]])


def small(kind="basic", **options):
    return ResNet((2, 1), kind, 8, **options)


@functools.lru_cache
def compiled(model, train=False):
    """The compiled model; in training it also returns the statistics."""
    mutable = ["batch_stats"] if train else False
    return jax.jit(functools.partial(model.apply, train=train, mutable=mutable))


def shapes(model, clips=CLIPS):
    init = functools.partial(model.init, train=False)
    mask = np.ones(clips.shape[:2], bool)
    return jax.eval_shape(init, jax.random.key(0), clips, mask)


@pytest.fixture(scope="module")
def variables():
    init = jax.jit(functools.partial(small().init, train=False))
    tree = init(jax.random.key(0), CLIPS, MASK)
    return jax.tree.map(lambda x: x + 0.1 * RNG.random(x.shape, np.float32), tree)


@pytest.mark.parametrize(
    ("blocks", "kind", "count"),
    [
        ((2, 2, 2, 2), "basic", 11_176_512),
        ((3, 4, 6, 3), "basic", 21_284_672),
        ((3, 4, 6, 3), "bottleneck", 23_508_032),
    ],
)
def test_counts(blocks, kind, count):
    params = shapes(ResNet(blocks, kind), np.zeros((1, 1, 32, 32, 3)))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def assert_parity(network, want, kind, tmp_path):
    import torch

    torch.save(network.state_dict(), tmp_path / "resnet.pt")
    model = small(kind)
    loaded = load(WEIGHT_MAPPINGS["resnet"], tmp_path / "resnet.pt", shapes(model))
    assert all("num_batches" in name for name in loaded.unused)
    tokens = compiled(model)(loaded.variables, CLIPS, np.ones((2, 3), bool))
    t, h, w = tokens.grid
    got = np.asarray(tokens.values).reshape(2 * t, h, w, -1).transpose(0, 3, 1, 2)
    assert np.max(np.abs(got - want)) <= 2e-6 * np.max(np.abs(want))


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_torchvision(tmp_path, kind):
    torch = pytest.importorskip("torch")
    from torch_resnet import TorchResNet, stir

    network = stir(TorchResNet(2, (2, 1), kind, 8))
    pictures = CLIPS.reshape(6, *CLIPS.shape[2:]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        want = network(torch.tensor(pictures)).numpy()
    assert_parity(network, want, kind, tmp_path)


@pytest.mark.ci
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_transformers(tmp_path, kind):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from torch_resnet import stir

    widen = 4 if kind == "bottleneck" else 1
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8 * widen, 16 * widen],
        depths=[2, 1],
        layer_type=kind,
    )
    network = stir(transformers.ResNetModel(config))
    pictures = CLIPS.reshape(6, *CLIPS.shape[2:]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        want = network(torch.tensor(pictures)).last_hidden_state.numpy()
    assert_parity(network, want, kind, tmp_path)


def test_one_picture_is_a_clip_of_one(variables):
    rows = np.ones((2, 21), bool)
    rows[1] = False
    run = functools.partial(compiled(small()), variables)
    one, clip = run(CLIPS[:, 0], rows), run(CLIPS[:, :1], rows[:, :1])
    chex.assert_trees_all_equal(one, clip)
    assert one.present.tolist() == [True, False]


def test_pooled_is_the_mean_of_positions(variables):
    maps = compiled(small())(variables, CLIPS, MASK)
    pooled = compiled(small(pooled=True))(variables, CLIPS, MASK)
    want = maps.values.reshape(2, 3, -1, 16).mean(axis=2)
    np.testing.assert_allclose(pooled.values, want, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(pooled.mask, MASK)


def test_pixels_are_normalised(variables):
    pixels = RNG.integers(0, 256, CLIPS.shape, np.uint8)
    mean, std = (np.array(x, np.float32) for x in IMAGENET)
    run = functools.partial(compiled(small()), variables)
    want = run((pixels / np.float32(255) - mean) / std, MASK).values
    np.testing.assert_allclose(run(pixels, MASK).values, want, rtol=1e-4, atol=1e-4)


def test_frozen_norms_keep_the_running_statistics(variables):
    model = small(freeze_batch_norm=True)
    got, stats = compiled(model, True)(variables, CLIPS, MASK)
    want = compiled(small())(variables, CLIPS, MASK)
    np.testing.assert_allclose(got.values, want.values, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(stats["batch_stats"], variables["batch_stats"])


SAMPLES = np.zeros((1, 40), np.float32)
TINY = {
    "resnet": ({"blocks": (1,), "base_channels": 4}, CLIPS[:1]),
    "r3d": ({"blocks": (1,), "base_channels": 4}, CLIPS[:1]),
    "vit": (
        {"hidden_dim": 4, "num_layers": 1, "num_heads": 1, "patch_size": 3},
        CLIPS[:1],
    ),
    "wav2vec2": (
        {
            "hidden_dim": 4,
            "num_layers": 1,
            "num_heads": 1,
            "channels": 4,
            "pos_conv_groups": 2,
        }
        | {"kernels": (3,), "strides": (2,)},
        SAMPLES,
    ),
}


@pytest.mark.parametrize("name", TINY)
def test_computes_in_bfloat16_with_parameters_in_float32(name):
    options, values = TINY[name]
    model = ENCODERS[name](**options, dtype=jnp.bfloat16)
    mask = np.ones(values.shape[:2], bool)
    run = functools.partial(model.init_with_output, train=False)
    tokens, tree = jax.eval_shape(run, jax.random.key(0), values, mask)
    assert tokens.values.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {np.dtype("float32")}


def test_an_unknown_kind_is_named():
    with pytest.raises(ConfigError, match=r"(?s)C03.*'basc'.*'basic'"):
        shapes(small("basc"))


def test_a_missing_file_is_an_error_with_the_command(tmp_path):
    said = r"(?s)W01.*absent.*models.resnet50.*blocks use resnet18 or resnet34"
    with pytest.raises(WeightsError, match=said):
        load(WEIGHT_MAPPINGS["resnet"], tmp_path / "absent.pt", shapes(small()))


def test_every_mapping_belongs_to_an_encoder():
    assert WEIGHT_MAPPINGS.keys() <= ENCODERS.keys()


@pytest.mark.parametrize(
    ("group", "moves"),
    [({"frozen": True}, 0.0), ({"learning_rate": 1e-3}, 1e-3), ({}, 1e-2)],
)
def test_frozen_fine_tuned_or_with_a_rate_of_its_own(variables, group, moves):
    config = tiny_dataset.config()
    config.optim.name, config.optim.learning_rate = "sgd", 1e-2
    prefix = {"param_prefix": "encoders_image"}
    config.optim.groups = {"image": {**prefix, **group}} if group else {}
    params = {"encoders_image": variables["params"], "head": {"kernel": jnp.ones(2)}}
    tx = build_optimizer(resolve(config).optimizer, 10)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    for leaf in jax.tree.leaves(updates["encoders_image"]):
        np.testing.assert_allclose(leaf, -moves, rtol=1e-6)
    np.testing.assert_allclose(updates["head"]["kernel"], -1e-2, rtol=1e-6)
