"""What was found in a file of features, as lines of text."""

from collections.abc import Mapping
from typing import Any

from mmfusion_jax.data.feature_files.known_datasets import FEATURE_DATASETS

JSON = Any
COLUMNS: tuple[str, ...] = (
    "split",
    "examples",
    "modality",
    "features",
    "steps",
    "values",
    "not finite",
)


def header_lines(found: Mapping[str, JSON]) -> list[str]:
    """Which file it is."""
    known = f"recognised: {found['known']}"
    if not found["known"]:
        known = "not recognised: its checksum is none of the published ones"
    title = (
        FEATURE_DATASETS[found["name"]].title
        if found["name"] in FEATURE_DATASETS
        else "unknown data set"
    )
    return [
        f"{found['file']}: {title}, layout {found['layout']}",
        f"  {known}; SHA-256 {found['sha256']}",
    ]


def table_lines(found: Mapping[str, JSON]) -> list[str]:
    """Sizes, lengths and ranges of every split and modality."""
    rows = [COLUMNS]
    for split, part in found["report"].items():
        for name, told in part["inputs"].items():
            least, median, most = told["steps"]
            low, high = told["low"], told["high"]
            rows.append(
                (
                    split,
                    str(part["count"]),
                    name,
                    str(told["features"] or "ids"),
                    f"{least} to {most}, median {median:g}",
                    "none" if low is None else f"{low:.4g} to {high:.4g}",
                    str(told["nan"] + told["infinite"]),
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  " + "  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True))
        for row in rows
    ]
    for split, counts in found.get("repaired", {}).items():
        said = ", ".join(f"{count} of {name}" for name, count in counts.items())
        lines.append(f"  repaired in {split}: values set to 0: {said}")
    return [line.rstrip() for line in lines]
