"""R3D: counts, masks, torchvision's names and layout in PyTorch."""

import functools

import chex
import jax
import numpy as np
import pytest
from loaded_tables import WEIGHT_MAPPINGS

from mmfusion_jax.encoders.r3d import R3D
from mmfusion_jax.errors import WeightsError
from mmfusion_jax.weights.convert import load

SMALL = R3D((1, 1), 8)
RNG = np.random.default_rng(0)
CLIPS = RNG.standard_normal((2, 5, 9, 10, 3)).astype(np.float32)
MASK = np.arange(5) < np.array([[5], [3]])


def shapes(model):
    init = functools.partial(model.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), CLIPS, MASK)


@functools.lru_cache
def compiled(train):
    """Tokens, and statistics in training, of variables, clips and mask."""
    mutable = ["batch_stats"] if train else False
    return jax.jit(functools.partial(SMALL.apply, train=train, mutable=mutable))


@pytest.fixture(scope="module")
def variables():
    init = jax.jit(functools.partial(SMALL.init, train=False))
    tree = init(jax.random.key(0), CLIPS, MASK)
    return jax.tree.map(lambda x: x + 0.1 * RNG.random(x.shape, np.float32), tree)


def test_count_of_r3d_18():
    classes = (512 + 1) * 400
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes(R3D())["params"]))
    assert size == 33_371_472 - classes


def test_agrees_with_torchvision(tmp_path):
    torch = pytest.importorskip("torch")
    from torch_resnet import TorchResNet, stir

    network = stir(TorchResNet(3, (1, 1), "basic", 8))
    with torch.no_grad():
        want = network(torch.tensor(CLIPS.transpose(0, 4, 1, 2, 3))).numpy()
    torch.save(network.state_dict(), tmp_path / "r3d.pt")
    loaded = load(WEIGHT_MAPPINGS["r3d"], tmp_path / "r3d.pt", shapes(SMALL))
    assert all("num_batches" in name for name in loaded.unused)
    tokens = compiled(False)(loaded.variables, CLIPS, np.ones((2, 5)) > 0)
    got = np.asarray(tokens.values).reshape(2, *tokens.grid, -1)
    got = got.transpose(0, 4, 1, 2, 3)
    assert np.max(np.abs(got - want)) <= 2e-6 * np.max(np.abs(want))


def test_pooled_is_the_mean_of_real_positions(variables):
    maps = compiled(False)(variables, CLIPS, MASK)
    run = functools.partial(SMALL.clone(pooled=True).apply, train=False)
    pooled = jax.jit(run)(variables, CLIPS, MASK.copy() & [[True], [False]])
    want = maps.values[0].mean(axis=0)
    np.testing.assert_allclose(pooled.values[0, 0], want, rtol=1e-5, atol=1e-6)
    assert pooled.mask.tolist() == [[True], [False]] and not np.any(pooled.values[1])


def test_frozen_norms_keep_the_running_statistics(variables):
    model = SMALL.clone(freeze_batch_norm=True)
    run = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    got, stats = jax.jit(run)(variables, CLIPS, MASK)
    want = compiled(False)(variables, CLIPS, MASK)
    np.testing.assert_allclose(got.values, want.values, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(stats["batch_stats"], variables["batch_stats"])


def test_a_missing_file_is_an_error_with_the_command(tmp_path):
    with pytest.raises(WeightsError, match=r"(?s)W01.*absent.*video.r3d_18"):
        load(WEIGHT_MAPPINGS["r3d"], tmp_path / "absent.pt", shapes(SMALL))
