"""From a ConfigDict to an ExperimentSpec: every config is read here, once."""

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from mmfusion_jax.config.base import FIELDS, GROUPS, REQUIRED, check_values
from mmfusion_jax.config.instantiate import check_options
from mmfusion_jax.config.load import Config, flatten
from mmfusion_jax.config.registry import load_part
from mmfusion_jax.config.spec import (
    DataSpec,
    DistributedSpec,
    ExperimentSpec,
    LossSpec,
    ModelSpec,
    OptimizerSpec,
    ParameterGroupSpec,
    Part,
    ReduceOnPlateauSpec,
    TrainingSpec,
)
from mmfusion_jax.data.dataset import RUN_ARGUMENTS, loader_info
from mmfusion_jax.errors import ConfigError, suggest
from mmfusion_jax.losses.objective import TASK
from mmfusion_jax.metrics.integration_score import IntegrationScoreSpec

FROM_MODEL = ("encoders", "head_size", "axis", "dtype", "flags")
"""Arguments of a model or an encoder that come from the task and the devices."""


def resolve(config: ConfigDict) -> ExperimentSpec:
    """Returns a config as typed values, with every part imported and checked.

    Args:
        config: A complete config: `base_config()` with the changes of a config file.

    Raises:
        ConfigError: A field is missing, unknown, of another type or out of range; a
            part is unknown or cannot be imported, or has no such option.
    """
    values = config.copy_and_resolve_references().to_dict()
    _check_fields(values)
    check_values(flatten(values))
    data, model, optim, train = (
        values[name] for name in ("data", "model", "optim", "train")
    )
    encoders = {
        name: {k: v for k, v in options.items() if k != "weights"}
        for name, options in model.pop("encoders").items()
    }
    spec = ExperimentSpec(
        **{name: values[name] for name in ("seed", "seeds", "protocol", "parallel")},
        compute_dtype=values["compute_dtype"],
        pretrain_unimodal=tuple(values["pretrain_unimodal"]),
        data=_data(data, values),
        model=ModelSpec(
            _part("model", model, "config.model", FROM_MODEL),
            _parts("encoder", encoders, "config.model.encoders", FROM_MODEL),
            _weights(config),
        ),
        losses=_losses(values["losses"]),
        metrics=_parts("metric", values["metrics"], "config.metrics"),
        integration=_integration(values.get("mis"), encoders),
        optimizer=_optimizer(optim),
        training=TrainingSpec(**train),
        distributed=DistributedSpec(**values["distributed"]),
        source=json.loads(config.to_json()),
    )
    _check_pretrained(spec)
    return spec


def distributed_spec(config: ConfigDict) -> DistributedSpec:
    """Returns the processes of a run; imports no part.

    Processes must be connected before anything uses JAX, which the import of a part
    may do.

    Raises:
        ConfigError: A field is missing, unknown, of another type or out of range.
    """
    values = config.copy_and_resolve_references().to_dict()
    _check_fields(values)
    check_values(flatten(values))
    return DistributedSpec(**values["distributed"])


def unimodal_spec(spec: ExperimentSpec, modality: str) -> ExperimentSpec:
    """Returns the experiment that pretrains the encoder of one modality.

    The data, the optimizer and the training are those of `spec`; the model is the
    encoder and a linear layer, and the loss is the term of the task.

    Args:
        spec: An experiment.
        modality: One of its modalities.
    """
    head = {
        name: spec.model.model.options[name]
        for name in ("dropout", "audio_pooling")
        if name in spec.model.model.options
    }
    where = spec.model.model.where
    groups = {
        name: group
        for name, group in spec.optimizer.groups.items()
        if group.param_prefix.startswith(f"encoders_{modality}")
    }
    task = spec.losses[TASK]
    if task.term.name == "multiplicative":  # it compares modalities
        task = LossSpec(
            _part("loss", {"name": "cross_entropy"}, "config.losses.task"), 1.0
        )
    return dataclasses.replace(
        spec,
        model=ModelSpec(
            _part("model", {"name": "unimodal", **head}, where, FROM_MODEL),
            {modality: spec.model.encoders[modality]},
            {m: file for m, file in spec.model.weights.items() if m == modality},
        ),
        losses={TASK: task},
        optimizer=dataclasses.replace(spec.optimizer, groups=groups),
        pretrain_unimodal=(),
    )


def _check_fields(values: Mapping[str, Any]) -> None:
    """Raises ConfigError for a field that is missing or that no config has."""
    known = {*FIELDS, *GROUPS, "mis"}
    groups = {name.rpartition(".")[0] for name in known} - {""}
    groups |= {name.split(".")[0] for name in groups}
    _check_group("", values, known, groups)
    own = {name for name, field in FIELDS.items() if field.default is REQUIRED}
    own |= {"losses", "model.encoders"}
    helps = {name: field.help for name, field in FIELDS.items()} | {**GROUPS}
    for name, help in helps.items():
        level: Any = values
        for word in name.split("."):
            if not isinstance(level, Mapping) or word not in level:
                raise ConfigError(
                    "C31",
                    f"config.{name} is missing: {help}",
                    f"config.{name} = ... in the config file"
                    if name in own
                    else "start the config from mmfusion_jax.config.base.base_config()",
                )
            level = level[word]


FREE = ("data", "model", "optim", "optim.schedule", "mis")
"""Groups with options of a part, which are checked against its arguments."""


def _check_group(
    group: str, values: Mapping[str, Any], known: Collection[str], groups: set[str]
) -> None:
    """Checks that a group of fields has only fields that are known."""
    for word, value in values.items():
        name = f"{group}.{word}".strip(".")
        if name in groups and name not in GROUPS:
            if not isinstance(value, Mapping):
                raise ConfigError("C11", f"config.{name}={value!r} is not a group.")
            _check_group(name, value, known, groups)
        elif name in GROUPS and not isinstance(value, Mapping):
            raise ConfigError("C11", f"config.{name}={value!r} is not a group.")
        elif name not in known and group not in FREE:
            here = [n.rpartition(".")[2] for n in known if _parent(n) == group]
            here += [n for n in groups if _parent(n) == group]
            raise ConfigError("C02", f"config.{name} is unknown.", suggest(word, here))


def _parent(name: str) -> str:
    """Returns the group that a field is in, "" for the outermost."""
    return name.rpartition(".")[0]


def _part(
    kind: str, values: Mapping[str, Any], where: str, provided: Collection[str] = ()
) -> Part:
    """Returns a part: its name looked up, its options checked."""
    options = dict(values)
    if "name" not in options:
        raise ConfigError(
            "C31", f"{where}.name is missing.", f"{where}.name = a {kind}"
        )
    name = options.pop("name")
    target = load_part(kind, name, f"{where}.name")
    if kind == "metric" and not callable(target) and not options:
        return Part(name, target, {}, where)
    if not callable(target):
        raise ConfigError(
            "C32", f"{where}.name={name!r} is a {type(target).__name__}.",
            "a class or a function",
        )  # fmt: skip
    check_options(target, options, where, provided)
    return Part(name, target, options, where)


def _parts(
    kind: str,
    values: Mapping[str, Mapping[str, Any]],
    where: str,
    provided: Collection[str] = (),
) -> dict[str, Part]:
    """Returns the parts of a group, by name."""
    parts = {}
    for name, options in values.items():
        if not isinstance(options, Mapping):
            raise ConfigError("C11", f"{where}.{name}={options!r} is not a group.")
        parts[name] = _part(kind, options, f"{where}.{name}", provided)
    return parts


def _data(values: Mapping[str, Any], config: Mapping[str, Any]) -> DataSpec:
    """Returns `config.data`, its options checked against those of the dataset."""
    own = {f.name for f in dataclasses.fields(DataSpec)} - {"dataset"}
    options = {name: value for name, value in values.items() if name not in own}
    dataset = _part("dataset", options, "config.data", RUN_ARGUMENTS)
    takes = loader_info(dataset.target).takes
    if "protocol" not in takes and config["protocol"] == "fixed_epochs":
        raise ConfigError(
            "C06",
            f"config.protocol='fixed_epochs' is not supported by {dataset.name!r}: its "
            "validation split selects the checkpoint.",
            "--config.protocol=validation",
        )
    if "folds" not in takes and values["folds"] != 1:
        raise ConfigError(
            "C06",
            f"config.data.folds={values['folds']}: {dataset.name!r} has no folds.",
            "--config.data.folds=1",
        )
    augmentations = {
        modality: {"modality": modality, **spec}
        for modality, spec in values["augmentations"].items()
    }
    return DataSpec(
        dataset=dataset,
        label=values["label"],
        fold=str(values["fold"]),
        folds=values["folds"],
        batch_size=values["batch_size"],
        num_read_threads=values["num_read_threads"],
        augmentations=_parts(
            "augmentation", augmentations, "config.data.augmentations"
        ),
        modality_dropout=dict(values["modality_dropout"]),
    )


def _weights(config: Config) -> dict[str, str]:
    """Returns the files of pretrained weights, by modality."""
    files = {
        modality: options.get("weights", "")
        for modality, options in config.model.encoders.items()
    }
    for modality, file in files.items():
        if file:
            name = config.model.encoders[modality].name
            load_part("pretrained weights", name, _weights_field(modality))
    return {modality: file for modality, file in files.items() if file}


def _weights_field(modality: str) -> str:
    """Returns the field with the file of pretrained weights, for messages."""
    return f"config.model.encoders.{modality}.weights: encoder"


def _losses(values: Mapping[str, Mapping[str, Any]]) -> dict[str, LossSpec]:
    """Returns the loss terms with their weights."""
    if TASK not in values:
        raise ConfigError(
            "C14",
            f"config.losses must have a term {TASK!r}, which scores evaluations.",
            f"its terms are {', '.join(values) or 'none'}",
        )
    without = {
        name: {k: v for k, v in options.items() if k != "weight"}
        if isinstance(options, Mapping)
        else options
        for name, options in values.items()
    }
    parts = _parts("loss", without, "config.losses", ("label",))
    return {
        name: LossSpec(part, values[name].get("weight", 1.0))
        for name, part in parts.items()
    }


def _integration(values: Any, modalities: Iterable[str]) -> Part | None:
    """Returns the Multimodal Integration Score of `config.mis`, if there is one."""
    if values is None:
        return None
    where = "config.mis"
    check_options(IntegrationScoreSpec, values, where, ("modalities",))
    return Part(where, IntegrationScoreSpec, dict(values), where)


def _optimizer(values: Mapping[str, Any]) -> OptimizerSpec:
    """Returns `config.optim`, its options checked against those of the optimizer."""
    own = {field.name for field in dataclasses.fields(OptimizerSpec)}
    options = {name: value for name, value in values.items() if name not in own}
    schedule = _part(
        "schedule", values["schedule"], "config.optim.schedule", ("rate", "steps")
    )
    provided = ("learning_rate", "weight_decay")
    optimizer = _part("optimizer", options, "config.optim", provided)
    groups = {}
    for name, group in values["groups"].items():
        where = f"config.optim.groups.{name}"
        check_options(ParameterGroupSpec, group, where)
        groups[name] = ParameterGroupSpec(**group)
    return OptimizerSpec(
        optimizer=optimizer,
        schedule=schedule,
        reduce_on_plateau=ReduceOnPlateauSpec(**values["reduce_on_plateau"]),
        groups=groups,
        **{
            name: values[name]
            for name in own - {"optimizer", "schedule", "reduce_on_plateau", "groups"}
        },
    )


def _check_pretrained(spec: ExperimentSpec) -> None:
    """Raises ConfigError if a modality without an encoder is to be pretrained."""
    for modality in spec.pretrain_unimodal:
        if modality not in spec.model.encoders:
            raise ConfigError(
                "C13",
                f"config.pretrain_unimodal names {modality!r}, which has no encoder.",
                suggest(modality, spec.model.encoders),
            )
