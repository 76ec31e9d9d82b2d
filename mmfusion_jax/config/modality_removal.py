"""Removes from a config what refers to a removed modality or an output of a model."""

import re
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from mmfusion_jax.config.load import Config
from mmfusion_jax.config.registry import is_import_path, load_part
from mmfusion_jax.config.validate import matches
from mmfusion_jax.errors import ConfigError, join_names, shown, shown_name
from mmfusion_jax.losses.model_outputs import (
    ENCODER_AUX,
    PREDICTION,
    UNIMODAL_LOGITS,
)
from mmfusion_jax.losses.objective import TASK
from mmfusion_jax.metrics.integration_score import INTEGRATION_METRICS


def remove_encoder(config: Config, modality: str) -> None:
    """Removes an encoder and everything that refers to its modality."""
    if len(config.model.encoders) == 1:
        raise ConfigError(
            "C22",
            f"--config.model.encoders.{shown_name(modality)}=None removes the only "
            "encoder of the config.",
        )
    del config.model.encoders[modality]
    for group in ("modality_dropout", "augmentations"):
        if modality in config.data.get(group, {}):
            del config.data[group][modality]
    names = [f"encoders_{m}" for m in config.model.encoders]
    for name, group in dict(config.optim.groups).items():
        prefix = str(group.get("param_prefix"))
        alone = not any(n.startswith(prefix) or prefix.startswith(n) for n in names)
        if prefix.startswith(f"encoders_{modality}") and alone:
            del config.optim.groups[name]
    _remove_from_tuples(config, modality, ["pretrain_unimodal"])
    # Only the model's own options: an inner part such as its fusion block has some too.
    _remove_from_tuples(config.model, modality)
    _remove_from_losses(config, modality)


def _remove_from_tuples(
    group: Config, modality: str, names: Iterable[str] | None = None
) -> None:
    """Removes a modality from the tuples of a group of fields, and of groups in it."""
    for name in list(names or group):
        value = group[name]
        if isinstance(value, ConfigDict) and name != "encoders":
            _remove_from_tuples(value, modality)
        elif isinstance(value, tuple | list) and modality in value:
            with group.ignore_type():
                group[name] = tuple(one for one in value if one != modality)


def _remove_from_losses(config: Config, modality: str) -> None:
    """Removes a modality, and pairs that contain it, from the options of losses."""
    for name, term in dict(config.losses).items():
        target = load_part("loss", term["name"], f"config.losses.{name}.name")
        minimum = 2 if getattr(target, "compares_modalities", False) else 1
        for option, value in dict(term).items():
            kept = _without(value, modality) if option != "label" else value
            if kept == value:
                continue
            if len(kept) < minimum:
                _drop_loss(config, name, modality)
                break
            with term.ignore_type():
                term[option] = kept


def _without(value: Any, modality: str) -> Any:
    """Returns the option of a loss without a modality; () if it names only that."""
    if value in (modality, f"logits/{modality}"):
        return ()
    if not isinstance(value, tuple | list):
        return value
    # "text" is in "level1/text_audio", and not in "context".
    word = re.compile(rf"(?<![^\W_]){re.escape(modality)}(?![^\W_])")
    return tuple(one for one in value if not word.search(str(one)))


def _drop_loss(config: Config, name: str, modality: str) -> None:
    """Removes a loss term that requires a modality; the one of the task is an error."""
    if name == TASK:
        raise ConfigError(
            "C17",
            f"config.losses.task.name={shown(config.losses.task.name)} requires "
            f"{shown(modality)}, which has no encoder now.",
            "--config.losses.task.name=cross_entropy, or l1, mse, multilabel",
        )
    del config.losses[name]


def keep_one_modality(config: Config) -> None:
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


def keep_loss_terms(config: Config) -> None:
    """Removes the loss terms that read outputs which the model does not produce."""
    modalities = set(config.model.encoders)
    alone = modalities if _has_unimodal_logits(config) else set()
    available = {UNIMODAL_LOGITS: alone, ENCODER_AUX: modalities}
    for name, term in config.losses.to_dict().items():
        target = load_part("loss", term["name"], f"config.losses.{name}.name")
        reads = getattr(target, "reads", "")
        if is_import_path(term["name"]) and (
            name == TASK or is_import_path(config.model.name)
        ):
            continue  # what it reads is unknown; an output that is missing is an error
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


def keep_training(config: Config) -> None:
    """Trains a model that replaces one made of pretrained networks and not trained."""
    if not config.train.epochs and config.pretrain_epochs:
        config.train.epochs = config.pretrain_epochs


def keep_scores(config: Config) -> None:
    """Removes MIS if the model does not have unimodal predictions."""
    agree = _has_unimodal_logits(config) and len(config.model.encoders) > 1
    if "mis" in config and not agree:
        del config.mis
        if config.train.selection_metric in INTEGRATION_METRICS:
            config.train.selection_metric = "accuracy"
