"""Replaces parts of a config by one flag each, and takes encoders out of it.

`--config.model.name=fused` keeps the encoders, and so `--config.data.name=`,
`--config.losses.NAME.name=` and all other names of parts keep what the new part has
too; `--config.model.encoders.text=None` removes an encoder. What the new part does not
have, or what refers to a removed modality, is dropped, and a line names it.
"""

import copy
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mmfusion_jax.config.base import part_kind
from mmfusion_jax.config.change_line import ChangeLine
from mmfusion_jax.config.instantiate import (
    LINEN_FIELDS,
    arguments_of,
    check_options,
    takes_any,
)
from mmfusion_jax.config.load import Config, flatten
from mmfusion_jax.config.modality_removal import (
    keep_loss_terms,
    keep_one_modality,
    keep_scores,
    keep_training,
    remove_encoder,
)
from mmfusion_jax.config.option_defaults import fits, option_default
from mmfusion_jax.config.registry import load_part, load_weight_mapping
from mmfusion_jax.config.resolve import OFFERED, PROVIDED
from mmfusion_jax.config.spec import DataSpec, OptimizerSpec
from mmfusion_jax.config.structure import check_structure
from mmfusion_jax.data.dataset import RUN_ARGUMENTS, loader_info
from mmfusion_jax.errors import (
    ConfigError,
    UserError,
    join_names,
    shorten,
    shown,
    shown_name,
    suggest,
)
from mmfusion_jax.models import CONFIG_WORDS, GENERIC_MODELS, MODELS

OWN = {
    "dataset": {f.name for f in dataclasses.fields(DataSpec)} - {"dataset"},
    "loss": {"weight"},
    "model": {"encoders"},
    "optimizer": {f.name for f in dataclasses.fields(OptimizerSpec)} - {"optimizer"},
}
"""Kind -> fields in the group of a part that are not its options."""

ANY_MODEL = "--config.model.name=" + " or ".join(GENERIC_MODELS)
"""Flag of the models that can replace any other."""


class PartSwap:
    """Parts of a config that flags replace or remove.

    Attributes:
        config: The config with the fields of the new parts, before other overrides.
    """

    def __init__(
        self, config: Config, chosen: Mapping[str, str], removed: Sequence[str]
    ):
        """Replaces and removes parts.

        Args:
            config: The config of a file, before the overrides.
            chosen: Fields that name a part, such as "model.name" -> new name.
            removed: Modalities whose encoders are removed.

        Raises:
            ConfigError: The config lacks a field, a new part does not exist, a model of
                a paper would replace another, or a modality has no encoder.
        """
        check_structure(config.copy_and_resolve_references().to_dict())
        self.config = copy.deepcopy(config).unlock()  # placeholders keep their type
        self._removed = {m: f"--config.model.encoders.{m}=None" for m in removed}
        self._lines: list[ChangeLine] = []
        self._removals: list[ChangeLine] = []
        self._swapped: dict[str, ChangeLine] = {}
        for modality in removed:
            self._remove(modality)
        # A model first, then its fusion: outer parts create the fields of inner ones.
        for field in sorted(chosen, key=lambda name: (name.count("."), name)):
            self._swap(field, chosen[field])
        self.config.lock()

    @property
    def model(self) -> str:
        """Name of the new model; "" if it is not replaced."""
        return self.config.model.name if "model.name" in self._swapped else ""

    @property
    def names(self) -> dict[str, str]:
        """Field of every part that was replaced -> its new name."""
        values = flatten(self.config)
        return {field: values[field] for field in self._swapped}

    def fit(self, config: Config) -> tuple[Config, list[str]]:
        """Returns a config without what its new parts lack, and the lines about it.

        Args:
            config: `self.config` after the overrides.

        Raises:
            ConfigError: The model cannot work with the encoders that are left, or it is
                "unimodal" and the modality is not given.
        """
        made = copy.deepcopy(config).unlock()
        if line := self._swapped.get("data.name"):
            self._fit_to_data(made, line)
        if self._removed:
            self._check_removed(made)
        if self.model:
            before = copy.deepcopy(made)
            if made.model.name == "unimodal":
                keep_one_modality(made)
            keep_loss_terms(made)
            keep_scores(made)
            keep_training(made)
            self._swapped["model.name"].add(before, made)
        elif self._removed:
            before = copy.deepcopy(made)
            keep_scores(made)
            self._removals[0].add(before, made)
        lines = [str(s) for s in self._lines if s.always or s.dropped or s.changed]
        return made.lock(), lines

    def _remove(self, modality: str) -> None:
        """Removes the encoder of a modality by its flag."""
        encoders = self.config.model.encoders
        if modality not in encoders:
            raise ConfigError(
                "C02",
                f"--config.model.encoders.{shown_name(modality)}=None: the config has "
                f"no encoder {shown(modality)}.",
                suggest(modality, encoders),
            )
        before = copy.deepcopy(self.config)
        remove_encoder(self.config, modality)
        line = ChangeLine(
            f"model.encoders: without {shown_name(modality)}", always=True
        )
        line.add(before, self.config)
        line.dropped.discard(f"model.encoders.{modality}")
        self._lines.append(line)
        self._removals.append(line)

    def _swap(self, field: str, name: str) -> None:
        """Replaces the part that a field names; nothing if the group is missing."""
        group = _group_of(self.config, field)
        old = group.get("name") if isinstance(group, ConfigDict) else None
        if not isinstance(old, str) or old == name:
            return
        kind = part_kind(field)
        if kind == "model" and name in MODELS and name not in GENERIC_MODELS:
            raise ConfigError(
                "C03",
                f"--config.model.name={shown_name(name)} cannot replace "
                f"{shown_name(old)}: its loss terms and training are in its own "
                "config.",
                f"--config={shown_name(CONFIG_WORDS.get(name, name))}, or a model of "
                f"any encoders: {ANY_MODEL}",
            )
        before = copy.deepcopy(self.config)
        _set_part(group, kind, name, f"--config.{field}")
        if kind == "dataset" and "folds" not in _takes(name) and group.folds != 1:
            with group.ignore_type():
                group.folds, group.fold = 1, "0"
        where = field.removesuffix(".name")
        line = ChangeLine(
            f"{shown_name(where)}: {shown_name(name)} instead of {shown_name(old)}",
            always=kind == "model",
        )
        line.add(before, self.config, but=field)
        self._lines.append(line)
        self._swapped[field] = line

    def _fit_to_data(self, config: Config, line: ChangeLine) -> None:
        """Removes encoders whose modality the new dataset does not have."""
        known = _data_modalities(config)
        if known is None:
            return
        before = copy.deepcopy(config)
        gone = [m for m in config.model.encoders if m not in known]
        if len(gone) == len(config.model.encoders):
            raise ConfigError(
                "C22",
                f"--config.data.name={shown_name(config.data.name)} has "
                f"{join_names(sorted(known))}, and the config only has encoders for "
                f"{join_names(gone)}.",
                "set config.model.encoders in the config file, or another config",
            )
        for modality in gone:
            remove_encoder(config, modality)
            self._removed[modality] = f"--config.data.name={config.data.name}"
        line.add(before, config)
        self._removals.append(line)

    def _check_removed(self, config: Config) -> None:
        """Raises ConfigError if the model requires an encoder that was removed."""
        model, encoders = config.model.name, config.model.encoders
        target = load_part("model", model, "--config.model.name")
        count = getattr(target, "num_modalities", 0)
        if len(encoders) < count:
            flags = " ".join(dict.fromkeys(self._removed.values()))
            raise ConfigError(
                "C22",
                f"{shorten(flags)} leaves encoders for {join_names(sorted(encoders))}, "
                f"but the model {shown_name(model)} requires {count} modalities.",
                f"{ANY_MODEL}, which work with any encoders",
            )
        for name, value in flatten(config.model).items():
            inner = name.startswith("encoders.")
            if isinstance(value, str) and value in self._removed and not inner:
                raise ConfigError(
                    "C22",
                    f"{shorten(self._removed[value])} removes the encoder that "
                    f"config.model.{shorten(name)}={shown(value)} names.",
                    f"--config.model.{shorten(name)}=NAME, one of "
                    f"{join_names(sorted(encoders))}",
                )


def _group_of(config: Config, field: str) -> Any:
    """Returns the group of fields that a field is in; None if there is none.

    The group of an inner part of a model, such as its fusion block, is created if the
    model has one by default.
    """
    level: Any = config
    *groups, _ = field.split(".")
    for depth, word in enumerate(groups):
        if groups[:depth] == ["model"] and word not in level:
            model = load_part("model", level.name, "--config.model.name")
            if default := getattr(model, "parts", {}).get(word):
                level[word] = _new_part(word, default)
        if not isinstance(level, ConfigDict) or word not in level:
            return None
        level = level[word]
    return level


def _set_part(group: Config, kind: str, name: str, where: str) -> None:
    """Replaces the options of a part by those of another one.

    An option of both keeps its value if it has the type of the new one; every other
    option has the default of the new part, so that flags can set it.
    """
    target = load_part(kind, name, where)
    own = OWN.get(kind, set()) | {"name"}
    if kind == "encoder" and load_weight_mapping(name, where) is not None:
        own |= {"weights"}
        group.weights = group.get("weights", "")
    arguments = _options_of(kind, target)
    keeps_all = takes_any(target)
    for option in [name for name in group if name not in own]:
        if kind == "dataset" and option == "modalities":
            kept = False  # names of the other dataset
        elif option in arguments:
            kept = _keep(group, option, arguments[option])
        else:
            kept = keeps_all
        if not kept:
            del group[option]
    inner = getattr(target, "parts", {})
    # An empty folder is how configs get the message that names the flag for it.
    empty = "" if kind == "dataset" else None
    offered = OFFERED.get(kind, ())
    for option in [o for o in arguments if o not in group and o not in offered]:
        if option in inner:
            group[option] = _new_part(option, inner[option])
        else:
            option_default(group, option, arguments[option], empty)
    group.name = name


def _new_part(kind: str, name: str) -> Config:
    """Returns the group of fields of an inner part with its defaults."""
    group = ConfigDict({"name": name})
    _set_part(group, kind, name, kind)
    return group


def add_options(config: Config, fields: Sequence[str]) -> Config:
    """Returns a config with options of its parts that it leaves out, at their defaults.

    Args:
        config: A config.
        fields: Fields that flags set, such as "losses.task.label_smoothing". Those that
            are not options of a part of the config are not added.
    """
    made = copy.deepcopy(config).unlock()
    for field in fields:
        where, _, option = field.rpartition(".")
        group = _group_of(made, field)
        name = group.get("name") if isinstance(group, ConfigDict) else None
        if not isinstance(name, str):
            continue
        kind = part_kind(f"{where}.name")
        target = load_part(kind, name, f"config.{where}.name")
        arguments = _options_of(kind, target)
        if option in arguments and option not in group:
            option_default(group, option, arguments[option], empty=None)
    return made.lock()


def _options_of(kind: str, target: Any) -> dict[str, inspect.Parameter]:
    """Returns the arguments of a part that a config may set; none of an object."""
    if not callable(target):
        return {}
    others = LINEN_FIELDS.union(PROVIDED.get(kind, ()))
    return {
        name: p
        for name, p in arguments_of(target).items()
        if name not in others and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }


def _keep(group: Config, option: str, parameter: inspect.Parameter) -> bool:
    """Returns whether an option fits the new part; an integer becomes a float."""
    value = group[option]
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if not fits(option, value, parameter):
        return False
    if type(value) is int and isinstance(parameter.default, float):
        with group.ignore_type():  # flags have the type of the value
            group[option] = float(value)
    return True


def _takes(name: str) -> Sequence[str]:
    """Returns the arguments that a dataset takes from the run."""
    return loader_info(load_part("dataset", name, "--config.data.name")).takes


def _data_modalities(config: Config) -> set[str] | None:
    """Returns the modalities of the dataset; None if they are unknown without files."""
    data = config.data.to_dict()
    target = load_part("dataset", data["name"], "--config.data.name")
    info = loader_info(target)
    if info.outline is None:
        return None
    options = {k: v for k, v in data.items() if k not in OWN["dataset"] | {"name"}}
    check_options(target, options, "config.data", RUN_ARGUMENTS)
    values = {**data, "fold": 0, "protocol": config.protocol, "seed": config.seed}
    try:
        outline = info.outline(**options, **{name: values[name] for name in info.takes})
    except UserError:
        # Options that are wrong, or unknown without the files: building the dataset
        # raises the error, or the model does where an encoder has no input.
        return None
    return set(outline.source("train")[0]["inputs"])
