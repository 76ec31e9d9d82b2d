"""Finds the code of the user in the traceback of an exception.

A file is the user's unless it belongs to this package, to an installed package or to
Python. An installed package is the user's too if the config names a part of it. So a
mistake in a config file, in a part or in a library that a part calls differs from a
mistake of this package, although both pass through JAX, Flax and NumPy.
"""

import dataclasses
import linecache
import os
import re
import sys
import sysconfig
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import CodeType, TracebackType
from typing import Literal

from mmfusion_jax.errors import describe_exception

Owner = Literal["user", "package", "library"]

PACKAGE = Path(__file__).parent.name
_FOLDER = f"{Path(__file__).parent}{os.sep}"
_PYTHON = tuple(
    {f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib")}
)
_INSTALLED = re.compile(r".*[/\\](?:site|dist)-packages[/\\]([^/\\.]+)", re.DOTALL)
_LIBRARIES = ("absl", "chex", "flax", "grain", "jax", "jaxlib", "ml_collections")
_LIBRARIES += ("numpy", "optax", "orbax", "scipy", "sklearn")
"""Packages that are not the user's, also where a folder of PYTHONPATH has them."""

_STACKS_OF_JAX = ("JaxStackTraceBeforeTransformation", "UnfilteredStackTrace")
"""Types that JAX attaches to an exception as its cause, to carry a traceback."""

_CALLBACK = re.compile(r'^ *File "([^"\n]+)", line (\d+), in (.+)$', re.MULTILINE)
"""A line of the traceback of a callback, which JAX puts into a message."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """A line of code that an exception passed through.

    Attributes:
        file: Absolute path.
        line: Number of the line, from 1.
        function: Qualified name of the function, such as "Agreement.__call__"; ""
            where Python could not parse the line.
        owner: Whose code it is.
    """

    file: str
    line: int
    function: str
    owner: Owner

    @property
    def path(self) -> str:
        """The path, relative to the current folder if that is shorter."""
        return min(os.path.relpath(self.file), self.file, key=len)

    @property
    def source(self) -> str:
        """The text of the line, without indentation; "" if it cannot be read."""
        return linecache.getline(self.file, self.line).strip()


@dataclasses.dataclass(frozen=True)
class Origin:
    """The code of the user that raised an exception.

    Attributes:
        error: The exception of this code: the one that was caught, or its cause.
        frames: Its frames in code of the user, the innermost last.
        reason: Type and first line of the exception.
        called_package: True if the innermost frame is in this package, which the code
            of the user called.
    """

    error: BaseException
    frames: tuple[Frame, ...]
    reason: str
    called_package: bool = False


def find_origin(error: BaseException, packages: Collection[str] = ()) -> Origin | None:
    """Returns the code of the user that raised an exception.

    Its causes are searched too, and the exceptions of a group, so that an exception
    of a thread, of a generator or of a function that JAX transforms is found.

    Args:
        error: The exception.
        packages: Installed packages that are the user's, such as "my_package".

    Returns:
        The code; None if the exception did not pass through code of the user.
    """
    for one in _chain(error):
        if frames := frames_of(one, packages):
            named = error if type(one).__name__ in _STACKS_OF_JAX else one
            if origin := _origin(named, frames):
                return origin
        if origin := _origin_of_callback(one, packages):
            return origin
    return None


def frames_of(
    error: BaseException, packages: Collection[str] = ()
) -> tuple[Frame, ...]:
    """Returns the frames of an exception, the innermost last.

    Args:
        error: The exception, without its causes.
        packages: Installed packages that are the user's.
    """
    frames = [
        Frame(_absolute(code), line, code.co_qualname, _owner(code, packages))
        for code, line in _walk(error.__traceback__)
        # Generated code, such as "<string>", and Cython's do not have a file.
        if os.path.isfile(code.co_filename)
    ]
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        file = os.path.abspath(error.filename)
        frames.append(Frame(file, error.lineno, "", owner_of(file, packages)))
    is_stack = type(error).__name__ in _STACKS_OF_JAX
    return _below_package(frames) if is_stack else tuple(frames)


def code_location(error: BaseException, packages: Collection[str] = ()) -> str:
    """Returns where the code of the user raised an exception.

    Args:
        error: The exception.
        packages: Installed packages that are the user's.

    Returns:
        The innermost line, such as "my_package/model.py, line 7"; "" if the exception
        did not pass through code of the user.
    """
    origin = find_origin(error, packages)
    return location(origin.frames[-1]) if origin else ""


def location(frame: Frame) -> str:
    """Returns the file and the line of a frame."""
    return f"{frame.path}, line {frame.line}"


def owner_of(file: str, packages: Collection[str] = ()) -> Owner:
    """Returns whose code a file is.

    Args:
        file: Absolute path.
        packages: Installed packages that are the user's.
    """
    if file.startswith(_FOLDER):
        return "package"
    if match := _INSTALLED.match(file):
        return "user" if match[1] in packages else "library"
    libraries = (*_PYTHON, *_folders_of_libraries())
    return "library" if file.startswith(libraries) else "user"


def _below_package(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """Returns frames without those of the script that started this package.

    The tracebacks that JAX makes begin at the start of the program.
    """
    owners = [frame.owner for frame in frames]
    return tuple(frames[owners.index("package") if "package" in owners else 0 :])


def _owner(code: CodeType, packages: Collection[str]) -> Owner:
    return owner_of(_absolute(code), packages)


def _absolute(code: CodeType) -> str:
    return os.path.abspath(code.co_filename)


def _folders_of_libraries() -> list[str]:
    """Returns the folders of the libraries that this package uses."""
    modules = [sys.modules.get(name) for name in _LIBRARIES]
    paths = [path for module in modules for path in getattr(module, "__path__", ())]
    return [f"{path}{os.sep}" for path in paths]


def _walk(tb: TracebackType | None) -> Iterator[tuple[CodeType, int]]:
    """Yields the code and the line of every frame, the outermost first."""
    while tb is not None:
        # The line is unknown after some errors of the parser or the tracer.
        yield tb.tb_frame.f_code, tb.tb_lineno or 0
        tb = tb.tb_next


def _chain(error: BaseException) -> list[BaseException]:
    """Returns an exception and those that led to it, the last one first."""
    found, rest = [], [error]
    while rest:
        one = rest.pop(0)
        if any(one is other for other in found):
            continue
        found.append(one)
        if isinstance(one, BaseExceptionGroup):
            rest += one.exceptions
        if one.__cause__ is not None:
            rest.append(one.__cause__)
        elif one.__context__ is not None and not one.__suppress_context__:
            # An exception of this package, raised while another one was handled, is a
            # mistake of the handler. A library may replace an exception by its own.
            frames = frames_of(one)
            if not frames or frames[-1].owner != "package":
                rest.append(one.__context__)
    return found


def _origin(error: BaseException, frames: Sequence[Frame]) -> Origin | None:
    """Returns the code of the user among some frames; None if there is none."""
    mine = tuple(frame for frame in frames if frame.owner == "user")
    if not mine:
        return None
    own = [frame for frame in frames if frame.owner != "library"]
    called = own[-1].owner == "package"
    return Origin(error, mine, describe_exception(error), called)


def _origin_of_callback(
    error: BaseException, packages: Collection[str]
) -> Origin | None:
    """Returns the code of a callback, whose traceback JAX has only as a text."""
    # JaxRuntimeError; XlaRuntimeError in older versions.
    if not type(error).__name__.endswith("RuntimeError"):
        return None
    text = str(error)
    frames = [
        Frame(file, int(line), function, owner_of(os.path.abspath(file), packages))
        for file, line, function in _CALLBACK.findall(text)
    ]
    origin = _origin(error, _below_package(frames))
    if origin is None:
        return None
    after = text[max(match.end() for match in _CALLBACK.finditer(text)) :]
    lines = [x for x in after.splitlines() if x and not x.startswith((" ", "-"))]
    return dataclasses.replace(origin, reason=lines[0] if lines else origin.reason)
