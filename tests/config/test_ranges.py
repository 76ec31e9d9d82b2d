"""Every option of every part declares what it may be, and is checked at once."""

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import small_configs
import tiny_dataset
from ml_collections import ConfigDict

from mmfusion_jax.config.base import FIELDS, MEMBERS
from mmfusion_jax.config.instantiate import LINEN_FIELDS, arguments_of, check_options
from mmfusion_jax.config.registry import OPTAX_OPTIONS, TABLES, load_part
from mmfusion_jax.config.resolve import OFFERED, PROVIDED, resolve
from mmfusion_jax.config.spec import ParameterGroupSpec
from mmfusion_jax.config.validate import check_type, metadata
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.metrics.integration_score import IntegrationScoreSpec
from mmfusion_jax.option_types import HasEncoder, NotEmpty, Range

HUGE = 10**400, -(10**400), 10**5000
NEVER = math.nan, math.inf, -math.inf, 1e300, -1e300, *HUGE
"""Values that no numeric option takes: they are not numbers, or not those of JAX."""

SIGNED = {"output_bias_init", "snr_db", "noise_snr_db", "time", "frequency"}
"""Options that may be negative."""

FRACTIONS = ("dropout", "prob", "missing_rate", "fraction", "b1", "b2", "momentum")
SIZES = ("_dim", "_dims", "_heads", "kernel_size", "channels", "epochs")
"""Ends of names of options that are fractions, and of sizes."""

FREE = {
    *("data_dir", "landmarks_dir", "cache_dir", "file", "labels"),  # paths
    *("vocabulary", "synonyms", "weights"),
    *("speaker_column", "text_column", "held_out_speaker", "classes"),  # of files
    *("modalities", "standardize"),  # of a dataset, which checks them itself
    *("logits", "param_prefix", "axis"),
}
"""Options that are strings which only the data or the model knows."""

OWN_OPTIONS = ("augment",)
"""Options that are options of something with ranges of its own."""

FIELDS_FREE = {"data.label", "data.fold", "train.selection_metric"} | {
    *("distributed.coordinator", "pretrain_unimodal", "model.encoders.*.weights")
}


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a part: where it is, and the type that it declares."""

    kind: str
    part: str
    name: str
    hint: Any

    def __str__(self) -> str:
        return f"{self.kind} {self.part}.{self.name}"


def options_of(kind: str, part: str, target: Any) -> Iterator[Option]:
    provided = LINEN_FIELDS.union(PROVIDED.get(kind, ()))
    for name, p in arguments_of(target).items():
        if name in provided or p.kind is p.VAR_KEYWORD:
            continue
        hint = OPTAX_OPTIONS.get(name, p.annotation) if kind == "optimizer" else None
        yield Option(kind, part, name, p.annotation if hint is None else hint)


def every_option() -> Iterator[Option]:
    for kind in set(TABLES) - {"encoder with pretrained weights"}:
        for part in TABLES[kind]:
            target = load_part(kind, part, "x")
            if callable(target):
                yield from options_of(kind, part, target)
    yield from options_of("group", "group", ParameterGroupSpec)
    yield from options_of("mis", "mis", IntegrationScoreSpec)
    for name, field in FIELDS.items():
        yield Option("config", "config", name, field.hint)
    for name, hint in MEMBERS.items():
        yield Option("config", "config", name, hint)


OPTIONS = sorted(every_option(), key=str)


def leaves(hint: Any, marks: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple]]:
    """Every plain type in a hint, with the marks of `Annotated` around it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        yield from leaves(arguments[0], (*marks, *arguments[1:]))
    elif origin in (Union, types.UnionType):
        for one in arguments:
            yield from leaves(one, marks)
    elif origin in (tuple, list, Sequence):
        for one in arguments:
            if one is not Ellipsis:
                yield from leaves(one, marks)
    elif origin in (dict, Mapping):
        yield from leaves(arguments[1], marks)
    else:
        yield hint, marks


def numeric(option: Option) -> bool:
    return any(leaf in (int, float) for leaf, _ in leaves(option.hint))


NUMERIC = [o for o in OPTIONS if numeric(o) and o.name not in OWN_OPTIONS]


def test_the_walk_finds_the_options():
    found = {str(option) for option in NUMERIC}
    assert len(found) > 200
    assert {
        *("model cfn_sr.num_heads", "encoder bert.epsilon", "loss info_nce.scale"),
        *("optimizer adam.b1", "dataset digits.missing_rate", "mis mis.weights"),
        *("fusion tensor_convolution.channels", "config config.optim.learning_rate"),
        *("augmentation image.crop", "schedule cosine.warmup_steps"),
    } <= found


def test_a_number_declares_its_range():
    undeclared = [
        str(option)
        for option in NUMERIC
        for leaf, marks in leaves(option.hint)
        if leaf in (int, float) and not any(isinstance(m, Range) for m in marks)
    ]
    assert not undeclared


def test_a_name_declares_what_it_names():
    """A string is a choice, a modality, a name of an output, or is in `FREE`."""
    undeclared = []
    for option in OPTIONS:
        for leaf, marks in leaves(option.hint):
            declared = any(isinstance(m, HasEncoder | NotEmpty) for m in marks)
            free = option.name in (FIELDS_FREE if option.kind == "config" else FREE)
            if leaf in (str, Path) and not declared and not free:
                undeclared.append(str(option))
    assert not undeclared


@pytest.mark.parametrize("kind", ["model", "fusion", "loss"])
def test_modalities_are_marked(kind):
    """Every option whose name is that of modalities is checked against the encoders."""
    words = ("modality", "modalities", "modality_order", "source", "attended_modality")
    found = [o for o in OPTIONS if o.kind == kind and o.name in words]
    assert len(found) > 2
    for option in found:
        assert metadata(option.hint, HasEncoder), option


def values_of(option: Option, value: Any) -> Any:
    """A value, or a tuple of it as long as the option's."""
    hint = option.hint
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (tuple, list, Sequence):
        length = len([one for one in get_args(hint) if one is not Ellipsis])
        return (value,) * length
    return value


def error_for(option: Option, value: Any) -> ConfigError | None:
    """The error that a value of an option has, before its part is built."""
    value, where = values_of(option, value), f"config.{option.kind}"
    try:
        if option.kind == "config":
            check_type(f"{where}.{option.name}", value, option.hint)
            return None
        target = {"group": ParameterGroupSpec, "mis": IntegrationScoreSpec}.get(
            option.kind
        ) or load_part(option.kind, option.part, "x")
        types = OPTAX_OPTIONS if option.kind == "optimizer" else {}
        others = [o.name for o in OPTIONS if o.name != option.name]
        provided = PROVIDED.get(option.kind, ())
        offered = (*OFFERED.get(option.kind, ()), *others)
        given = {option.name: value}
        check_options(target, given, where, provided, offered, types)
    except ConfigError as error:
        return error
    return None


def test_a_value_that_no_option_takes_is_one_error():
    for option in NUMERIC:
        for value in NEVER:
            error = error_for(option, value)
            assert error is not None, (str(option), value)
            assert error.code in ("C10", "C11"), error
            assert f"config.{option.kind}.{option.name}=" in str(error)
            assert len(str(error)) < 600
            assert error.fix or error.code == "C11"


def test_signs_and_fractions():
    for option in NUMERIC:
        accepts = lambda value, option=option: error_for(option, value) is None
        whole = all(leaf is not float for leaf, _ in leaves(option.hint))
        if option.name not in SIGNED:
            assert not accepts(-1 if whole else -1.0), option
        if option.name.endswith(FRACTIONS):
            assert not accepts(2.0) and accepts(0.5), option
        if option.name.endswith(SIZES):
            assert not accepts(2**31 - 1), option
        if option.name.endswith("temperature") or option.name == "scale":
            assert not accepts(0.0), option


def changed(word: str, field: str, value: Any) -> ConfigDict:
    config = small_configs.small(word)
    *groups, last = field.split(".")
    level = config
    for group in groups:
        level = level[group]
    with level.ignore_type():
        level[last] = value
    return config


@pytest.mark.parametrize(
    ("word", "field", "value", "code", "expected"),
    [
        ("cfn_sr", "model.num_heads", 3, "C10", "does not divide config.model.hidden"),
        ("cfn_sr", "model.attended_modality", "smell", "C13", "'smell'"),
        ("cfn_sr", "losses.task.weight", -1.0, "C10", "at least 0"),
        ("cfn_sr", "losses.task.weight", 0.0, "C10", "every term is 0"),
        ("cfn_sr", "losses.task.class_weights", (0.0,) * 3, "C10", "is not 0"),
        ("cfn_sr", "optim.learning_rate", 1e300, "C10", "float32 has"),
        ("cfn_sr", "optim.learning_rate", 1e-320, "C10", "float32 has"),
        ("cfn_sr", "seeds", 2**31 - 1, "C10", "at most 10000"),
        ("mea", "model.modality_order", ("text", "audio"), "C22", "does not match"),
        ("mea", "model.modality_order", ("text", "text", "audio"), "C10", "once"),
        ("mea", "model.modality_order", ("zzz",), "C13", "'zzz'"),
        ("mea", "losses.disparity.modalities", ("text", "text"), "C10", "once"),
        ("mcl_mcf", "model.levels", (9,), "C11", "values out of 1, 2, 3"),
        ("mcl_mcf", "model.levels", (1, 1), "C10", "once"),
        ("mcl_mcf", "losses.level1.pairs", (), "C10", "at least one"),
        ("hetero_fusion_net", "losses.heads.modalities", ("zzz",), "C13", "'zzz'"),
        ("of_cmaer_cat", "losses.contrastive.temperature", 0.0, "C10", "config.losses"),
    ],
)  # fmt: skip
def test_a_config_is_refused_while_it_is_resolved(word, field, value, code, expected):
    with pytest.raises(ConfigError) as caught:
        resolve(changed(word, field, value))
    assert caught.value.code == code
    assert expected in str(caught.value)
    assert field in str(caught.value) or expected == "every term is 0"


@pytest.mark.parametrize("digits", [400, 5000])
@pytest.mark.parametrize("field", ["seed", "model.hidden_dim", "data.missing_seed"])
def test_an_integer_of_many_digits_is_refused(digits, field):
    config = changed("cfn_sr", "seed", 10**digits)
    config = changed("cfn_sr", field, 10**digits) if field != "seed" else config
    with pytest.raises(ConfigError) as caught:
        resolve(config)
    assert caught.value.code in ("C10", "C11") and f"{field}=" in str(caught.value)


def test_the_last_seed_is_one_that_jax_takes():
    resolve(changed("cfn_sr", "seed", 2**31 - 1))
    config = changed("cfn_sr", "seed", 2**31 - 1)
    config.seeds = 2
    with pytest.raises(ConfigError, match="the last of 2 seeds is 2147483648"):
        resolve(config)


def test_parts_of_other_packages_may_have_plain_types():
    config = tiny_dataset.config()
    config.data.endless = (-1, 2)
    assert resolve(config).data.dataset.options["endless"] == (-1, 2)
