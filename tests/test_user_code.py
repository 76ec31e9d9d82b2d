"""Whose code raised an exception."""

import os
import sys
import sysconfig
import traceback
from types import FunctionType

import numpy as np
import pytest
from package_code import as_package_code

import mmfusion_jax
from mmfusion_jax.user_code import code_location, find_origin, frames_of, owner_of

INSTALLED = "/venv/lib/python3.11/site-packages"


@pytest.mark.parametrize(
    ("file", "packages", "owner"),
    [
        (mmfusion_jax.__file__, (), "package"),
        (f"{INSTALLED}/theirs/model.py", (), "library"),
        (f"{INSTALLED}/theirs/model.py", ("theirs",), "user"),
        (f"{INSTALLED}/theirs.py", ("theirs",), "user"),
        (f"{INSTALLED}/theirs_too/model.py", ("theirs",), "library"),
        ("/usr/lib/python3/dist-packages/theirs.py", (), "library"),
        (os.__file__, (), "library"),
        (f"{sysconfig.get_path('stdlib')}/json/decoder.py", ("json",), "library"),
        ("/home/ada/mmfusion_jax/model.py", (), "user"),
        ("/home/ada/project/model.py", (), "user"),
    ],
)
def test_a_file_has_an_owner(file, packages, owner):
    assert owner_of(file, packages) == owner


def test_a_library_on_the_path_is_not_of_the_user(monkeypatch):
    class Module:
        __path__ = ["/home/ada/checkouts/jax/jax"]  # noqa: RUF012

    file = "/home/ada/checkouts/jax/jax/_src/core.py"
    assert owner_of(file) == "user"
    monkeypatch.setitem(sys.modules, "jax", Module)
    assert owner_of(file) == "library"


def as_library_code(function):
    """A function whose frames are in a file of NumPy."""
    code = function.__code__.replace(co_filename=np.__file__)
    return FunctionType(code, globals(), function.__name__, None, function.__closure__)


def raised(function, *args) -> Exception:
    with pytest.raises(Exception) as info:  # noqa: B017, PT011
        function(*args)
    # The frame of this function is that of a test, not of a user.
    return info.value.with_traceback(info.value.__traceback__.tb_next)


def users(*args):
    raise KeyError("a")


@as_package_code
def calls(function):
    return function()


def test_a_call_of_the_user_is_the_user_s():
    origin = find_origin(raised(calls, users))
    assert [frame.function for frame in origin.frames] == ["users"]
    assert origin.reason == "KeyError: 'a'" and not origin.called_package


def test_a_library_below_the_user_is_the_user_s_and_below_the_package_is_not():
    @as_library_code
    def library():
        raise ValueError("b")

    assert find_origin(raised(calls, library)) is None
    origin = find_origin(raised(calls, lambda: library()))
    assert [frame.owner for frame in origin.frames] == ["user"]
    assert not origin.called_package


def test_the_package_below_the_user_is_a_call_of_the_user():
    origin = find_origin(raised(calls, lambda: calls(lambda: 1 / 0)))
    assert not origin.called_package
    failing = as_package_code(lambda: 1 / 0)
    assert find_origin(raised(calls, lambda: calls(failing))).called_package


def test_the_exception_that_a_library_replaces_is_found():
    @as_library_code
    def library():
        try:
            users()
        except KeyError:
            raise ValueError("reading failed")  # noqa: B904

    origin = find_origin(raised(calls, library))
    assert origin.reason == "KeyError: 'a'"


def test_an_exception_of_the_package_while_it_handles_another_is_a_bug():
    @as_package_code
    def package():
        try:
            users()
        except KeyError:
            return 1 / 0

    assert find_origin(raised(package)) is None


def test_a_cause_and_a_group_are_searched():
    @as_package_code
    def cause():
        try:
            users()
        except KeyError as error:
            raise RuntimeError("in a thread") from error

    @as_package_code
    def group():
        raise ExceptionGroup("two", [raised(calls, users), ValueError("c")])

    for function in (cause, group):
        origin = find_origin(raised(function))
        assert origin is not None and origin.reason == "KeyError: 'a'"


def test_a_loop_of_causes_ends():
    error, other = ValueError("a"), KeyError("b")
    error.__cause__, other.__cause__ = other, error
    assert find_origin(error) is None


def test_generated_code_is_left_out():
    space = {}
    exec(compile("def generated():\n    return 1 / 0\n", "<string>", "exec"), space)
    error = raised(calls, space["generated"])
    assert len(list(traceback.walk_tb(error.__traceback__))) == 2
    assert [frame.owner for frame in frames_of(error)] == ["package"]
    assert code_location(error) == ""
