"""HTML from values; whatever is not marked as HTML is escaped."""

import html
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Text that is markup already."""


def tag(name: str, *children: Any, **attributes: Any) -> Html:
    """An element; children that are not Html are escaped, as are all attributes.

    Args:
        name: of the element.
        children: strings, Html or numbers.
        attributes: a trailing "_" is dropped and "_" inside becomes "-", so that
            `class_` and `aria_label` can be written; None leaves one out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(parts: Iterable[Any]) -> Html:
    """The parts one after the other."""
    return Html("".join(_plain(part) for part in parts))


def table(
    head: Sequence[Any], rows: Iterable[Sequence[Any]], caption: str, kind: str = ""
) -> Html:
    """A table whose first column names the rows.

    Args:
        head: of the columns.
        rows: cells; one that is Html and begins with <td or <th stands as it is.
        caption: what the table shows.
        kind: CSS classes.
    """
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = [
        tag("tr", *(_cell(cell, first=not i) for i, cell in enumerate(row)))
        for row in rows
    ]
    parts = tag("thead", top), tag("tbody", *body)
    named = tag("table", *parts, class_=kind or None, aria_label=caption)
    # A wide table scrolls by itself, with the keyboard too; its caption stays.
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
