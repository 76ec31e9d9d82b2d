"""Wav2Vec 2.0: transformers, counts, masks, what it reads."""

import functools

import jax
import numpy as np
import pytest
from loaded_tables import WEIGHT_MAPPINGS

from mmfusion_jax.encoders.wav2vec2 import Wav2Vec2
from mmfusion_jax.errors import ConfigError, WeightsError
from mmfusion_jax.weights.convert import load

pytestmark = pytest.mark.ci

SMALL = Wav2Vec2(
    hidden_dim=16,
    num_layers=2,
    num_heads=2,
    mlp_dim=24,
    channels=8,
    kernels=(10, 3, 2),
    strides=(5, 2, 2),
    pos_conv_kernel=6,
    pos_conv_groups=4,
    standardize=False,
    dropout=0.0,
)
LENGTHS = (200, 131)
MASK = np.arange(200) < np.array(LENGTHS)[:, None]
WAVES = np.random.default_rng(0).standard_normal((2, 200)).astype(np.float32)
WAVES = np.where(MASK, WAVES, 0)


def shapes(model, t=200):
    init = functools.partial(model.init, train=False)
    return jax.eval_shape(
        init, jax.random.key(0), np.zeros((1, t), np.float32), np.ones((1, t)) > 0
    )


@pytest.fixture(scope="module")
def variables():
    init = jax.jit(functools.partial(SMALL.init, train=False))
    return init(jax.random.key(0), WAVES, MASK)


@pytest.fixture(scope="module")
def run():
    """Tokens of variables, waves and mask."""
    return jax.jit(functools.partial(SMALL.apply, train=False))


def test_count_of_the_base_size():
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes(Wav2Vec2(), 800)))
    masked_embedding = 768
    assert size == 94_371_712 - masked_embedding


def test_agrees_with_transformers(tmp_path, run):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8,) * 3,
        conv_kernel=SMALL.kernels,
        conv_stride=SMALL.strides,
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=6,
        num_conv_pos_embedding_groups=4,
    )
    torch.manual_seed(0)
    network = transformers.Wav2Vec2Model(config).eval()
    with torch.no_grad():
        for x in network.parameters():
            x.add_(0.3 * torch.rand(x.shape))
    torch.save(network.state_dict(), tmp_path / "wav2vec2.pt")
    loaded = load(WEIGHT_MAPPINGS["wav2vec2"], tmp_path / "wav2vec2.pt", shapes(SMALL))
    assert loaded.unused == ("masked_spec_embed",)
    model = SMALL.clone(group_norm_includes_padding=True)
    tokens = jax.jit(functools.partial(model.apply, train=False))(
        loaded.variables, WAVES, MASK
    )
    with torch.no_grad():
        theirs = lambda x, **kw: network(torch.tensor(x), **kw).last_hidden_state
        padded = theirs(WAVES, attention_mask=torch.tensor(MASK)).numpy()
        alone = [theirs(WAVES[i : i + 1, :n])[0] for i, n in enumerate(LENGTHS)]
    assert tokens.mask.shape == padded.shape[:2]
    assert tokens.mask.sum(axis=1).tolist() == [len(x) for x in alone]
    got, want = np.asarray(tokens.values), np.where(tokens.mask[..., None], padded, 0)
    assert np.max(np.abs(got - want)) <= 2e-6 * np.max(np.abs(want))
    got = run(loaded.variables, WAVES, MASK).values
    for ours, want in zip(np.asarray(got), alone, strict=True):
        away = np.abs(ours[: len(want)] - want.numpy())
        assert np.max(away) <= 2e-6 * np.max(np.abs(want.numpy()))


def test_a_gap_hides_the_frames_that_read_it(variables, run):
    mask = np.ones((2, 200), bool)
    mask[0, 100] = False
    tokens = run(variables, WAVES, mask)
    n = tokens.mask.shape[1]
    # A frame reads 30 samples and begins 20 after the one before it.
    reads = [np.arange(20 * i, 20 * i + 30) for i in range(n)]
    np.testing.assert_array_equal(tokens.mask[0], [100 not in r for r in reads])
    assert np.all(tokens.mask[1]) and not np.any(tokens.values[0][~tokens.mask[0]])


def test_the_volume_does_not_matter_where_samples_are_standardized(variables):
    model = SMALL.clone(standardize=True)
    run = jax.jit(functools.partial(model.apply, train=False))
    got = run(variables, (7 * WAVES + 2)[..., None], MASK)
    want = run(variables, WAVES, MASK)
    np.testing.assert_allclose(got.values, want.values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("waves", "message"),
    [
        (np.zeros((1, 200, 4), np.float32), "expects audio samples"),
        (np.zeros((1, 200), np.int16), "expects audio samples.*int16"),
        (np.zeros((1, 24), np.float32), "24 samples.*at least 30"),
    ],
)
def test_says_what_it_reads(waves, message):
    init = functools.partial(SMALL.init, train=False)
    with pytest.raises(ConfigError, match=rf"(?s)C26.*{message}"):
        jax.eval_shape(init, jax.random.key(0), waves, np.ones(waves.shape[:2]) > 0)


def test_a_missing_file_is_an_error_with_the_command(tmp_path):
    with pytest.raises(WeightsError, match=r"(?s)W01.*absent.*Wav2Vec2Model"):
        load(WEIGHT_MAPPINGS["wav2vec2"], tmp_path / "absent.pt", shapes(SMALL))
