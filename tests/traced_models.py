"""Traces a config on its data, without compiling it."""

from typing import Any

import jax

from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.dataset import Dataset


def traced_loss(spec: ExperimentSpec, data: Dataset) -> tuple[Any, Any]:
    """Returns shapes of the prediction and of the loss of a training batch."""
    parts = build.build_components(spec, data, 1)
    pipeline = build_data.build_pipeline(spec, data, 0)

    def loss(batch):
        key = jax.random.key(0)
        variables = parts.model.init(key, batch, train=False)
        outputs, _ = parts.model.apply(
            variables,
            batch,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return outputs.prediction, parts.objective(outputs, batch, 0)[0]

    return jax.eval_shape(loss, next(iter(pipeline.train(0, 1))))
