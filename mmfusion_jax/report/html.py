"""Builds HTML; everything that is not marked as HTML is escaped."""

import html
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Text that is HTML and is not escaped."""


def tag(name: str, *children: Any, **attributes: Any) -> Html:
    """Creates an element; escapes attributes and children that are not Html.

    Args:
        name: Tag name.
        children: Strings, Html or numbers.
        attributes: A trailing "_" is dropped and other "_" become "-", so that `class_`
            and `aria_label` can be written; None omits an attribute.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(parts: Iterable[Any]) -> Html:
    """Concatenates parts; escapes those that are not Html."""
    return Html("".join(_plain(part) for part in parts))


def table(
    head: Sequence[Any], rows: Iterable[Sequence[Any]], caption: str, kind: str = ""
) -> Html:
    """Creates a table whose first column contains row headers.

    Args:
        head: Column headers.
        rows: Cells; Html that begins with <td or <th is used as the cell itself.
        caption: Caption of the table.
        kind: CSS classes.
    """
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = [
        tag("tr", *(_cell(cell, first=not i) for i, cell in enumerate(row)))
        for row in rows
    ]
    parts = tag("thead", top), tag("tbody", *body)
    named = tag("table", *parts, class_=kind or None, aria_label=caption)
    # A wide table scrolls separately, also by keyboard; its caption does not.
    frame = {"role": "region", "aria_label": caption, "tabindex": 0}
    return join(
        [
            tag("p", caption, class_="caption"),
            tag("div", named, class_="scroll", **frame),
        ]
    )


def _cell(cell: Any, *, first: bool) -> Html:
    if isinstance(cell, Html) and cell.startswith(("<td", "<th")):
        return cell
    return tag("th", cell, scope="row") if first else tag("td", cell)


def _plain(part: Any) -> str:
    return part if isinstance(part, Html) else html.escape(str(part))
