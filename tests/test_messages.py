"""Messages show values of files, labels and configs only through `mmfusion_jax.errors`.

A message is a text with spaces in an f-string, or an argument of an error, of a log or
of a cell of a table. Every value in it is one of:

- a call of a formatter, such as `shown(label)`, or of a function on `FORMATTERS`;
- a number, with a format such as `{loss:.2f}`;
- a constant in capitals, or a name on one of the lists `PATHS`, `NUMBERS` and `TEXTS`.

So `{name}` and `{label!r}` are never allowed. An error and a log escape the control
characters of paths; `print` does not, so it prints an error, JSON or `printable(...)`.
"""

import ast

import pytest
from paths import ROOT

from mmfusion_jax import errors

FORMATTERS = {
    *("shown", "shown_name", "shown_path", "shorten", "join_names", "printable"),
    *("suggest", "type_name", "describe_exception"),
    *(
        "len",
        "count",
        "format_number",
        "format_percent",
        "format_size",
        "shown_size",
        "score",
        "seconds",
        "significant",
        "strftime",
    ),
    *("dumps", "escape"),
    *("cell", "quoted"),  # of the model card
}
"""Functions whose result is short and printable, or is JSON or a regex."""

WRITERS = {
    *("describe", "format_summary", "help_text", "summarize_skipped"),
    *("describe_seeds", "describe_start", "describe_terms", "plain_number"),
    *("content", "describe_unread", "shape_text", "_kind"),  # of feature files
    *(
        "_first_line",
        "_hint",
        "_install_hint",
        "_signal_name",
        "_step_cells",
    ),
    *(
        "amount",
        "output_name",
        "output_text",
        "place",
        "place_seen_from",
    ),  # of the testing kit
    *("given_option", "option_flag"),  # of options of a module
    *("suggest_dataset", "_suggest_field", "_usage_line", "_versions"),
}
"""Functions that return texts, which follow the rule themselves."""

PATHS = {"path", "file", "folder", "table", "workdir", "where", "subject"}
"""Names of paths, alone or with a line or split: the user copies them."""

NUMBERS = {
    *("b", "count", "counts", "fold", "folds", "high", "index", "indices", "k"),
    *("maximum", "minimum", "number", "seed", "shape", "shapes", "size", "step"),
    *("seeds", "steps", "total", "width"),
}
"""Names of integers, or of tuples of integers."""

TEXTS = {
    *("__name__", "__version__", "about", "args", "call", "choices", "code"),
    *("command", "date", "description", "export", "extra", "fallback", "fix", "help"),
    *("hint", "how", "kind", "layout", "line", "lines", "listed", "message", "mode"),
    *("more", "note", "part", "parts", "plugins", "problem", "reason", "row", "run"),
    *("separator", "sha256", "sign", "split", "splits", "strerror", "suffix"),
    *("title", "usage", "what", "when", "words"),
}
"""Names of texts of this library or of Python, whose own values are formatted."""

UNCHECKED = (
    "errors.py",  # the formatters
    "error_codes.py",  # Markdown
    "report",  # HTML, whose values are escaped there
    "data/datasets/digits/espeak_worker.py",  # its stderr goes through `shorten`
)

CONSTRUCTORS = {
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.UserError)
}
OUTPUTS = CONSTRUCTORS | {"print", "log", "warn", "add_row", "add_column", "Table"}
NUMERIC = tuple("defgGn%,xX")
FILES = [
    path
    for path in sorted((ROOT / "mmfusion_jax").rglob("*.py"))
    if not str(path.relative_to(ROOT / "mmfusion_jax")).startswith(UNCHECKED)
]


def last_name(node: ast.expr | None) -> str:
    """`c` of the expression `a.b.c`; "" for an expression that is not a name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def is_safe(node: ast.expr) -> bool:
    """Whether the rule of this file allows an expression in a message."""
    match node:
        case ast.Constant() | ast.JoinedStr():  # its values are checked on their own
            return True
        case ast.Call():
            return is_safe_call(node)
        case ast.IfExp(body=first, orelse=second) | ast.BinOp(left=first, right=second):
            return is_safe(first) and is_safe(second)
        case ast.BoolOp(values=values):
            return all(map(is_safe, values))
        case ast.Starred(value=value):
            return are_safe(value)
        case ast.Subscript(value=value):
            return is_safe(value)
        case ast.Attribute(value=owner, attr="name"):
            return last_name(owner) == "dtype"
    name = last_name(node)
    return name in PATHS | NUMBERS | TEXTS or (name != "" and name.isupper())


def is_safe_call(call: ast.Call) -> bool:
    match call:
        case ast.Call(func=ast.Attribute(attr="join"), args=[parts]):
            return are_safe(parts)
        case ast.Call(func=ast.Name(id="str"), args=[value]):
            return is_safe(value)
    return last_name(call.func) in FORMATTERS | WRITERS | CONSTRUCTORS


def are_safe(node: ast.expr) -> bool:
    """Whether all parts of a joined text are safe."""
    match node:
        case ast.GeneratorExp(elt=part) | ast.ListComp(elt=part):
            return is_safe(part)
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return all(map(is_safe, parts))
        case ast.Call(func=ast.Name(id="map"), args=[ast.Name(id="str"), values]):
            return is_safe(values)
        case ast.Call(func=ast.Name(id="map"), args=[function, _]):
            return last_name(function) in FORMATTERS
        case ast.Call(func=ast.Name(id="sorted"), args=[values]):
            return are_safe(values)
    return is_safe(node)


def is_number(value: ast.FormattedValue) -> bool:
    """Whether a format makes a value a number: it raises an error for a string."""
    parts = value.format_spec.values if value.format_spec else []
    last = parts[-1] if parts else None
    return isinstance(last, ast.Constant) and str(last.value).endswith(NUMERIC)


def is_output(node: ast.AST) -> bool:
    """Whether a call makes an error, or prints; `jnp.log` does not."""
    if not isinstance(node, ast.Call) or last_name(node.func) not in OUTPUTS:
        return False
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    return last_name(owner) not in ("jnp", "np", "math")


def is_printable(node: ast.expr) -> bool:
    """Whether an argument of `print` has no control characters: paths can have some."""
    if isinstance(node, ast.IfExp):
        return is_printable(node.body) and is_printable(node.orelse)
    if isinstance(node, ast.Call):
        return last_name(node.func) in {"printable", "dumps", *CONSTRUCTORS}
    return isinstance(node, ast.Constant) or last_name(node) == "error"  # a UserError


def unsafe_nodes(source: str) -> list[ast.expr]:
    """Every value that the rule does not allow."""
    tree, found = ast.parse(source), []
    calls = [node for node in ast.walk(tree) if is_output(node)]
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id == "print":
            found += [one for one in call.args if not is_printable(one)]
            continue
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        found += [one for one in given if not is_safe(one)]
    inside = {node for call in calls for node in ast.walk(call)}
    for text in ast.walk(tree):
        if isinstance(text, ast.JoinedStr) and (text in inside or is_prose(text)):
            found += [v.value for v in values_of(text) if not is_safe_value(v)]
    return found


def is_prose(text: ast.JoinedStr) -> bool:
    return any(" " in p.value for p in text.values if isinstance(p, ast.Constant))


def values_of(text: ast.JoinedStr) -> list[ast.FormattedValue]:
    return [part for part in text.values if isinstance(part, ast.FormattedValue)]


def is_safe_value(value: ast.FormattedValue) -> bool:
    return value.conversion == -1 and (is_number(value) or is_safe(value.value))


def unsafe(source: str) -> list[tuple[int, str]]:
    """Line and text of every value that the rule does not allow."""
    return sorted((node.lineno, ast.unparse(node)) for node in unsafe_nodes(source))


def test_messages_show_values_through_formatters():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {{{text}}}"
        for path in FILES
        for line, text in unsafe(path.read_text("utf-8"))
    ]
    assert not found


def test_no_console_reads_markup():
    """A class named "[red]" would change the color, "[/red]" would raise an error."""
    consoles = [
        (path, {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords})
        for path in sorted((ROOT / "mmfusion_jax").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and last_name(node.func) == "Console"
    ]
    assert consoles
    assert not [path for path, given in consoles if given.get("markup") != "False"]


@pytest.mark.parametrize(
    "value",
    ["name", "name!r", "x.label", "f(label)", "x:>9", "', '.join(names)", "names[0]"],
)
def test_the_rule_finds_raw_values(value):
    assert unsafe(f'message = f"the label {{{value}}} is unknown"')
    assert unsafe(f'DataError("D41", f"{{{value}}}")')
    assert unsafe(f'table.add_row("label", {value.split(":")[0].split("!")[0]})')


@pytest.mark.parametrize(
    "value", ["shown(name)", "path", "x:.2f", "LAYOUT", "', '.join(map(shown, names))"]
)
def test_the_rule_allows_formatted_values(value):
    assert not unsafe(f'message = f"the label {{{value}}} is unknown"')
    assert not unsafe(f'name = f"loss/{{name}}"  # {value}')
