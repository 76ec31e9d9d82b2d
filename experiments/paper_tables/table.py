"""Trains the rows of a table of a paper and prints the table.

    python experiments/paper_tables/table.py --table=cfn_sr_2 --seeds=3
    python experiments/paper_tables/table.py --table=mea_5 --list
    python experiments/paper_tables/table.py --table=mea_5 --only "w/o PSA Module"

Every row is one command, `python -m mmfusion_jax.main`, in a folder of its own; rows
without a finished run are printed as "not run". Interrupted runs resume, finished ones
are kept, and a row whose flags or config changed is trained anew. Further flags that
begin with --config. apply to all rows. The table is written beside this file, as JSON
and as Markdown.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

# experiments/ is not a package; a script only finds modules in its own folder.
sys.path.insert(0, str(Path(__file__).parents[1]))
from paper_report import Made, collect, finished_rows, markdown
from paper_rows import TABLES, PaperTable
from row_runs import RowRun, row_run, train_rows

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.results.json_file import write_json, write_text

FOLDER = Path(__file__).parent


def row_runs(
    table: PaperTable, data: str, runs: Path, flags: Sequence[str] = ()
) -> Made:
    """Returns the run of every row, or why the library does not have it.

    Args:
        table: The table.
        data: Word after the colon of the config.
        runs: Folder of the runs of all tables.
        flags: Flags for all rows.
    """
    made: dict[str, RowRun | str] = {}
    for row in table.rows:
        if row.absent:
            made[row.name] = row.absent
            continue
        own = [f"--config.{field}" for field in row.flags.split()]
        config = f"{table.config}.py:{data}{row.suffix}"
        try:
            made[row.name] = row_run(config, [*own, *flags], runs / table.config)
        except ConfigError as error:
            made[row.name] = str(error)
    return made


def show_rows(table: PaperTable, made: Made, seeds: int) -> None:
    """Prints every row with its state and its command."""
    for row in table.rows:
        run = made[row.name]
        if isinstance(run, str):
            print(f"{row.name}: not in this library: {run}")
        else:
            print(f"{row.name}: {run.state(seeds)}")
            print(f"    {shlex.join(run.command(seeds))}")


def parse_options() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=TABLES, required=True, help="the table")
    parser.add_argument("--data", default="digits", help="word after the colon")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/paper_tables"),
        help="folder of the runs",
    )
    parser.add_argument(
        "--only", nargs="+", action="extend", metavar="ROW", help="rows to train"
    )
    parser.add_argument(
        "--list", action="store_true", help="print the rows, train none"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print the commands, train none"
    )
    parser.add_argument(
        "--finished", action="store_true", help="train none, write the table"
    )
    parser.add_argument(
        "--output", type=Path, default=FOLDER, help="folder of the written table"
    )
    options, options.flags = parser.parse_known_args()
    if odd := [flag for flag in options.flags if not flag.startswith("--config.")]:
        parser.error(f"unknown argument {odd[0]}")
    names = [row.name for row in TABLES[options.table].rows]
    if odd := [name for name in options.only or () if name not in names]:
        parser.error(f"--only: unknown row {odd[0]!r}; known: {'; '.join(names)}")
    return options


def main() -> None:
    """Trains the rows, prints the table and writes it."""
    options = parse_options()
    table = TABLES[options.table]
    made = row_runs(table, options.data, options.runs, options.flags)
    if options.list:
        show_rows(table, made, options.seeds)
        return
    chosen = {
        name: run
        for name, run in made.items()
        if isinstance(run, RowRun) and name in (options.only or made)
    }
    if options.dry_run:
        for run in {run.folder: run for run in chosen.values()}.values():
            print(shlex.join(run.command(options.seeds)))
        return
    failed = {} if options.finished else train_rows(chosen, options.seeds)
    found = collect(table, made, failed)
    name, text = f"{options.table}_{options.data}", markdown(found)
    if finished_rows(found):  # an empty table must not replace one of earlier runs
        write_json(options.output / f"{name}.json", found)
        write_text(options.output / f"{name}.md", text)
    print(text)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
