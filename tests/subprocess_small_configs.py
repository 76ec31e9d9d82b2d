"""Loss and gradient of a paper's config on two devices; prints what differs from one.

subprocess_small_configs.py mea
"""

import json
import sys

import device_runs  # first: it decides what JAX is
import jax
import jax.numpy as jnp
import small_configs

from mmfusion_jax.config import build
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.pipeline import collate

ROWS = 8
NO_DROPOUT = {
    "mea": {"model.dropout": 0.0},
    "hetero_fusion_net": {"model.dropout": 0.0},
    "of_cmaer_cat": {
        "model.dropout": 0.0,
        **{f"model.encoders.{m}.dropout": 0.0 for m in small_configs.SHAPES},
    },
}
"""Without dropout: under pmap every device draws other masks."""


def main(name: str) -> None:
    config = resolve(small_configs.small(name, **NO_DROPOUT[name]))
    data = small_configs.digits(missing_rate=0.3)
    task = build.build_task(config, data)
    objective = build.build_objective(config, task)
    source = data.source("train")
    batch = collate([source[i] for i in range(ROWS)])
    batch.weight[-2:] = 0
    batch = device_runs.double(batch)

    def variables(axis=None):
        init = lambda: build.build_model(config, task, axis).init(
            jax.random.key(0), batch, train=False
        )
        return {k: small_configs.filled(v) for k, v in jax.eval_shape(init).items()}

    def value_and_gradient(params, batch, axis=None):
        model = build.build_model(config, task, axis)
        rest = {k: v for k, v in start.items() if k != "params"}

        def loss(params):
            outputs, _ = model.apply(
                {**rest, "params": params}, batch, train=True, mutable=["batch_stats"]
            )
            return objective(outputs, batch, jnp.array(0), axis)

        return jax.value_and_grad(loss, has_aux=True)(params)

    start = device_runs.double(variables())
    found, _ = device_runs.differences(value_and_gradient, start["params"], batch, (2,))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
