"""Writes a labels file for GRID clips that cuts each to the word that is its label.

    python experiments/grid/spans.py GRID_FOLDER labels_digit.csv

GRID_FOLDER holds labels.csv (file, label, split) and align/*.align, one line per word:
start, end (1/25000 s) and the word. The span is the word and 0.1 s on either side.
"""

import csv
import sys
from pathlib import Path

UNITS = 25_000
MARGIN = 0.1


def main(folder: Path, out: Path) -> None:
    """Writes `out` for every clip of the labels file in `folder`."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "split", "start", "end"])
        for row in rows:
            start, end = span(folder, Path(row["file"]).stem, row["label"])
            writer.writerow([row["file"], row["label"], row["split"], start, end])


def span(folder: Path, clip: str, word: str) -> tuple[float, float]:
    """Start and end of `word` in seconds, with the margin."""
    for line in (folder / "align" / f"{clip}.align").read_text("utf-8").splitlines():
        start, end, said = line.split()
        if said == word:
            return (
                round(max(int(start) / UNITS - MARGIN, 0), 3),
                round(int(end) / UNITS + MARGIN, 3),
            )
    raise SystemExit(f"{clip}: {word!r} is not in its alignment")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
