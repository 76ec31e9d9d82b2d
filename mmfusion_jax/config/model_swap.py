"""Replaces the model of a config: `--config.model.name=late_fusion`.

The encoders stay. Fields, loss terms and metrics that the new model does not have are
dropped, and a line names them.
"""

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from mmfusion_jax.config.load import Config, flatten, format_value
from mmfusion_jax.config.registry import load_part
from mmfusion_jax.config.resolve import FROM_MODEL
from mmfusion_jax.config.structure import check_structure
from mmfusion_jax.config.validate import matches
from mmfusion_jax.errors import ConfigError, join_names, shorten, shown, shown_name
from mmfusion_jax.losses.model_outputs import (
    ENCODER_AUX,
    PREDICTION,
    UNIMODAL_LOGITS,
)
from mmfusion_jax.losses.objective import TASK
from mmfusion_jax.metrics.integration_score import INTEGRATION_METRICS

NOT_FIELDS = frozenset({"parent", "name", *FROM_MODEL})
"""Fields of a model's class that are not fields of config.model."""


def with_model(config: Config, name: str) -> Config:
    """Returns a copy of `config` whose `model` has the fields of another model.

    A field of both models keeps its value if it has the type of the new one; every
    other field has the default of the new model.

    Args:
        config: The config of a file, before the overrides.
        name: Short name of the new model.

    Raises:
        ConfigError: The config lacks a field, or a group of fields is a value.
    """
    check_structure(config.copy_and_resolve_references().to_dict())
    old = config.model.to_dict()
    options = {"name": name, "encoders": old.get("encoders", {})}
    for field in dataclasses.fields(load_part("model", name, "config.model.name")):
        if field.name in NOT_FIELDS:
            continue
        value = _default(field)
        here = old.get(field.name)
        options[field.name] = here if _same_type(here, value) else value
    made = copy.deepcopy(config).unlock()  # placeholders keep their type
    made.model = ConfigDict(options)
    return made.lock()


def fit_to_model(config: Config, before: Config) -> tuple[Config, str]:
    """Returns a config without what its new model lacks, and a line that names it.

    Args:
        config: A result of `with_model`, after the overrides.
        before: The config of the file.

    Returns:
        A config that the model can run, and a line with everything that was dropped.

    Raises:
        ConfigError: The model is "unimodal" and the modality is not given.
    """
    made = copy.deepcopy(config).unlock()
    if made.model.name == "unimodal":
        _keep_one_modality(made)
    _keep_loss_terms(made)
    _keep_scores(made)
    return made.lock(), _line(made, before)


def _default(field: Any) -> Any:
    """Returns the default of a field of a model; () for one without a default."""
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return ()


def _same_type(here: Any, default: Any) -> bool:
    """Returns whether a value of the old model has the type of the new one."""
    if isinstance(here, bool) or isinstance(default, bool):
        return isinstance(here, bool) and isinstance(default, bool)
    number = int | float
    if isinstance(here, number) and isinstance(default, number):
        return True
    return here is not None and type(here) is type(default)


def _keep_one_modality(config: Config) -> None:
    """Removes every encoder but one, and what belongs to the other modalities."""
    names, modality = sorted(config.model.encoders), config.model.modality
    if modality not in names and (modality or len(names) > 1):
        what = f"{shown(modality)} has no encoder" if modality else "is required"
        raise ConfigError(
            "C22",
            f"--config.model.modality {what}: which of {join_names(names)}?",
            f"--config.model.modality={shown_name(names[0])}",
        )
    kept = modality or names[0]
    config.model.modality = kept
    for name in names:
        if name == kept:
            continue
        del config.model.encoders[name]
        for group in ("modality_dropout", "augmentations"):
            if name in config.data.get(group, {}):
                del config.data[group][name]
    for name, group in dict(config.optim.get("groups", {})).items():
        if not str(group.get("param_prefix")).startswith(f"encoders_{kept}"):
            del config.optim.groups[name]
    with config.ignore_type():
        config.pretrain_unimodal = ()


def _has_unimodal_logits(config: Config) -> bool:
    """Returns whether the model outputs "logits/<modality>" of every modality."""
    model = load_part("model", config.model.name, "config.model.name")
    return getattr(model, "unimodal_logits", False)


def _keep_loss_terms(config: Config) -> None:
    """Removes the loss terms that read outputs which the model does not produce."""
    modalities = set(config.model.encoders)
    alone = modalities if _has_unimodal_logits(config) else set()
    available = {UNIMODAL_LOGITS: alone, ENCODER_AUX: modalities}
    for name, term in config.losses.to_dict().items():
        target = load_part("loss", term["name"], f"config.losses.{name}.name")
        reads = getattr(target, "reads", "")
        if reads == PREDICTION:
            logits = str(term.get("logits", ""))
            readable = not logits or logits.removeprefix("logits/") in alone
        else:
            needs = term.get("modalities", ("audio", "video"))
            names = needs if matches(needs, tuple[str, ...]) else ()  # else an error
            readable = reads in available and available[reads].issuperset(names)
        if readable:
            continue
        if name == TASK:
            raise ConfigError(
                "C17",
                f"config.losses.task.name={shown(term['name'])} requires outputs that "
                f"the model {shown_name(config.model.name)} does not produce.",
                "--config.losses.task.name=cross_entropy, or l1, mse, multilabel",
            )
        del config.losses[name]


def _keep_scores(config: Config) -> None:
    """Removes MIS if the model does not have unimodal predictions."""
    agree = _has_unimodal_logits(config) and len(config.model.encoders) > 1
    if "mis" in config and not agree:
        del config.mis
        if config.train.selection_metric in INTEGRATION_METRICS:
            config.train.selection_metric = "accuracy"


def _line(config: Config, before: Config) -> str:
    """Returns a line that names the fields of `before` that `config` lacks."""
    line = f"model: {shown_name(config.model.name)} "
    line += f"instead of {shown_name(before.model.name)}"
    left = flatten(before).keys() - flatten(config).keys()
    left |= {f"model.{name}" for name in before.model if name not in config.model}
    group_of = lambda name: name.rpartition(".")[0]
    names = sorted({_outermost(name, config) for name in left})
    by_group = itertools.groupby(sorted(names, key=group_of), group_of)
    parts = [_named(group, list(members)) for group, members in by_group]
    if parts:
        line += f"; dropped: {', '.join(parts)}"
    changed = {
        "train.selection_metric": config.train.selection_metric,
        "pretrain_unimodal": config.pretrain_unimodal,
    }
    for name, value in changed.items():
        if value != flatten(before)[name]:
            line += f"; config.{shorten(name)}={shorten(format_value(value))}"
    return line


def _named(group: str, members: Sequence[str]) -> str:
    """Returns fields of one group: "config.a.b", or "config.a.{b, c}" for several."""
    if not group or len(members) == 1:
        return ", ".join(f"config.{name}" for name in members)
    last = ", ".join(name.rpartition(".")[2] for name in members)
    return f"config.{group}.{{{last}}}"


def _outermost(name: str, config: Config) -> str:
    """Returns the outermost group of the field `name` that `config` lacks."""
    words = name.split(".")
    level: Any = config
    for depth, word in enumerate(words):
        if word not in level:
            return ".".join(words[: depth + 1])
        level = level[word]
    return name
