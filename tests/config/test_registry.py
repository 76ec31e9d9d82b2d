"""Short names are import paths of what exists, and other packages have import paths."""

import pkgutil
import subprocess
import sys

import pytest
import tiny_dataset

from mmfusion_jax.config.registry import TABLES, check_name, load_part
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.encoders.feature_tokens import FeatureTokens
from mmfusion_jax.errors import ConfigError

EVERY = [(kind, name) for kind, table in TABLES.items() for name in table]


class MyEncoder(FeatureTokens):
    """An encoder of another package."""


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_short_name_is_something(kind, name):
    made = load_part(kind, name, "here")
    assert callable(made) or kind in ("encoder with pretrained weights", "metric")
    assert made is pkgutil.resolve_name(TABLES[kind][name])


def test_the_tables_do_not_import_what_they_name():
    code = "import mmfusion_jax.config.registry, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_name_is_short_or_an_import_path():
    check_name("encoder", "bert", "here")
    check_name("encoder", "my_package.encoders:Mine", "here")
    with pytest.raises(ConfigError, match=r"C03.*here='brt' is not a known encoder"):
        check_name("encoder", "brt", "here")
    for wrong in (3, "test_registry:", ":Thing", "a b:C", "./file.py:C"):
        with pytest.raises(ConfigError, match=r"C03[\s\S]*package.module:Name"):
            check_name("encoder", wrong, "here")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_package.at_all:Thing", "No module named 'no_such_package'"),
        ("test_registry:Nothing", "no attribute 'Nothing'"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(name, said):
    with pytest.raises(ConfigError) as info:
        load_part("encoder", name, "config.model.encoders.video.name")
    assert info.value.code == "C32" and said in str(info.value)
    assert "config.model.encoders.video.name" in str(info.value)


def test_a_part_of_another_package_is_built_as_ours():
    asked = tiny_dataset.config()
    asked.model.encoders.video.name = "test_registry:MyEncoder"
    part = resolve(asked).model.encoders["video"]
    made = part.build(axis=None, dtype=None)
    assert isinstance(made, MyEncoder) and made.hidden_dim == 8
