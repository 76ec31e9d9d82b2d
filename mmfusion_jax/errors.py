"""User errors: one message format, and one exit code for each kind of error.

A message has one to four lines: what is wrong and where, then how to fix it. Every
exception here ends a command with its exit code; any other exception is a bug.
"""

import difflib
import os
import reprlib
from collections.abc import Iterable
from typing import Any, ClassVar

SHOWN_LENGTH = 60
"""Maximum number of characters of a value or a name in a message."""

TEXT_LENGTH = 300
"""Maximum number of characters of a text of another library in a message."""

LIST_LENGTH = 800
"""Maximum number of characters of a list of names in a message."""

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, SHOWN_LENGTH, SHOWN_LENGTH


def shown(value: Any) -> str:
    """Returns the repr of a value for a message: cut, control characters escaped.

    Names and values of files come from strangers. A message must not be longer because
    a name in a file is, and must not send escape sequences to a terminal.

    Args:
        value: Any value, such as a name in a file, a label or the value of a flag. A
            NumPy scalar is shown like a Python number or string.
    """
    if isinstance(value, str):
        value = str(value)
    elif type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python does not write integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 2 * SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}..."


def shown_name(name: Any) -> str:
    """Returns a name without quotes: cut, control characters escaped.

    Args:
        name: Name that is a part of a field or flag, such as the name of a loss in
            "config.losses.NAME.weight", or a cell of a table.
    """
    return shorten(name, SHOWN_LENGTH)


def shown_path(path: str | os.PathLike[str]) -> str:
    """Returns the repr of a path, never cut: the user must be able to copy it."""
    return repr(os.fspath(path))


def shorten(text: Any, length: int = TEXT_LENGTH) -> str:
    """Returns a text of one line: cut, control characters and line breaks escaped.

    Args:
        text: Text of another library, which can contain names from a file, such as an
            exception.
        length: Maximum number of characters.
    """
    text = "".join(
        c if c.isprintable() else _escape(c) for c in str(text)[: length + 1]
    )
    return text if len(text) <= length else f"{text[: length - 3]}..."


def join_names(names: Iterable[Any], empty: str = "none") -> str:
    """Returns names with commas, each as by `shown_name`, up to `LIST_LENGTH`.

    Args:
        names: Names.
        empty: Text for no names.
    """
    names, parts, length = list(names), [], 0
    for name in names:
        length += len(part := shown_name(name)) + 2
        if length > LIST_LENGTH:
            return f"{', '.join(parts)} and {len(names) - len(parts)} more"
        parts.append(part)
    return ", ".join(parts) or empty


def printable(text: str) -> str:
    """Returns a text with its control characters escaped, except for line breaks."""
    # Messages contain names from files, which could move the cursor of a terminal or
    # change its title.
    if all(c.isprintable() or c == "\n" for c in text):
        return text
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class UserError(Exception):
    """Something outside the library is wrong, and the user can fix it.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     mmf.load_config("no_such_config")
        ... except mmf.UserError as error:
        ...     print(error.code, error.exit_code)
        C04 2

    Attributes:
        code: Letter of the kind and two digits, such as "D07"; a key of
            `error_codes.ERROR_CODES`.
        fix: Remedy, in a few words; "" if there is nothing to add.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, message: str, fix: str = ""):
        super().__init__(printable(message))
        self.code = code
        self.fix = printable(fix)

    def __str__(self) -> str:
        lines = [f"error[{self.code}] {self.args[0]}"]
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class ConfigError(UserError, ValueError):
    """C: a flag, a config file, a config field or a choice is wrong.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     mmf.load_config("no_such_config")
        ... except mmf.ConfigError as error:
        ...     print(error.code)
        C04
    """

    exit_code = 2


class MissingDependencyError(UserError):
    """E: the environment is incomplete, such as without an optional library.

    Example:
        >>> import mmfusion_jax as mmf
        >>> error = mmf.MissingDependencyError(
        ...     "E01", "x is not installed.", "pip install x"
        ... )
        >>> print(error)
        error[E01] x is not installed.
          fix: pip install x
    """

    exit_code = 2


class DataError(UserError):
    """D: a file, a label or a split is wrong.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     mmf.datasets.ravdess("no_such_folder")
        ... except mmf.DataError as error:
        ...     print(error.code)
        D40
    """

    exit_code = 3


class WeightsError(UserError):
    """W: a file of pretrained weights cannot be used.

    Example:
        >>> import mmfusion_jax as mmf
        >>> error = mmf.WeightsError("W01", "bert.safetensors does not exist.")
        >>> print(error)
        error[W01] bert.safetensors does not exist.
    """

    exit_code = 3


class DivergedError(UserError):
    """N: a loss, gradient or prediction is not finite.

    Example:
        >>> import mmfusion_jax as mmf
        >>> mmf.DivergedError("N01", "the loss is not finite.").exit_code
        4
    """

    exit_code = 4


class CheckpointError(UserError):
    """K: a checkpoint cannot be saved or used.

    Example:
        >>> import mmfusion_jax as mmf
        >>> mmf.CheckpointError("K01", "all checkpoints are corrupted.").exit_code
        5
    """

    exit_code = 5


class Interrupted(Exception):
    """A signal of the user or the system stopped the run; everything is saved.

    Example:
        >>> import mmfusion_jax as mmf
        >>> print(mmf.Interrupted(step=40, exit_code=130))
        saved step 40; rerun the same command to resume

    Attributes:
        step: Step that was saved.
        exit_code: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, step: int, exit_code: int):
        super().__init__(f"saved step {step}; rerun the same command to resume")
        self.step = step
        self.exit_code = exit_code


def suggest(word: str, known: Iterable[str]) -> str:
    """Returns a hint such as "did you mean 'audio'?", or all names if none is close.

    Args:
        word: Word that the user typed.
        known: Names that would be accepted. Those that begin with the word, such as
            "acc2_non0" for "acc2", are preferred to those of similar spelling.
    """
    names = sorted(known)
    if close := _longer(word, names) or [closest(word, names, cutoff=0.6)]:
        listed = " or ".join(repr(name) for name in close if name)
        if listed:
            return f"did you mean {listed}?"
    return f"known: {join_names(names)}"


def _longer(word: str, names: Iterable[str]) -> list[str]:
    """Returns up to four names that consist of a word and more."""
    names = [name for name in names if len(name) <= SHOWN_LENGTH]
    if any(name.casefold() == word.casefold() for name in names):
        return []
    start = _letters(word)
    found = [
        name
        for name in names
        if start
        and _letters(name).startswith(start)
        # A part of a word, such as "au" of "audio", is not the beginning of a name.
        and any(_letters(name[:k]) == start for k, c in enumerate(name) if c in "_-.:")
    ]
    return found[:4]


def _letters(name: str) -> str:
    """Returns a name in lower case, without separators."""
    return "".join(c for c in name[:SHOWN_LENGTH].casefold() if c not in "_-")


def closest(word: str, names: Iterable[str], cutoff: float) -> str:
    """Returns the name that is most similar to a word; "" if none is similar enough.

    Args:
        word: The word.
        names: Names; those longer than `2 * SHOWN_LENGTH` are ignored, because the
            comparison of two long names takes minutes.
        cutoff: Minimum ratio of `difflib.SequenceMatcher`, 0 to 1.
    """
    word, short = (
        word[: 2 * SHOWN_LENGTH],
        [n for n in names if len(n) <= 2 * SHOWN_LENGTH],
    )
    if same := [n for n in short if n.casefold() == word.casefold()]:
        return same[0]
    return next(iter(difflib.get_close_matches(word, short, n=1, cutoff=cutoff)), "")


def missing_dependency(module: str, extra: str, what: str) -> MissingDependencyError:
    """Returns the error for an optional library that is not installed.

    Args:
        module: Module that could not be imported.
        extra: Extra of this package that installs it.
        what: Task that requires it, such as "decoding clips".
    """
    return MissingDependencyError(
        "E01",
        f"{what} requires {module}, which is not installed.",
        f'pip install "mmfusion_jax[{extra}]"',
    )


def describe_exception(error: BaseException) -> str:
    """Returns the type and the first line of an exception, cut to `TEXT_LENGTH`."""
    return shorten(": ".join([type(error).__name__, *message_lines(error)[:1]]))


def message_lines(error: BaseException) -> list[str]:
    """Returns the lines of the message of an exception that are not empty."""
    try:
        text = str(error)
        # A KeyError shows the repr of its message, and an error made of one too.
        if isinstance(error, LookupError | AttributeError) and "\\n" in text:
            text = text[1:-1].replace("\\n", "\n").replace("\\'", "'")
    except Exception:  # a class of the user may fail to show itself
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def type_name(value: Any) -> str:
    """Returns what a value is, for a message, such as "an array"."""
    if value is None:
        return "None"
    is_array = hasattr(value, "shape") and hasattr(value, "dtype")
    return "an array" if is_array else f"an object of type {type(value).__name__}"
