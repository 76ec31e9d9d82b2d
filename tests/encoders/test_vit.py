"""Vision transformer: transformers, counts, masks, sizes of pictures."""

import functools

import jax
import numpy as np
import pytest
from loaded_tables import WEIGHT_MAPPINGS

from mmfusion_jax.encoders.vit import ViT
from mmfusion_jax.errors import DataError, WeightsError
from mmfusion_jax.weights.convert import load

RNG = np.random.default_rng(0)
CLIPS = RNG.standard_normal((2, 3, 8, 8, 3)).astype(np.float32)
MASK = np.arange(3) < np.array([[3], [2]])
SMALL = ViT(hidden_dim=24, num_layers=2, num_heads=4, mlp_dim=40, patch_size=4)


def shapes(model, clips=CLIPS):
    init = functools.partial(model.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), clips, np.ones(clips.shape[:2]) > 0)


@pytest.fixture(scope="module")
def variables():
    init = jax.jit(functools.partial(SMALL.init, train=False))
    return init(jax.random.key(0), CLIPS, MASK)


def test_count_of_the_base_size():
    tree = shapes(ViT(), np.zeros((1, 1, 224, 224, 3), np.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(tree)) == 85_798_656


@pytest.mark.ci
@pytest.mark.parametrize("pooled", [False, True])
def test_agrees_with_transformers(tmp_path, pooled):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
        image_size=8,
        patch_size=4,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    network = transformers.ViTModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for x in network.parameters():
            if x.ndim == 1:
                x.add_(0.5 * torch.rand(x.shape))
        pictures = CLIPS.reshape(6, 8, 8, 3).transpose(0, 3, 1, 2)
        want = network(torch.tensor(pictures)).last_hidden_state.numpy()
    want = want[:, :1] if pooled else want
    # The names of the file stay; those of the modules differ in transformers 4 and 5.
    network.save_pretrained(tmp_path)
    model = SMALL.clone(pooled=pooled)
    loaded = load(WEIGHT_MAPPINGS["vit"], tmp_path / "model.safetensors", shapes(model))
    assert loaded.unused == ()
    got = model.apply(loaded.variables, CLIPS, np.ones((2, 3)) > 0, train=False).values
    got = np.asarray(got).reshape(want.shape)
    assert np.max(np.abs(got - want)) <= 2e-6 * np.max(np.abs(want))


def test_tokens_of_masked_pictures_are_0(variables):
    tokens = SMALL.apply(variables, CLIPS, MASK, train=False)
    assert tokens.values.shape == (2, 3 * 5, 24)
    assert not np.any(tokens.values[1, 10:]) and np.all(np.any(tokens.values[0], -1))
    np.testing.assert_array_equal(tokens.mask, np.repeat(MASK, 5, axis=1))


def test_one_picture_is_a_clip_of_one(variables):
    one = SMALL.apply(variables, CLIPS[:, 0], np.ones((2, 8)) > 0, train=False)
    clip = SMALL.apply(variables, CLIPS, MASK, train=False)
    np.testing.assert_allclose(one.values, clip.values[:, :5], rtol=1e-5, atol=1e-6)


def test_says_what_does_not_fit(tmp_path):
    with pytest.raises(DataError, match=r"D13.*10x8 .*patch_size=4"):
        shapes(SMALL, np.zeros((1, 1, 10, 8, 3), np.float32))
    with pytest.raises(WeightsError, match=r"(?s)W01.*absent.*ViTModel"):
        load(WEIGHT_MAPPINGS["vit"], tmp_path / "absent.pt", shapes(SMALL))
