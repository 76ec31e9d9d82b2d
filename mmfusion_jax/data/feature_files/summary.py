"""Formats the statistics of a feature file as lines of text."""

from collections.abc import Mapping
from typing import Any

from mmfusion_jax.data.feature_files.known_datasets import FEATURE_DATASETS
from mmfusion_jax.errors import shorten, shown_name

JSON = Any
COLUMNS: tuple[str, ...] = (
    "split",
    "examples",
    "modality",
    "features",
    "steps",
    "values",
    "NaN or infinite",
)


def header_lines(found: Mapping[str, JSON]) -> list[str]:
    """Returns the name, layout and checksum of the file."""
    what = f"recognized: {shorten(found['known'])}"
    if not found["known"]:
        what = "not recognized: not a published checksum"
    title = (
        FEATURE_DATASETS[found["name"]].title
        if found["name"] in FEATURE_DATASETS
        else "unknown dataset"
    )
    path = found["file"]
    return [
        f"{path}: {title}, layout {shorten(found['layout'])}",
        f"  {what}; SHA-256 {shorten(found['sha256'])}",
    ]


def table_lines(found: Mapping[str, JSON]) -> list[str]:
    """Returns a table of the sizes, lengths and ranges of every modality."""
    rows = [COLUMNS]
    for split, part in found["report"].items():
        for name, stats in part["inputs"].items():
            minimum, median, maximum = stats["steps"]
            low, high = stats["low"], stats["high"]
            rows.append(
                (
                    split,
                    str(part["count"]),
                    name,
                    str(stats["features"] or "ids"),
                    f"{minimum} to {maximum}, median {median:g}",
                    "none" if low is None else f"{low:.4g} to {high:.4g}",
                    str(stats["nan"] + stats["infinite"]),
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  " + "  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True))
        for row in rows
    ]
    for split, counts in found.get("repaired", {}).items():
        listed = ", ".join(
            f"{count} of {shown_name(name)}" for name, count in counts.items()
        )
        lines.append(f"  {split}: NaN and infinite values set to 0: {listed}")
    return [line.rstrip() for line in lines]
