"""Modality dropout in training, and examples without any modality."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_dataset
from flax.core import FrozenDict
from loaded_tables import LOSSES
from paths import ROOT
from tiny_dataset import Tones

from mmfusion_jax.config.build_data import build_dataset
from mmfusion_jax.config.load import load_config
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.augment.modality_dropout import ModalityDropout
from mmfusion_jax.data.dataset import Dataset, RegressionTarget
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.encoders.precomputed import Precomputed
from mmfusion_jax.errors import ConfigError, DataError
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.metrics.classification import ClassificationMetrics
from mmfusion_jax.models.baselines import ConcatFC
from mmfusion_jax.tasks import Classification, Multilabel, Regression
from mmfusion_jax.training.state import create_state
from mmfusion_jax.training.step import make_eval_step, make_train_step

CONFIGS = ROOT / "configs"
NAMES = ("audio", "image", "text")


def example(present=(True, True, True)):
    inputs = {m: np.full((2, 3), i + 1.0) for i, m in enumerate(NAMES)}
    masks = {m: np.full(2, p) for m, p in zip(NAMES, present, strict=True)}
    return {"inputs": inputs, "masks": masks, "labels": {}, "weight": np.float32(1)}


def after_dropout(rates, present=(True, True, True), count=400):
    """The modalities that are present after the dropout, (count m)."""
    drop = ModalityDropout(rates)
    rows = []
    for seed in range(count):
        made = drop(example(present), np.random.default_rng(seed))
        here = [made["masks"][m].any() for m in NAMES]
        for m, there in zip(NAMES, here, strict=True):
            was = present[NAMES.index(m)]
            assert there or not was or not made["inputs"][m].any()
        rows.append(here)
    return np.array(rows)


def test_rates_are_those_of_each_modality():
    there = after_dropout({"audio": 0.5, "image": 0.2})
    np.testing.assert_allclose(there.mean(axis=0), [0.5, 0.8, 1.0], atol=0.06)


@pytest.mark.parametrize("present", [(True, True, True), (False, True, True)])
def test_one_present_modality_remains(present):
    there = after_dropout(dict.fromkeys(NAMES, 1.0), present)
    assert np.all(there.sum(axis=1) == 1)
    assert np.all(there.any(axis=0) == present)


def test_the_same_seed_drops_the_same():
    rates = dict.fromkeys(NAMES, 0.5)
    np.testing.assert_array_equal(
        after_dropout(rates, count=50), after_dropout(rates, count=50)
    )


def test_invalid_rates_are_rejected():
    with pytest.raises(
        ConfigError, match=r"modality_dropout.audio=1.5 is out of range"
    ):
        ModalityDropout({"audio": 1.5})
    with pytest.raises(
        ConfigError, match=r"audi is not a modality.*; did you mean 'audio'"
    ):
        ModalityDropout({"audi": 0.5})(example(), np.random.default_rng(0))


def test_a_config_asks_for_it():
    asked = tiny_dataset.config()
    asked.data.modality_dropout = {"audio": 0.5, "video": 0.0}
    data = build_dataset(resolve(asked), 0)
    batches = list(Pipeline(data, 10, seed=3).train(0, 6))
    again = list(Pipeline(data, 10, seed=3).train(3, 6))
    present = np.concatenate([b.masks["audio"].any(axis=1) for b in batches])
    assert 0.25 < present.mean() < 0.75
    assert all(b.masks["video"].all() for b in batches)
    for want, got in zip(batches[3:], again, strict=True):
        np.testing.assert_array_equal(got.masks["audio"], want.masks["audio"])
    asked.data.modality_dropout.audio = 0.0
    assert build_dataset(resolve(asked), 0).augment is None


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda p: p.stem)
def test_every_config_has_the_field(path):
    config = load_config(str(path))
    rates = config.data.modality_dropout
    assert set(rates) == set(config.model.encoders) and not any(rates.values())


class Silent(Tones):
    """Tones whose example 5 has no modality."""

    def __getitem__(self, index: int):
        made = super().__getitem__(index)
        if index == 5:
            made["masks"] = {k: np.zeros_like(m) for k, m in made["masks"].items()}
        return made


def silent():
    sources = {"train": Silent(30, 0), "test": Silent(9, 1)}
    return Dataset("silent", "silent (made up)", sources, {"label": ("a", "b", "c")})


def test_training_rejects_an_example_without_modalities():
    with pytest.raises(
        DataError, match=r"D14.*example 5 of split 'train': all modalities are missing"
    ):
        list(Pipeline(silent(), 10).train(0, 3))


def test_priors():
    labels = np.array([0, 0, 0, 1])
    prior = Classification("label", ("a", "b", "c")).prior(labels)
    np.testing.assert_allclose(np.exp(prior), [0.75, 0.25, 1e-9], rtol=1e-5)
    assert (
        Regression("score", RegressionTarget(-3, 3)).prior(np.array([0.0, 1.0, 3.0]))
        == 1
    )
    flags = np.array([[0, 1], [1, 1]])
    prior = Multilabel("flags", ("x", "y")).prior(flags)
    np.testing.assert_allclose(np.exp(prior), [0.5, 0.5, 1e-9, 1], rtol=1e-5)


MODEL = ConcatFC(
    FrozenDict({"audio": Precomputed(), "video": Precomputed()}),
    3,
    (4,),
    audio_pooling="mean",
)
OBJECTIVE = Objective({"task": WeightedLoss(LOSSES["cross_entropy"]("label"))})
BOTH = ("audio", "video")


@pytest.fixture(scope="module")
def batch():
    found = next(Pipeline(silent(), 9).evaluate("test"))
    assert not found.masks["audio"][5].any()
    return found


def test_evaluation_predicts_the_prior_without_modalities(batch):
    scores = ClassificationMetrics("label", 3)
    step = jax.jit(make_eval_step(MODEL, OBJECTIVE, scores, BOTH))
    tree = MODEL.init(jax.random.key(0), batch, train=False)
    prior = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    got = step({**tree, "prior": prior}, batch)["collected"]["prediction"]
    want = step(tree, batch)["collected"]["prediction"]
    np.testing.assert_array_equal(got[5], prior)
    rest = np.arange(9) != 5
    np.testing.assert_array_equal(got[rest], want[rest])


def test_examples_without_modalities_have_no_gradient(batch):
    def train(batch):
        tx = optax.sgd(0.1)
        state = create_state(MODEL, tx, batch, jax.random.key(0))
        step = make_train_step(MODEL, OBJECTIVE, tx, modalities=BOTH)
        return jax.jit(step)(state, batch)

    weight = batch.weight.copy()
    weight[5] = 0
    state, metrics = train(batch)
    want, wanted = train(batch.replace(weight=weight))
    np.testing.assert_array_equal(metrics["loss"], wanted["loss"])
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), state.params, want.params)
    assert all(jax.tree.leaves(same))
