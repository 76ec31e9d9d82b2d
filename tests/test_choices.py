"""The names read from the source are those of the tables."""

import functools
import importlib

import pytest

from mmfusion_jax.config.registry import TABLES, choices


@pytest.mark.parametrize("kind", TABLES)
def test_names_are_those_of_the_table(kind):
    file, table = TABLES[kind]
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    module = importlib.import_module(f"mmfusion_jax.{name}")
    real = functools.reduce(getattr, table.split("."), module)
    assert choices(kind) == tuple(real)
    assert choices(kind)


def test_a_table_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(TABLES, "ghost", ("tasks.py", "GHOSTS"))
    with pytest.raises(ValueError, match="tasks.py has no table GHOSTS"):
        choices("ghost")
