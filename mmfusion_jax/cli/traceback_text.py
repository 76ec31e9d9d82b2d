"""Formats the frames of an exception for the screen: the user's, or those of a bug."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from mmfusion_jax.config.load import flatten
from mmfusion_jax.config.registry import is_import_path, package_of
from mmfusion_jax.errors import (
    UserError,
    describe_exception,
    join_names,
    message_lines,
    shorten,
    shown_name,
)
from mmfusion_jax.user_code import Frame, Origin, find_origin, frames_of, location

MAX_FRAMES = 5
"""Maximum number of frames of the user on the screen."""

MAX_BUG_FRAMES = 3
"""Maximum number of frames of a bug on the screen; the log has all of them."""

MAX_LINES = 4
"""Maximum number of further lines of a message, or exceptions of a group."""

LIBRARIES = {"mmfusion_jax", "flax", "jax", "numpy", "optax", "scipy", "sklearn"}
"""Packages of parts that are not the user's own code."""


@dataclasses.dataclass(frozen=True)
class NamedParts:
    """The parts that a config names by an import path.

    Attributes:
        paths: Field -> import path, such as "my_package.my_module:Name".
    """

    paths: Mapping[str, str]

    @property
    def packages(self) -> set[str]:
        """Their packages, without the libraries of this package."""
        return {package_of(path) for path in self.paths.values()} - LIBRARIES

    def fields_of(self, frames: Sequence[Frame]) -> list[str]:
        """Returns the fields of the part that some frames are in; none if unknown.

        Args:
            frames: Frames of the user, the innermost last.
        """
        # A class with the name of the part; if there is none, as in a function that
        # several parts of a file share, all parts of the file.
        for exact in (True, False):
            for frame in reversed(frames):
                fields = [k for k, v in self.paths.items() if _is_in(frame, v, exact)]
                if fields:
                    return fields
        return []


def named_parts(config: ConfigDict | None) -> NamedParts:
    """Returns the parts that a config names by an import path.

    Args:
        config: A config; None for none.
    """
    fields = flatten(config) if config else {}
    names = {k: str(v) for k, v in fields.items() if k.endswith(".name")}
    return NamedParts({k: v for k, v in names.items() if is_import_path(v)})


def error_text(error: UserError, config: ConfigDict | None = None) -> str:
    """Returns a user error, with the frames of the user's code that led to it.

    Args:
        error: The error. Its cause, if it has one, is an exception of this code.
        config: The config, for its parts.
    """
    parts = named_parts(config)
    origin = find_origin(error.__cause__ or error, parts.packages)
    if origin is None or _is_deliberate(error, origin):
        return str(error)
    first, *rest = str(error).split("\n  fix: ")
    lines = [first, *_further_lines(origin), *frame_lines(origin.frames)]
    fields = [
        f"config.{name.removesuffix('.name')}"
        for name in parts.fields_of(origin.frames)
    ]
    if fields and not any(field in first for field in fields):
        lines.append(f"  part: {join_names(fields)}")
    return "\n".join([*lines, *(f"  fix: {fix}" for fix in rest)])


def bug_text(error: BaseException, config: ConfigDict | None, path: Path) -> str:
    """Returns the message for a bug of this package, with the last frames.

    Args:
        error: The exception.
        config: The config, whose parts of other packages may be the cause.
        path: The log that has the entire traceback.
    """
    frames = frames_of(error)
    last = frames[-MAX_BUG_FRAMES:]
    if not any(frame.owner == "package" for frame in last):
        own = [frame for frame in frames if frame.owner == "package"]
        last = (*own[-1:], *last[1:])
    lines = [f"error[B00] bug: {describe_exception(error)}", *frame_lines(last)]
    if paths := named_parts(config).paths:
        lines.append(
            "  parts of other packages, which may be the cause: "
            f"{join_names(sorted(set(paths.values())))}"
        )
    lines.append(f"  please report it with its traceback, which is in {path}")
    return "\n".join(lines)


def frame_lines(frames: Sequence[Frame]) -> list[str]:
    """Returns the last frames as Python prints them, those of one line only once."""
    groups: list[tuple[Frame, int]] = []
    for frame in frames:
        # A generator expression has a frame of its own, and so has a recursive call.
        last, count = groups.pop() if groups else (frame, 0)
        if location(last) != location(frame):
            groups.append((last, count))
            last, count = frame, 0
        groups.append((last, count + (last == frame)))
    left_out = len(groups) - MAX_FRAMES
    lines = [f"  ... {left_out:d} frames above"] if left_out > 0 else []
    for frame, count in groups[-MAX_FRAMES:]:
        lines += _lines_of(frame, count)
    return lines


def _lines_of(frame: Frame, count: int) -> Iterator[str]:
    """Yields the lines of a frame that occurs `count` times in a row."""
    where = f'"{frame.path}", line {frame.line:d}'
    # Without a function where Python could not parse the line.
    yield f"  File {where}" + (
        f", in {shown_name(frame.function)}" if frame.function else ""
    )
    if frame.source:
        yield f"    {shorten(frame.source, 100)}"
    if count > 1:
        yield f"    (repeated {count} times)"


def _further_lines(origin: Origin) -> Iterator[str]:
    """Yields the other lines of a message, its notes and exceptions of its group."""
    error = origin.error
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions[:MAX_LINES]:
            yield f"  - {describe_exception(one)}"
        return
    if isinstance(error, UserError) or origin.reason != describe_exception(error):
        return  # shown already, or the text of a traceback
    lines = [x for note in getattr(error, "__notes__", ()) for x in note.splitlines()]
    # JAX and Grain note that they have hidden frames.
    notes = [x for x in lines if x and not x.startswith(("---", "For simplicity, "))]
    for line in [*message_lines(error)[1:], *notes][:MAX_LINES]:
        yield f"  {shorten(line)}"


def _is_deliberate(error: UserError, origin: Origin) -> bool:
    """Returns whether the code of the user raised an error for its own user."""
    if origin.error is error:  # an error of this package that this code raised
        return not origin.called_package
    # `get_config` raises ValueError for a word that it does not know.
    is_raise = origin.frames[-1].source.startswith("raise ")
    return error.code == "C04" and isinstance(origin.error, ValueError) and is_raise


def _is_in(frame: Frame, path: str, exact: bool) -> bool:
    """Returns whether a frame is in the file of a part, or in the part itself."""
    module, name = path.split(":")
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or frame.file != file:
        return False
    return not exact or frame.function == name or frame.function.startswith(f"{name}.")
