"""Runs the properties of a part, and reports all that do not hold."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmfusion_jax.errors import describe_exception, join_names, shorten, shown_name
from mmfusion_jax.user_code import code_location


class CounterexampleError(Exception):
    """A property does not hold; the text completes the sentence "<part>: ..."."""


class NotCheckedError(Exception):
    """A property cannot be checked; the text is the reason."""


@dataclasses.dataclass(frozen=True)
class Report:
    """The properties that were checked, and those that were not.

    Example:
        >>> import mmfusion_jax as mmf
        >>> held = ("parameters", "masked values")
        >>> reasons = {"bfloat16": "it does not have the option dtype"}
        >>> print(mmf.testing.Report("MyGate", held, reasons))
        MyGate: 2 properties hold
          parameters
          masked values
        not checked:
          bfloat16: it does not have the option dtype

    Attributes:
        part: Name of the part.
        checked: Properties that hold.
        not_checked: Property -> reason.
    """

    part: str
    checked: tuple[str, ...]
    not_checked: Mapping[str, str]

    def __str__(self) -> str:
        count = len(self.checked)
        what = "property holds" if count == 1 else "properties hold"
        lines = [f"{shown_name(self.part)}: {count} {what}"]
        lines += [f"  {shown_name(title)}" for title in self.checked]
        if self.not_checked:
            lines.append("not checked:")
        lines += [
            f"  {shown_name(title)}: {reason}"
            for title, reason in self.not_checked.items()
        ]
        return "\n".join(lines)


def run_properties(
    part: str, case: Any, properties: Sequence[Callable[[Any], None]]
) -> Report:
    """Runs all properties on a part.

    Args:
        part: Name of the part.
        case: The part with its inputs, the argument of every property.
        properties: Functions that raise `CounterexampleError` or `NotCheckedError`, or
            anything that the part raises. If the first does not hold, the others do not
            run.

    Returns:
        The report, if all hold.

    Raises:
        AssertionError: Some do not hold; one sentence for each.
    """
    checked, not_checked, failures = [], {}, []
    raised: dict[str, list[str]] = {}
    cause: Exception | None = None
    for check in properties:
        title = check.__name__.replace("_", " ")
        try:
            check(case)
        except NotCheckedError as reason:
            not_checked[title] = str(reason)
        except CounterexampleError as error:
            problem = str(error)
            failures.append(f"{shown_name(part)}: {problem}")
        except Exception as error:  # a part may raise anything
            raised.setdefault(described(error), []).append(title)
            cause = cause or error
        else:
            checked.append(title)
        if (failures or raised) and check.__name__ == properties[0].__name__:
            break
    failures += [_exceptions(part, *one) for one in raised.items()]
    if failures:
        raise AssertionError("\n".join(failures)) from cause
    return Report(part, tuple(checked), not_checked)


def _exceptions(part: str, problem: str, titles: Sequence[str]) -> str:
    """Returns a sentence: one mistake raises the same exception in many properties."""
    sentence = f"{shown_name(part)}: {shorten(titles[0])} raises {problem}"
    return sentence + (f"; also in {join_names(titles[1:])}" if titles[1:] else "")


def described(error: BaseException) -> str:
    """Returns an exception of a part with the line of code that raised it."""
    problem, where = describe_exception(error), code_location(error)
    return f"{problem} ({where})" if where else problem


def check_is_object(part: Any, what: str) -> None:
    """Raises TypeError for a class that is passed instead of an object of it."""
    if isinstance(part, type):
        name = part.__name__
        raise TypeError(
            f"{shown_name(name)} is a class, not {what}: pass {shown_name(name)}(...)"
        )
