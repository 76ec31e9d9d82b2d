"""Checks what the model of another package returns."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from mmfusion_jax.config.spec import Part
from mmfusion_jax.errors import shown, type_name
from mmfusion_jax.types import Batch, Model, Outputs, PyTree


def checked_model(model: Any, part: Part, head_size: int) -> "CheckedModel":
    """Returns a model whose outputs are checked while they are traced.

    Args:
        model: Result of building the part of a config.
        part: The part.
        head_size: Number of outputs of the task, k.

    Raises:
        ConfigError: It is not a model.
    """
    if not (hasattr(model, "init") and hasattr(model, "apply")):
        raise part.error(f"is {type_name(model)}, not a Linen module")
    made = CheckedModel(model, part, head_size)
    if callable(model):
        part.check_call(model, "batch", train=True)
    return made


@dataclasses.dataclass(frozen=True)
class CheckedModel:
    """A model whose outputs are checked while they are traced.

    Attributes:
        model: The model.
        part: The part of the config that it was built from, for messages.
        head_size: Number of outputs of the task, k.
    """

    model: Model
    part: Part
    head_size: int

    def init(self, key: Any, batch: Batch, /, *, train: bool) -> PyTree:
        """Creates the variables.

        Raises:
            ConfigError: The model does not create parameters.
        """
        variables = self.model.init(key, batch, train=train)
        if not (isinstance(variables, Mapping) and variables.get("params")):
            raise self.part.error("has no parameters to train")
        return variables

    def apply(self, variables: PyTree, batch: Batch, /, **kwargs: Any) -> Any:
        """Maps a Batch to Outputs; with `mutable`, also the updated variables.

        Raises:
            ConfigError: The result is not Outputs with a prediction of the right shape.
        """
        result = self.model.apply(variables, batch, **kwargs)
        self._check(result[0] if "mutable" in kwargs else result, len(batch.weight))
        return result

    def _check(self, outputs: Any, b: int) -> None:
        if not isinstance(outputs, Outputs):
            raise self.part.error(f"returns {type_name(outputs)}, not Outputs")
        shape = (b,) if self.head_size == 1 else (b, self.head_size)
        y = outputs.prediction
        found = getattr(y, "shape", type_name(y))
        if found != shape:
            raise self.part.error(
                f"returns a prediction of shape {shown(found)} for {b} "
                f"examples, not {shape}"
            )
        if not jnp.issubdtype(y.dtype, jnp.floating):
            raise self.part.error(
                f"returns a prediction of type {y.dtype.name}, not float"
            )
        if not isinstance(outputs.aux, Mapping):
            raise self.part.error(
                f"returns aux of {type_name(outputs.aux)}, not a dict"
            )
        for name, x in outputs.aux.items():
            if not isinstance(name, str):
                raise self.part.error(f"returns aux[{shown(name)}], not a string")
            if not getattr(x, "shape", ()) or x.shape[0] != b:
                raise self.part.error(
                    f"returns aux[{shown(name)}] without an axis of the {b} examples"
                )
