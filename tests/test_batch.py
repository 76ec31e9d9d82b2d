"""A Batch without labels and weight predicts; losses and metrics name their label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs
from groups import in_ci

from mmfusion_jax.config.build import build_components
from mmfusion_jax.config.build_data import build_pipeline
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.losses.contrastive import InfoNCE
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.losses.supervised import CrossEntropy
from mmfusion_jax.metrics.classification import ClassificationMetrics
from mmfusion_jax.training.step import make_train_step
from mmfusion_jax.types import Batch, Outputs

MASK = jnp.ones((2, 5), bool)


def prepared(name: str):
    """A small paper: its parts, a first state, and a batch with labels."""
    spec = resolve(small_configs.small(name, **{"data.batch_size": 4}))
    data = small_configs.digits(modalities=spec.model.modalities)
    parts = build_components(spec, data, steps=10)
    batch = next(build_pipeline(spec, data, seed=0).train(0, 1))
    return parts, small_configs.start(parts, batch), batch


def test_all_rows_count_without_a_weight():
    batch = Batch({}, {"audio": MASK, "video": MASK & False})
    assert batch.weight.dtype == jnp.float32 and batch.weight.tolist() == [1, 1]
    assert batch.labels == {}
    assert batch.has_modalities("audio").tolist() == [True, True]
    assert batch.has_any_modality("audio", "video").tolist() == [True, True]
    assert batch.valid_mask("audio").all()
    padding = batch.replace(weight=jnp.array([1.0, 0.0]))
    assert padding.weight.tolist() == [1, 0]
    assert padding.replace(weight=None).weight.tolist() == [1, 1]


def test_the_weight_has_the_leading_axes_of_the_mask():
    assert Batch({}, {"audio": jnp.ones((4, 2, 5), bool)}).weight.shape == (4, 2)
    one = lambda mask: Batch({}, {"audio": mask}).has_modalities("audio")
    assert jax.vmap(one)(MASK).tolist() == [True, True]
    assert jax.jit(one)(MASK).tolist() == [True, True]


def test_a_batch_of_other_things_than_arrays_stays_as_it_is():
    assert Batch({}, {}).weight is None
    axes = Batch({"audio": 0}, {"audio": 0}, {}, None)
    assert axes.weight is None
    paths = jax.tree.map(lambda x: "sharding", Batch({"audio": MASK}, {"audio": MASK}))
    assert paths.weight == "sharding"
    shapes = jax.eval_shape(lambda: Batch({"audio": MASK}, {"audio": MASK}))
    assert shapes.weight.shape == (2,)


@pytest.mark.parametrize("name", in_ci(small_configs.SMALL, "hetero_fusion_net"))
def test_models_predict_without_labels(name):
    parts, state, batch = prepared(name)
    predict = jax.jit(
        lambda b: parts.model.apply(state.variables, b, train=False).prediction
    )
    with_labels = predict(batch)
    np.testing.assert_array_equal(
        with_labels, predict(Batch(batch.inputs, batch.masks))
    )
    assert jnp.all(jnp.isfinite(with_labels))


@pytest.mark.parametrize("name", in_ci(small_configs.SMALL, "hetero_fusion_net"))
def test_training_without_labels_names_the_label(name):
    parts, state, batch = prepared(name)
    step = make_train_step(parts.model, parts.objective, parts.tx)
    with pytest.raises(ConfigError) as raised:
        jax.eval_shape(step, state, Batch(batch.inputs, batch.masks))
    assert raised.value.code == "C07"
    assert "label 'digit'" in str(raised.value) and "known: none" in str(raised.value)


@pytest.mark.parametrize(
    "read",
    [
        CrossEntropy("emotion"),
        InfoNCE(("pair",), positives="same_class", label="emotion"),
        ClassificationMetrics("emotion", 2).collect,
    ],
    ids=["cross_entropy", "info_nce", "metrics"],
)
def test_a_missing_label_suggests_the_closest_one(read):
    views = {"pair/x": jnp.eye(2), "pair/y": jnp.eye(2)}
    outputs = Outputs(jnp.zeros((2, 2)), views)
    batch = Batch({}, {"audio": MASK}, {"emotions": jnp.array([0, 1])})
    with pytest.raises(ConfigError, match="label 'emotion'.*mean 'emotions'"):
        read(outputs, batch)


def test_losses_without_a_label_need_none():
    outputs = Outputs(jnp.zeros((2, 2)), {"pair/x": jnp.eye(2), "pair/y": jnp.eye(2)})
    objective = Objective({"contrast": WeightedLoss(InfoNCE(("pair",)))})
    loss, _ = objective(outputs, Batch({}, {"audio": MASK}), step=jnp.array(0))
    assert jnp.isfinite(loss) and loss > 0
