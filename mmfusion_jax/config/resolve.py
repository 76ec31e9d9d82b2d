"""From a ConfigDict to an ExperimentSpec: every config is read here, once."""

import dataclasses
import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from mmfusion_jax.config.base import FIELDS, check_values
from mmfusion_jax.config.instantiate import arguments_of, check_options
from mmfusion_jax.config.load import flatten
from mmfusion_jax.config.option_defaults import INNER
from mmfusion_jax.config.registry import (
    OPTAX_OPTIONS,
    TABLES,
    load_part,
    load_weight_mapping,
    package_of,
)
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
from mmfusion_jax.config.structure import check_structure
from mmfusion_jax.config.validate import check_type, metadata
from mmfusion_jax.data.dataset import RUN_ARGUMENTS, loader_info
from mmfusion_jax.errors import (
    ConfigError,
    join_names,
    shorten,
    shown,
    shown_name,
    suggest,
    type_name,
)
from mmfusion_jax.losses.objective import TASK
from mmfusion_jax.metrics.integration_score import IntegrationScoreSpec
from mmfusion_jax.option_types import HasEncoder, Weight
from mmfusion_jax.weights import WeightMapping

FROM_MODEL = ("encoders", "head_size", "axis", "dtype", "flags")
"""Arguments of a model or an encoder that come from the task and the devices."""

FROM_ENCODERS = (*FROM_MODEL, "modality")
"""Arguments of an encoder that do not come from its group of fields."""

FROM_FUSION = ("axis", "dtype")
"""Arguments of a fusion block that do not come from its group of fields."""

PROVIDED = {
    "augmentation": ("modality",),
    "dataset": RUN_ARGUMENTS,
    "encoder": FROM_ENCODERS,
    "fusion": FROM_FUSION,
    "loss": ("label",),
    "model": FROM_MODEL,
    "optimizer": ("learning_rate", "weight_decay"),
    "schedule": ("rate", "steps"),
}
"""Kind -> arguments of a part that do not come from its group of fields."""

OFFERED = {"fusion": ("modality_order", "modalities")}
"""Kind -> arguments of a part that need not come from its group of fields."""


def resolve(config: ConfigDict) -> ExperimentSpec:
    """Returns a config as typed values, with every part imported and checked.

    Example:
        >>> import mmfusion_jax as mmf
        >>> spec = mmf.resolve(mmf.load_config("mea:digits"))
        >>> spec.model.modalities, spec.data.batch_size
        (('audio', 'text', 'video'), 32)

    Args:
        config: A complete config: `base_config()` with the changes of a config file.

    Raises:
        ConfigError: A field is missing, unknown, of another type or out of range; a
            part is unknown or cannot be imported, or has no such option.
    """
    values = _checked(config)
    # First, as the lines below take fields out of `values`.
    source = _as_json(values)
    data, model, optim, train = (
        values[name] for name in ("data", "model", "optim", "train")
    )
    encoders, weights = _split_off("weights", model.pop("encoders"))
    spec = ExperimentSpec(
        **{name: values[name] for name in ("seed", "seeds", "protocol", "parallel")},
        compute_dtype=values["compute_dtype"],
        matmul_precision=values["matmul_precision"],
        pretrain_unimodal=tuple(values["pretrain_unimodal"]),
        pretrain_epochs=values["pretrain_epochs"],
        data=_data(data, values),
        model=ModelSpec(
            _part("model", model, "config.model"),
            _parts("encoder", encoders, "config.model.encoders"),
            _weights(weights, encoders),
        ),
        losses=_losses(values["losses"]),
        metrics=_parts("metric", values["metrics"], "config.metrics"),
        integration=_integration(values.get("mis"), encoders),
        optimizer=_optimizer(optim),
        training=TrainingSpec(**train),
        distributed=DistributedSpec(**values["distributed"]),
        source=source,
    )
    _check_modalities(spec)
    return spec


def distributed_spec(config: ConfigDict) -> DistributedSpec:
    """Returns the processes of a run; imports no part.

    Processes must be connected before anything uses JAX, which the import of a part
    may do.

    Raises:
        ConfigError: A field is missing, unknown, of another type or out of range.
    """
    return DistributedSpec(**_checked(config)["distributed"])


def unimodal_spec(spec: ExperimentSpec, modality: str) -> ExperimentSpec:
    """Returns the experiment that pretrains the encoder of one modality.

    The data, the optimizer and the training are those of `spec`, except for its
    `pretrain_epochs`; the model is the encoder and a linear layer, and the loss is the
    term of the task.

    Args:
        spec: An experiment.
        modality: One of its modalities.
    """
    # Options that change the input of the head, which late fusion copies too.
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
            _part("model", {"name": "unimodal", **head}, where),
            {modality: spec.model.encoders[modality]},
            {m: file for m, file in spec.model.weights.items() if m == modality},
        ),
        losses={TASK: task},
        optimizer=dataclasses.replace(spec.optimizer, groups=groups),
        training=dataclasses.replace(
            spec.training, epochs=spec.pretrain_epochs or spec.training.epochs
        ),
        pretrain_unimodal=(),
    )


def _checked(config: ConfigDict) -> dict[str, Any]:
    """Returns the fields of a complete config, all but the options of parts checked."""
    values = config.copy_and_resolve_references().to_dict()
    check_structure(values)
    single = flatten(values)
    for name, field in FIELDS.items():
        if single[name] is None:
            message = f"config.{shorten(name)} is not set: {field.help}"
            raise ConfigError("C31", message, f"--config.{shorten(name)}=VALUE")
    check_values(single)
    return values


CALLS = {
    "augmentation": ("example", "rng"),
    "encoder": ("values", "mask"),
    "fusion": ("streams",),
    "loss": ("outputs", "batch"),
    "metric": ("collected",),
}
"""Kind -> arguments with which the object that a config describes is called."""


def _call_of(kind: str, target: Any, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the arguments of a function that is given instead of a part; else ()."""
    call, names = CALLS.get(kind, ()), tuple(arguments_of(target))
    if call and names[: len(call)] == call:
        return call
    # The argument of a formula may have any name.
    required = [p.default is p.empty for p in arguments_of(target).values()]
    formula = kind == "metric" and inspect.isfunction(target) and not options
    return names if formula and sum(required) == 1 else ()


def _part(kind: str, values: Mapping[str, Any], where: str) -> Part:
    """Returns a part: its name looked up, its options checked, its parts resolved."""
    options = dict(values)
    name = options.pop("name")
    target = load_part(kind, name, f"{where}.name")
    if kind == "metric" and not callable(target) and not options:
        return Part(name, target, {}, where)
    if not callable(target):
        raise ConfigError(
            "C32", f"{where}.name={shown(name)} is a {type(target).__name__}.",
            "a class or a function",
        )  # fmt: skip
    # A common mistake: the function itself instead of a class whose objects are such
    # functions.
    call = _call_of(kind, target, options)
    if call:
        raise ConfigError(
            "C33",
            f"{where}.name={shown(name)} is a function of ({join_names(call)}).",
            "a ScoreInfo with this formula, see the metric in CONTRIBUTING.md"
            if kind == "metric"
            else f"a class whose objects are such functions, see the {kind} in "
            "CONTRIBUTING.md",
        )
    if dataclasses.is_dataclass(target) and not isinstance(target, type):
        raise ConfigError(
            "C33",
            f"{where}.name={shown(name)} is {type_name(target)}, not a class.",
            "the class of this object; its options are fields of the config",
        )
    if kind in ("model", *INNER):
        options |= _inner_parts(options, where)
    # Optax declares no bounds: a b1 of 2 would only make the loss infinite.
    types = (
        OPTAX_OPTIONS
        if package_of(getattr(target, "__module__", "")) == "optax"
        else {}
    )
    check_options(
        target, options, where, PROVIDED.get(kind, ()), OFFERED.get(kind, ()), types
    )
    return Part(name, target, options, where)


def _inner_parts(options: Mapping[str, Any], where: str) -> dict[str, Part]:
    """Returns the options that are parts: groups whose name is that of a kind."""
    inner = {}
    for kind in INNER:
        values = options.get(kind)
        if not isinstance(values, Mapping):
            continue
        if "name" not in values:
            message = f"{where}.{kind}.name is missing."
            raise ConfigError("C31", message, f"{where}.{kind}.name = ...")
        inner[kind] = _part(kind, values, f"{where}.{kind}")
    return inner


def _parts(
    kind: str, values: Mapping[str, Mapping[str, Any]], where: str
) -> dict[str, Part]:
    """Returns the parts of a group, by name."""
    return {
        name: _part(kind, options, f"{where}.{name}")
        for name, options in values.items()
    }


def _data(values: Mapping[str, Any], config: Mapping[str, Any]) -> DataSpec:
    """Returns `config.data`, its options checked against those of the dataset."""
    own = {f.name for f in dataclasses.fields(DataSpec)} - {"dataset"}
    options = {name: value for name, value in values.items() if name not in own}
    dataset = _part("dataset", options, "config.data")
    _check_takes(dataset, values["folds"], config["protocol"])
    return DataSpec(
        dataset=dataset,
        label=values["label"],
        fold=str(values["fold"]),
        folds=values["folds"],
        batch_size=values["batch_size"],
        num_read_threads=values["num_read_threads"],
        augmentations=_parts(
            "augmentation", values["augmentations"], "config.data.augmentations"
        ),
        modality_dropout=dict(values["modality_dropout"]),
    )


def _check_takes(dataset: Part, folds: int, protocol: str) -> None:
    """Raises ConfigError if a dataset lacks an argument, or does not have folds."""
    takes = loader_info(dataset.target).takes
    arguments = arguments_of(dataset.target).items()
    needs = {name for name, p in arguments if p.default is p.empty}
    any_name = any(p.kind is p.VAR_KEYWORD for _, p in arguments)
    if not any_name and (extra := set(takes).difference(name for name, _ in arguments)):
        raise dataset.error(
            f"declares takes={shown(tuple(sorted(extra)))}, which are not its arguments"
        )
    if missing := needs.intersection(RUN_ARGUMENTS).difference(takes):
        raise dataset.error(
            f"has the argument {shown(min(missing))}, which it must declare: "
            f"@dataset_loader(takes=({shown(min(missing))},))"
        )
    if "protocol" not in takes and protocol == "fixed_epochs":
        raise ConfigError(
            "C06",
            "config.protocol='fixed_epochs' is not supported by "
            f"{shown(dataset.name)}: its validation split selects the checkpoint.",
            "--config.protocol=validation",
        )
    if "folds" not in takes and folds != 1:
        raise ConfigError(
            "C06",
            f"config.data.folds={folds}: {shown(dataset.name)} has no folds.",
            "--config.data.folds=1",
        )


def _split_off(
    option: str, members: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Returns the members of a group without an option, and its values by member."""
    others = {
        name: {k: v for k, v in options.items() if k != option}
        for name, options in members.items()
    }
    values = {name: o[option] for name, o in members.items() if option in o}
    return others, values


def _weights(
    files: Mapping[str, str], encoders: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Returns the files of pretrained weights, by modality."""
    files = {modality: file for modality, file in files.items() if file}
    kind = "encoder with pretrained weights"
    for modality in files:
        name = encoders[modality]["name"]
        where = f"config.model.encoders.{shown_name(modality)}"
        mapping = load_weight_mapping(name, f"{where}.name")
        if mapping is None:
            raise ConfigError(
                "C03",
                f"{where}.weights: {shown(name)} is not an {kind}.",
                f"{suggest(name, TABLES[kind])}; an encoder of your own needs the "
                "class attribute weight_mapping",
            )
        if not isinstance(mapping, WeightMapping):
            raise ConfigError(
                "C33",
                f"{where}.name={shown(name)}: its weight_mapping is an object of type "
                f"{type(mapping).__name__}, not a WeightMapping.",
                "mmf.weights.WeightMapping(rules, export)",
            )
    return files


def _losses(values: Mapping[str, Mapping[str, Any]]) -> dict[str, LossSpec]:
    """Returns the loss terms with their weights."""
    if TASK not in values:
        raise ConfigError(
            "C14",
            f"config.losses must have a term {shown(TASK)}, which scores evaluations.",
            f"its terms are {join_names(values)}",
        )
    terms, weights = _split_off("weight", values)
    for name, weight in weights.items():
        check_type(f"config.losses.{name}.weight", weight, Weight)
    if not any(weights.get(name, 1.0) for name in terms):
        raise ConfigError(
            "C10",
            "config.losses: the weight of every term is 0, so nothing is learned.",
            f"--config.losses.{TASK}.weight=1.0",
        )
    parts = _parts("loss", terms, "config.losses")
    return {
        name: LossSpec(part, weights.get(name, 1.0)) for name, part in parts.items()
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
    own = {f.name for f in dataclasses.fields(OptimizerSpec)} - {"optimizer"}
    options = {name: value for name, value in values.items() if name not in own}
    schedule = _part("schedule", values["schedule"], "config.optim.schedule")
    optimizer = _part("optimizer", options, "config.optim")
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
            for name in own - {"schedule", "reduce_on_plateau", "groups"}
        },
    )


def _check_modalities(spec: ExperimentSpec) -> None:
    """Raises ConfigError if a field names a modality that has no encoder."""
    _check_names("config.pretrain_unimodal", spec.pretrain_unimodal, spec)
    for loss in spec.losses.values():
        _check_part_modalities(loss.term, spec)
        # Of a loss of another package, which may not declare what it names.
        modalities = loss.term.options.get("modalities", ())
        _check_names(f"{loss.term.where}.modalities", modalities, spec)
    # Models of other packages may add streams before their fusion block.
    if spec.model.model.is_builtin:
        _check_part_modalities(spec.model.model, spec)


def _check_part_modalities(part: Part, spec: ExperimentSpec) -> None:
    """Checks the options of a part, and of its inner parts, that name modalities."""
    arguments = arguments_of(part.target)
    for name, value in part.options.items():
        field = f"{part.where}.{name}"
        if isinstance(value, Part):
            _check_part_modalities(value, spec)
        elif name in arguments:
            for mark in metadata(arguments[name].annotation, HasEncoder):
                names = tuple(
                    filter(None, [value] if isinstance(value, str) else value)
                )
                _check_names(field, names, spec)
                if mark.all and names and len(names) < len(spec.model.encoders):
                    raise ConfigError(
                        "C22",
                        f"{shorten(field)}={shown(names)} does not match the encoders "
                        f"{join_names(spec.model.modalities)}.",
                        f"--{shorten(field)}={shorten(','.join(spec.model.modalities))}",
                    )


def _check_names(field: str, names: Iterable[str], spec: ExperimentSpec) -> None:
    """Raises ConfigError if one of the modalities of a field has no encoder."""
    for modality in names:
        if modality not in spec.model.encoders:
            raise ConfigError(
                "C13",
                f"{shorten(field)} names {shown(modality)}, which has no encoder.",
                suggest(str(modality), spec.model.encoders),
            )


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a config as JSON values.

    Raises:
        ConfigError: A value is an object that JSON does not have.
    """
    for name, value in flatten(values).items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                "C11",
                f"config.{shorten(name)}={shown(value)} is not a value of a config.",
                "numbers, strings, True, False, None, tuples and groups of fields",
            ) from error
    return json.loads(json.dumps(values))
