"""Writes a labels.csv for GRID clips that cuts each clip to the word that is its label.

    python experiments/grid/make_labels.py GRID_FOLDER labels_digit.csv

GRID_FOLDER contains labels.csv (file, label, split) and align/*.align, one line per
word: start, end (1/25000 s) and the word. A clip is cut to the word and 0.1 s on either
side.
"""

import argparse
import csv
from pathlib import Path

UNITS_PER_SECOND = 25_000
MARGIN_S = 0.1


def write_labels(folder: Path, out: Path) -> None:
    """Writes `out`, with a line for every clip of the labels file in `folder`."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "split", "start", "end"])
        for row in rows:
            start, end = word_interval(folder, Path(row["file"]).stem, row["label"])
            writer.writerow([row["file"], row["label"], row["split"], start, end])


def word_interval(folder: Path, clip: str, label: str) -> tuple[float, float]:
    """Returns start and end of the word `label` in seconds, with the margin."""
    for line in (folder / "align" / f"{clip}.align").read_text("utf-8").splitlines():
        start, end, word = line.split()
        if word == label:
            return (
                round(max(int(start) / UNITS_PER_SECOND - MARGIN_S, 0), 3),
                round(int(end) / UNITS_PER_SECOND + MARGIN_S, 3),
            )
    raise SystemExit(f"{clip}: the alignment does not contain {label!r}")


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the GRID folder")
    parser.add_argument("out", type=Path, help="the labels file to write")
    options = parser.parse_args()
    write_labels(options.folder, options.out)


if __name__ == "__main__":
    main()
