"""The figures of `accelerator.py` as Markdown."""

from collections.abc import Mapping
from typing import Any

from measured_rows import DONE

Rows = Mapping[str, Mapping[str, Any]]


def markdown(content: Mapping[str, Any]) -> str:
    """Returns the tables of all rows of a file."""
    same = content["same"]
    versions = ", ".join(f"{k} {v}" for k, v in same["packages"].items())
    parts = [
        f"{same['count']} x {same['device']} ({same['platform']}); driver "
        f"{content['driver'] or 'unknown'}; {versions}; commit "
        f"{same['commit'][:12] or 'unknown'}"
        + (", with changes" if content["changed_files"] != [""] else "")
        + (". Tiny shapes: not a measurement." if same["tiny"] else "."),
        _parity(content["rows"]),
        _steps(_of(content["rows"], "step")),
        _forms(_of(content["rows"], "form")),
        _libraries(_of(content["rows"], "torch")),
    ]
    return "\n\n".join(part for part in parts if part)


def _of(rows: Rows, stage: str) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """Returns the rows of a stage, by the rest of their name."""
    parts = {tuple(name.split("/")): row for name, row in rows.items()}
    return {name[1:]: row for name, row in parts.items() if name[0] == stage}


def _parity(rows: Rows) -> str:
    """Returns the agreement with the stored values, by variant."""
    lines = ["| values | state | rows | largest error | tolerance |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    groups: dict[tuple[str, str], list[tuple[str, Any]]] = {}
    for stage in ("op", "paper"):
        for (name, variant), row in _of(rows, stage).items():
            key = f"{stage}s, {variant}", row["state"]
            groups.setdefault(key, []).append((name, row["figures"]))
    for (title, state), found in groups.items():
        # NaN first: it is smaller than nothing and larger than nothing.
        worst = max(found, key=lambda f: _error(f[1]))
        cells = ["", ""]
        if "error" in worst[1] and "where" in worst[1]:
            error = f"{worst[1]['error']:.1e} ({worst[0]}, {worst[1]['where']})"
            cells = [error, f"{worst[1]['tolerance']:.0e}"]
        lines.append(f"| {title} | {state} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines) if groups else ""


def _error(figures: Mapping[str, Any]) -> float:
    """Returns the error of a row, infinite for NaN."""
    error = figures.get("error", 0.0)
    if isinstance(error, str):
        return 0.0
    return error if error == error else float("inf")


def _steps(rows: Mapping[tuple[str, ...], Mapping[str, Any]]) -> str:
    """Returns the training steps."""
    if not rows:
        return ""
    head = "step | batch | ms | examples/s | MFU | trace + compile s | "
    head += "compiled GB | peak GB | XLA TFLOP"
    lines = [f"| {head} |", "| --- " * 9 + "|"]
    for name, row in rows.items():
        figures = row["figures"]
        title = ", ".join(name)
        if row["state"] != DONE:
            lines.append(_undone(title, row, 8))
            continue
        batch = str(figures["batch"])
        if figures["too_large"]:
            batch += f" ({', '.join(map(str, figures['too_large']))} do not fit)"
        cells = [
            title,
            batch,
            _number(1e3 * figures["seconds"]),
            _number(figures["examples_per_s"]),
            "unknown" if figures["mfu"] is None else f"{100 * figures['mfu']:.1f} %",
            f"{figures['trace_s']:.1f} + {figures['compile_s']:.1f}",
            _number(figures["compiled_bytes"] / 1e9),
            _giga(figures["peak_bytes"]),
            _number((figures["xla_flops"] or 0) / 1e12),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _forms(rows: Mapping[tuple[str, ...], Mapping[str, Any]]) -> str:
    """Returns the forms of the grouped convolution."""
    return _by_column(
        rows,
        "Grouped 3x3x3 convolution, ms, forward / forward with gradients",
        lambda f: (
            f"{_number(1e3 * f['forward'])} / {_number(1e3 * f['with_gradients'])}"
        ),
    )


def _libraries(rows: Mapping[tuple[str, ...], Mapping[str, Any]]) -> str:
    """Returns the parts in JAX and PyTorch."""
    return _by_column(
        rows,
        "Forward and gradients, ms (s before the first call)",
        lambda f: f"{_number(1e3 * f['seconds'])} ({f['compile']:.1f})",
    )


def _by_column(rows: Mapping[tuple[str, ...], Any], title: str, cell: Any) -> str:
    """Returns a table whose columns are the figures of a row."""
    done = [row["figures"] for row in rows.values() if row["state"] == DONE]
    if not rows:
        return ""
    columns = list(dict.fromkeys(name for figures in done for name in figures))
    lines = [f"{title}.", "", f"| | {' | '.join(columns)} |"]
    lines.append("| --- " * (len(columns) + 1) + "|")
    for name, row in rows.items():
        if row["state"] != DONE:
            lines.append(_undone(", ".join(name), row, len(columns)))
            continue
        found = [row["figures"].get(column, {"error": ""}) for column in columns]
        cells = [f["error"] if "error" in f else cell(f) for f in found]
        lines.append(f"| {', '.join(name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _undone(title: str, row: Mapping[str, Any], columns: int) -> str:
    """Returns the line of a row without figures."""
    figures = row["figures"]
    reason = figures.get("reason") or str(figures.get("error", ""))[:80]
    state = f"{row['state']}: {reason}" if reason else row["state"]
    state = " ".join(state.replace("|", "/").split())
    return f"| {title} | {state} " + "| " * max(columns - 1, 0) + "|"


def _number(value: float) -> str:
    """Returns three significant digits."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _giga(size: int | None) -> str:
    """Returns bytes in GB."""
    return "" if size is None else _number(size / 1e9)
