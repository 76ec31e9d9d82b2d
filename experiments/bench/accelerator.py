"""Checks and measures the library on a GPU or a TPU, in at most 8 minutes.

    python experiments/bench/accelerator.py                   # again to continue
    python experiments/bench/accelerator.py --stages=op,paper # only the comparison
    python experiments/bench/accelerator.py --profile=FOLDER  # traces of the steps
    python experiments/bench/accelerator.py --tiny            # checks that it runs

Stages: op and paper compare values with those stored on a CPU; step measures the
training steps of the five papers at their shapes; form the forms of the grouped 3D
convolution; torch parts of the papers in JAX and PyTorch. Every row goes to a JSON file
at once. Called again, finished rows are kept and the others are measured. README.md
beside this file has how to read the table.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Before JAX is imported: PyTorch needs memory beside it.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
FOLDER = Path(__file__).resolve().parent
# The library of this checkout, which need not be installed.
sys.path[:0] = [str(FOLDER.parents[1]), str(FOLDER)]

import conv3d  # noqa: E402
import jax  # noqa: E402
import parity  # noqa: E402
from accelerator_info import header  # noqa: E402
from accelerator_table import markdown  # noqa: E402
from measured_rows import DIFFERS, FAILED, Row, RowFile, run_rows  # noqa: E402
from paper_steps import DIGITS, PAPERS, SMALL  # noqa: E402
from parity_cases import CASES  # noqa: E402
from step_times import measure_forms, measure_step  # noqa: E402
from torch_steps import SHAPES, measure_part  # noqa: E402

STAGES = ("op", "paper", "step", "form", "torch")
DTYPES = ("bfloat16", "float32")
PRECISIONS = (("bfloat16", "default"), ("float32", "highest"), ("float32", "default"))
"""Types and precisions of products, of the steps; `highest` is what configs have."""

FIRST_FORMS = ("stage1_block1", "stage3_block1")
"""Layers of the grouped convolution that are measured first."""

ESTIMATES = {"op": 2, "paper": 30, "step": 50, "form": 30, "torch": 60}
"""Stage -> seconds of a row, without as many of which it is not started."""

TINY_ESTIMATE = 5
TINY_LAYERS = [("stage1_block1", (2, 3, 3, 64), 1)]
FORM_BATCH = 8


def main() -> None:
    """Measures, writes JSON and prints a table; exits with 1 if values differ."""
    options = parse(sys.argv[1:])
    if options.write_reference:
        parity.write_reference(options.reference, CASES, DIGITS)
        return
    rows = list(planned(options))
    info = header(options.tiny)
    kind = _words(info["same"]["device"].lower())
    tiny = "_tiny" if options.tiny else ""
    path = options.out or FOLDER / f"accelerator_{kind}{tiny}.json"
    file = RowFile(path, info, [row.name for row in rows])

    def show() -> None:
        print(f"\n{markdown(file.content)}\n\n{path}", flush=True)

    run_rows(rows, file, 60 * options.minutes, show)
    show()
    bad = [row.name for row in rows if file.state(row.name) in (DIFFERS, FAILED)]
    sys.exit(1 if bad else 0)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="time of this call")
    parser.add_argument(
        "--stages",
        type=lambda text: text.split(","),
        default=list(STAGES),
        help=f"some of {','.join(STAGES)}",
    )
    parser.add_argument("--out", type=Path, help="JSON file; default: by the device")
    parser.add_argument("--profile", type=Path, help="folder for traces of the steps")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, for a CPU")
    parser.add_argument("--reference", type=Path, default=parity.REFERENCE)
    parser.add_argument(
        "--write_reference",
        action="store_true",
        help="compute the stored values, on a CPU",
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.stages) - set(STAGES):
        parser.error(f"--stages: {', '.join(sorted(unknown))} is not a stage.")
    if options.write_reference and jax.default_backend() != "cpu":
        parser.error("--write_reference needs a CPU: JAX_PLATFORMS=cpu.")
    return options


def planned(options: argparse.Namespace) -> Iterator[Row]:
    """Yields the rows of the stages, the most useful first."""
    order = (
        *compared(options, parity.VARIANTS[0]),
        *steps(options),
        *forms(options, FIRST_FORMS),
        *libraries(options),
        *(row for variant in parity.VARIANTS[1:] for row in compared(options, variant)),
        *forms(options),
    )
    seen = set()
    for row in order:
        stage = row.name.split("/")[0]
        if stage in options.stages and row.name not in seen:
            seen.add(row.name)
            yield row


def _words(text: str) -> str:
    """Returns a text as part of a file name."""
    return "".join(c if c.isalnum() else "_" for c in text)


def _row(options: argparse.Namespace, name: str, measure, *arguments) -> Row:
    """Returns a row; its arguments are bound here."""
    seconds = TINY_ESTIMATE if options.tiny else ESTIMATES[name.split("/")[0]]
    return Row(name, seconds, lambda: measure(*arguments))


def compared(options: argparse.Namespace, variant: parity.Variant) -> Iterator[Row]:
    """Yields the comparisons of one variant."""
    if not {"op", "paper"} & {*options.stages}:
        return
    stored = parity.read_reference(options.reference)
    for case in CASES:
        if variant.dtype in case.dtypes:
            name = f"op/{case.name}/{variant.name}"
            yield _row(options, name, parity.compare_op, case, variant, stored)
    for paper in DIGITS:
        name = f"paper/{paper.name}/{variant.name}"
        yield _row(options, name, parity.compare_paper, paper, variant, stored)


def steps(options: argparse.Namespace) -> Iterator[Row]:
    """Yields the training steps."""
    for dtype, precision in PRECISIONS:
        for paper in SMALL if options.tiny else PAPERS:
            numbers = f"{dtype} {precision}"
            title = f"{paper.name}: {paper.shapes}"
            name = f"step/{title}/{numbers}"
            folder = options.profile and options.profile / _words(title) / numbers
            yield _row(options, name, measure_step, paper, dtype, precision, folder)


def forms(
    options: argparse.Namespace, only: tuple[str, ...] | None = None
) -> Iterator[Row]:
    """Yields the layers of the grouped convolution."""
    layers = TINY_LAYERS if options.tiny else conv3d.layers(224)
    for dtype in DTYPES:
        for layer, shape, stride in layers:
            if only is None or layer in only:
                shape = (1 if options.tiny else FORM_BATCH, *shape)
                name = f"form/{layer} {'x'.join(map(str, shape))}/{dtype}"
                yield _row(options, name, measure_forms, shape, stride, dtype)


def libraries(options: argparse.Namespace) -> Iterator[Row]:
    """Yields the parts in both libraries."""
    for part, (shape, tiny) in SHAPES.items():
        for dtype in DTYPES:
            size = "x".join(map(str, tiny if options.tiny else shape))
            name = f"torch/{part} {size}/{dtype}"
            yield _row(options, name, measure_part, part, dtype, options.tiny)


if __name__ == "__main__":
    main()
