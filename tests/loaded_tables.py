"""The tables of short names with what they name, loaded, for tests."""

import pkgutil

from mmfusion_jax import encoders, losses, models, weights


def loaded(table):
    return {name: pkgutil.resolve_name(path) for name, path in table.items()}


ENCODERS = loaded(encoders.ENCODERS)
LOSSES = loaded(losses.LOSSES)
MODELS = loaded(models.MODELS)
WEIGHT_MAPPINGS = loaded(weights.WEIGHT_MAPPINGS)
