"""Adds the auxiliary outputs of encoders to those of any model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict

from mmfusion_jax.errors import ConfigError, shown
from mmfusion_jax.types import AUX, Array, Batch, Model, Outputs, PyTree


def with_encoder_aux(model: Model, encoders: Mapping[str, Any]) -> Model:
    """Returns a model whose `Outputs.aux` has the auxiliary outputs of its encoders.

    Encoders return Tokens, and a model does not know which of its encoders have other
    outputs: they store them in the collection `AUX`, and the result reads them there.

    Args:
        model: A model.
        encoders: Its encoders; those with outputs have the attribute `has_aux`. The
            model is returned as it is if there are none.
    """
    has_aux = any(getattr(encoder, "has_aux", False) for encoder in encoders.values())
    return EncoderAux(model) if has_aux else model


@dataclasses.dataclass(frozen=True)
class EncoderAux:
    """A model with the auxiliary outputs of its encoders; see `with_encoder_aux`."""

    model: Model

    def init(self, key: Any, batch: Batch, /, *, train: bool) -> PyTree:
        """Creates the variables."""
        # `init` runs the encoders, which store their outputs as in `apply`.
        variables = self.model.init(key, batch, train=train)
        return {name: tree for name, tree in variables.items() if name != AUX}

    def apply(self, variables: PyTree, batch: Batch, /, **kwargs: Any) -> Any:
        """Maps a Batch to Outputs; with `mutable`, also the updated variables.

        Args:
            variables: The variables of the model.
            batch: A batch.
            **kwargs: Arguments of the model, and `mutable`, a list of collections.

        Raises:
            ConfigError: An output does not have an axis of the examples; raised while
                tracing.
        """
        # A module stores nothing in a collection that is not mutable.
        collections = [*kwargs.get("mutable", ()), AUX]
        outputs, updated = self.model.apply(
            variables, batch, **{**kwargs, "mutable": collections}
        )
        aux = _stored(updated.get(AUX, {}), len(batch.weight))
        outputs: Outputs = outputs.replace(aux={**outputs.aux, **aux})
        # Flax returns a pair only if the caller asks for mutable collections.
        if "mutable" not in kwargs:
            return outputs
        return outputs, {name: tree for name, tree in updated.items() if name != AUX}


def _stored(collection: PyTree, b: int) -> dict[str, Array]:
    """Returns name -> value of what encoders stored last."""
    # The paths of the modules are dropped: the names of outputs contain the modality.
    # `sow` keeps a tuple of all values of a name.
    stored: Any = flatten_dict(collection)
    aux = {path[-1]: values[-1] for path, values in stored.items()}
    for name, x in aux.items():
        if not getattr(x, "shape", ()) or x.shape[0] != b:
            raise ConfigError(
                "C33",
                f"an encoder stores the output {shown(name)} without an axis of the "
                f"{b} examples.",
            )
    return aux
