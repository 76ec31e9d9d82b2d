"""Names of strangers in the output of the commands: short, printable, no markup.

Names of arrays, keys, labels, files and folders contain escape sequences, markup of
`rich` or thousands of characters.
"""

import csv

import numpy as np
import pytest
from feature_files import mmsa, npz, write
from groups import in_ci
from media_files import write_wav

from mmfusion_jax import __main__ as program
from mmfusion_jax.analysis.cost import Macs
from mmfusion_jax.commands import inspect
from mmfusion_jax.results.model_result import Parameters

ESCAPE = "\x1b[31m\x1b]0;owned\x07\x9b2J\u202e\r\b"
CR = "\r"
LONG = f"{ESCAPE}{'x' * 10_000}"
MARKUP = "[red]x[/red][/bold]"
LIMIT = 2000
"""Maximum number of characters of an error, whose paths are never cut."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def output(capsys, *words: str) -> tuple[int, str]:
    """Exit code and everything that a command prints, which must be printable."""
    code = program.run(words)
    out, err = capsys.readouterr()
    shown = out + err
    assert all(c.isprintable() or c == "\n" for c in shown), ascii(shown)
    return code, shown


def error(capsys, *words: str) -> str:
    """The error of a command, which must be short."""
    code, shown = output(capsys, *words)
    assert code in (2, 3) and len(shown) < LIMIT
    return shown


def check_and_import(capsys, file) -> str:
    """The error of both commands, without its fix."""
    found = error(capsys, "data", "import", str(file), "--dataset=mosi")
    found, again = (
        text.partition("  fix:")[0]
        for text in (found, error(capsys, "data", "check", str(file)))
    )
    assert found == again
    return found


@pytest.mark.parametrize(
    "name", in_ci([LONG, f"train_{LONG}", f"train_text{ESCAPE}"], f"train_text{ESCAPE}")
)
def test_members_of_an_npz(tmp_path, capsys, name):
    arrays = {name: np.zeros(3, "f4")}
    np.savez(tmp_path / "x.npz", **arrays)
    assert "D70" in check_and_import(capsys, tmp_path / "x.npz")


def test_a_member_of_an_npz_that_is_not_read(tmp_path, capsys):
    arrays = {**npz(), f"train_{ESCAPE}{'x' * 200}": np.array([{}], object)}
    np.savez(tmp_path / "x.npz", **arrays)
    assert "requires pickle" in check_and_import(capsys, tmp_path / "x.npz")


@pytest.mark.parametrize("where", in_ci(["splits", "fields"], "fields"))
def test_keys_of_a_pickle(tmp_path, capsys, where):
    root = mmsa() if where == "fields" else {}
    if where == "fields":
        root["train"] = {f"{LONG}{i}": 0 for i in range(50)}
    else:
        root |= {f"{LONG}{i}": {} for i in range(50)}
    assert "D70" in check_and_import(capsys, write(tmp_path / "x.pkl", root))


def test_ids_of_a_pickle(tmp_path, capsys):
    root = mmsa()
    root["train"]["id"] = [f"{LONG}$_$1"] * 8
    root["valid"]["id"] = [f"{LONG}$_$2"] * 4
    file = str(write(tmp_path / "x.pkl", root))
    code, shown = output(capsys, "data", "check", file)
    assert code == 1 and "duplicate clips, such as '" in shown
    assert len(max(shown.splitlines(), key=len)) < 300
    root["valid"]["id"] = root["train"]["id"][:4]
    write(tmp_path / "x.pkl", root)
    assert "D73" in error(capsys, "data", "import", file, "--dataset=mosi")


def test_a_name_of_a_program_object_in_a_pickle(tmp_path, capsys):
    text = f"c{ESCAPE}{'x' * 10_000}\neval\n.".replace("\r", "").encode()
    (tmp_path / "x.pkl").write_bytes(text)
    check_and_import(capsys, tmp_path / "x.pkl")


@pytest.mark.parametrize("name", [f"{ESCAPE}\nsecond line.pkl", f"{MARKUP}.pkl"])
def test_names_of_files_and_folders(tmp_path, capsys, name):
    name = name.replace("/", "_")
    assert check_and_import(capsys, tmp_path / name)  # it does not exist
    (tmp_path / name).write_bytes(b"not a feature file")
    assert check_and_import(capsys, tmp_path / name)
    folder = tmp_path / f"folder {name}"
    folder.mkdir()
    assert check_and_import(capsys, folder)
    (folder / f"{name}.pkl").write_bytes(b"")
    assert check_and_import(capsys, folder)
    output(
        capsys, "data", "import", str(write(folder / name, mmsa())), "--dataset=mosi"
    )
    output(capsys, "data", "list")


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ((f"{LONG.replace(CR, '')}.wav", "a"), "D42"),
        # A cell of several lines is one whose quotation mark is not closed.
        ((f"{ESCAPE}\nsecond line.wav", "a"), "D41"),
        (("one.wav", LONG), "D"),
        (("one.wav", MARKUP), "D"),
        (("two.wav", f"{'a' * 50}{ESCAPE.replace(CR, '')}"), "D07"),
    ],
    ids=range(5),
)
def test_rows_of_labels_csv(tmp_path, capsys, row, code):
    for name in ("one.wav", "two.wav"):
        write_wav(tmp_path / name)
    rows = [("one.wav", "a" * 50, start, start + 0.1) for start in range(5)]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        header = ("file", "label", "start", "end")
        csv.writer(file).writerows([header, *rows, (*row, 0.2, 0.3)])
    words = ("train", "--config=cfn_sr:clips", f"--config.data.data_dir={tmp_path}")
    assert f"error[{code}" in error(capsys, *words)


@pytest.mark.parametrize("name", [ESCAPE, MARKUP, LONG])
def test_names_in_tables(capsys, name):
    found = inspect.Inspection(
        config={"model": {"name": name}},
        model=name,
        data=name,
        data_read=True,
        steps_per_epoch=1,
        steps=2,
        parameters=Parameters(total=3, components={name: 3}),
        macs_per_example=Macs(total=3, components={name: 3}, open_loops=0),
        inputs={f"label {name}": "int32 (4,)"},
        outputs={name.replace("/", ""): "prediction (4, 2)"},
        bytes=inspect.Memory(parameters=12, statistics=0, optimizer=0, batch=0),
    )
    inspect.show(found)
    shown = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert len(shown) < 4 * LIMIT
    if name == MARKUP:
        assert shown.count("[red]") == 6  # heading, table of sizes, table of shapes
