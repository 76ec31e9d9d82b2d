"""Functions of tests that stand for code of the package."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from mmfusion_jax import main


def as_package_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function whose frames are in a file of the package."""
    assert isinstance(function, FunctionType)
    code = function.__code__.replace(co_filename=main.__file__)
    made = FunctionType(
        code,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made
