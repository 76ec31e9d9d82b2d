"""Share of the energy of features that differs between examples, before training.

    python experiments/digits/varying_energy.py

For every encoder and every other module of the models on the embedded digits: the mean
and the minimum over seeds of `mmf.ops.varying_energy`, on 128 training examples. Tokens
are averaged first. A module near 0 gives the same output for all examples. The README
lists what was found.
"""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mmfusion_jax as mmf
from mmfusion_jax.config.build import build_components
from mmfusion_jax.config.build_data import build_dataset, build_pipeline
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.layers.pooling import mean

CONFIGS = ("cfn_sr", "mea", "mcl_mcf", "hetero_fusion_net", "of_cmaer_cat")
EXAMPLES = 128


def outputs(name: str, x: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields every feature that a module returns: its name, values and valid rows."""
    if isinstance(x, mmf.Tokens):
        yield name, mean(x), x.present
    elif isinstance(x, Mapping):
        for key, value in x.items():
            yield from outputs(f"{name}: {key}", value)
    elif isinstance(x, (tuple, list)):
        # A module that is called several times, or returns several arrays.
        for value in x:
            yield from outputs(name, value)
    elif getattr(x, "ndim", 0) > 1 and len(x) == EXAMPLES and x.dtype != bool:
        yield name, x, jnp.ones(EXAMPLES, bool)


def shares(config: str, seeds: int) -> dict[str, np.ndarray]:
    """Returns, by feature, the share for every seed; the least of several calls."""
    made = mmf.load_config(f"{config}:digits")
    made.data.batch_size = EXAMPLES
    spec = resolve(made)
    data = build_dataset(spec, 0)
    batch = next(build_pipeline(spec, data, 0).train(0, 1))
    model: Any = build_components(spec, data, 1).model

    def measure(key):
        variables = model.init(key, batch, train=False)
        _, found = model.apply(
            variables, batch, train=False, capture_intermediates=True,
            mutable=["intermediates"],
        )  # fmt: skip
        result: dict[str, Any] = {}
        for module, tree in found["intermediates"].items():
            called = tree.get("__call__", ()) if isinstance(tree, Mapping) else ()
            for name, x, valid in outputs(module, called):
                share = mmf.ops.varying_energy(x, valid)
                result[name] = jnp.minimum(result.get(name, 1.0), share)
        return result

    keys = jax.random.split(jax.random.key(0), seeds)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(measure))(keys))


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument(
        "--only", nargs="+", action="extend", choices=CONFIGS, help="configs to measure"
    )
    options = parser.parse_args()
    print("| model | output | mean | minimum |\n| --- | --- | --- | --- |")
    for config in options.only or CONFIGS:
        for name, values in shares(config, options.seeds).items():
            print(f"| {config} | {name} | {values.mean():.3f} | {values.min():.3f} |")


if __name__ == "__main__":
    main()
