"""Another model in the config of a paper: `--config.model.name=late_fusion`.

The encoders stay. Fields, loss terms and scores that the new model does not have are
left out, and a line names them.
"""

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from mmfusion_jax.config.instantiate import Config
from mmfusion_jax.config.load import flatten, format_value
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.losses import OF_PREDICTIONS, OF_UNIMODAL_LOGITS
from mmfusion_jax.losses.objective import TASK
from mmfusion_jax.metrics.integration_score import INTEGRATION_METRICS
from mmfusion_jax.models import MODELS, UNIMODAL_LOGITS

BUILT = frozenset({"parent", "name", "encoders", "head_size", "axis", "dtype", "flags"})
"""Arguments of a model that are no fields of config.model."""


def with_model(config: Config, name: str) -> Config:
    """A copy of `config` whose `model` has the fields of another model.

    A field of both keeps its value, if it has the type of the new one; every other
    field has the default of the new model.

    Args:
        config: as its file gives it.
        name: of a baseline, a key of `MODELS`.
    """
    old = config.model.to_dict()
    options = {"name": name, "encoders": old.get("encoders", {})}
    for field in dataclasses.fields(MODELS[name]):
        if field.name in BUILT:
            continue
        value = _default(field)
        here = old.get(field.name)
        options[field.name] = here if _same_type(here, value) else value
    made = copy.deepcopy(config).unlock()  # placeholders keep their type
    made.model = ConfigDict(options)
    return made.lock()


def fit_to_model(config: Config, before: Config) -> tuple[Config, str]:
    """What is left of a config when its model is another than that of its file.

    Args:
        config: a result of `with_model`, after the flags were applied.
        before: the config as its file gives it.

    Returns:
        A config that the model can run, and a line that names what was left out.

    Raises:
        ConfigError: "unimodal" is asked for without saying which modality.
    """
    made = copy.deepcopy(config).unlock()
    if made.model.name == "unimodal":
        _keep_one_modality(made)
    _keep_loss_terms(made)
    _keep_scores(made)
    return made.lock(), _line(made, before)


def _default(field: Any) -> Any:
    """The default of a field of a model; () for a mapping or a sequence made anew."""
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return ()


def _same_type(here: Any, default: Any) -> bool:
    """Whether a value of the old model can be one of the new model."""
    if isinstance(here, bool) or isinstance(default, bool):
        return isinstance(here, bool) and isinstance(default, bool)
    number = int | float
    if isinstance(here, number) and isinstance(default, number):
        return True
    return here is not None and type(here) is type(default)


def _keep_one_modality(config: Config) -> None:
    """Leaves one encoder, and what belongs to its modality."""
    names, asked = sorted(config.model.encoders), config.model.modality
    if asked not in names and (asked or len(names) > 1):
        what = f"{asked!r} has no encoder" if asked else "is missing"
        raise ConfigError(
            "C22",
            f"--config.model.modality {what}: which of {', '.join(names)}?",
            f"--config.model.modality={names[0]}",
        )
    kept = asked or names[0]
    config.model.modality = kept
    for name in names:
        if name == kept:
            continue
        del config.model.encoders[name]
        for group in ("modality_dropout", "augmentations"):
            if name in config.data.get(group, {}):
                del config.data[group][name]
    for name, group in dict(config.optim.get("groups", {})).items():
        if not group.match.startswith(f"encoders_{kept}"):
            del config.optim.groups[name]
    config.warm_start = ()


def _keep_loss_terms(config: Config) -> None:
    """Leaves the loss terms that read what the model gives."""
    modalities = set(config.model.encoders)
    alone = modalities if config.model.name in UNIMODAL_LOGITS else set()
    for name, term in config.losses.to_dict().items():
        needs = set(term.get("modalities", ("audio", "video")))
        logits = term.get("logits", "")
        if term["name"] in OF_PREDICTIONS:
            readable = not logits or logits.removeprefix("logits/") in alone
        else:
            readable = term["name"] in OF_UNIMODAL_LOGITS and needs <= alone
        if readable:
            continue
        if name == TASK:
            raise ConfigError(
                "C17",
                f"config.losses.task.name={term['name']!r} reads what the model "
                f"{config.model.name} does not give.",
                "--config.losses.task.name=cross_entropy, or l1, mse, multilabel",
            )
        del config.losses[name]


def _keep_scores(config: Config) -> None:
    """Leaves MIS out where modalities have no predictions that could agree."""
    agree = config.model.name in UNIMODAL_LOGITS and len(config.model.encoders) > 1
    if "mis" in config and not agree:
        del config.mis
        if config.train.select in INTEGRATION_METRICS:
            config.train.select = "accuracy"


def _line(config: Config, before: Config) -> str:
    """What `before` has and `config` has not, in one line."""
    line = f"model: {config.model.name} instead of {before.model.name}"
    left = flatten(before).keys() - flatten(config).keys()
    left |= {f"model.{name}" for name in before.model if name not in config.model}
    group_of = lambda name: name.rpartition(".")[0]
    names = sorted({_outermost(name, config) for name in left})
    by_group = itertools.groupby(sorted(names, key=group_of), group_of)
    groups = [_named(group, list(members)) for group, members in by_group]
    if groups:
        line += f"; dropped: {', '.join(groups)}"
    changed = {"train.select": config.train.select, "warm_start": config.warm_start}
    for name, value in changed.items():
        if value != flatten(before)[name]:
            line += f"; config.{name}={format_value(value)}"
    return line


def _named(group: str, members: Sequence[str]) -> str:
    """Fields of one group: "config.a.b", or "config.a.{b, c}" for several."""
    if not group or len(members) == 1:
        return ", ".join(f"config.{name}" for name in members)
    last = ", ".join(name.rpartition(".")[2] for name in members)
    return f"config.{group}.{{{last}}}"


def _outermost(name: str, config: Config) -> str:
    """The outermost group of the field `name` that `config` does not have."""
    words = name.split(".")
    level: Any = config
    for depth, word in enumerate(words):
        if word not in level:
            return ".".join(words[: depth + 1])
        level = level[word]
    return name
