"""Every error shows how to fix it, has an entry in the table, and its exit code."""

import re
import time
from pathlib import Path

import numpy as np

import mmfusion_jax
from mmfusion_jax import errors
from mmfusion_jax.error_codes import ERROR_CODES, ERROR_KINDS, markdown

ROOT = Path(mmfusion_jax.__file__).parent
TABLE = ROOT / "error_codes.py"
DOCS = ROOT.parent / "docs" / "errors.md"
CODE = re.compile(r'["\[]([A-Z]\d\d)["\]]')
RAISED = re.compile(r'(\w+)\(\s*"([A-Z]\d\d)"')


def sources():
    return [p.read_text("utf-8") for p in sorted(ROOT.rglob("*.py")) if p != TABLE]


def test_every_code_is_in_the_table_and_is_used():
    used = {code for text in sources() for code in CODE.findall(text)}
    assert set(ERROR_CODES) - used == set()
    assert used - set(ERROR_CODES) == set()


def test_the_table_is_in_order_and_complete():
    assert list(ERROR_CODES) == sorted(ERROR_CODES)
    for key, entry in ERROR_CODES.items():
        assert key == entry.code
        assert key[0] in ERROR_KINDS
        assert 2 <= len(entry.title.split()) <= 7, key
        assert not entry.title.endswith("."), key
        assert entry.explanation.endswith("."), key


def test_the_exception_class_fits_the_letter_of_the_code():
    found = {pair for text in sources() for pair in RAISED.findall(text)}
    wrong = {
        (name, code)
        for name, code in found
        if hasattr(errors, name) and ERROR_KINDS[code[0]].error is not errors.UserError
        if getattr(errors, name) is not ERROR_KINDS[code[0]].error
    }
    assert len(found) > 50
    assert not wrong


def test_the_docs_are_generated_from_the_table():
    fix = "run python -m mmfusion_jax.error_codes > docs/errors.md"
    assert DOCS.read_text("utf-8") == markdown(), fix


def test_no_line_of_the_docs_becomes_a_list():
    """A paragraph whose line begins with a mark of Markdown is shown as a list."""
    marks = re.compile(r"^([*+>-]|\d+[.)]) ", re.MULTILINE)
    assert not marks.findall(markdown())


def test_an_error_is_one_line_and_its_fix():
    error = errors.DataError("D07", "labels.csv line 18: no.", "correct the row")
    assert str(error) == "error[D07] labels.csv line 18: no.\n  fix: correct the row"
    kinds = {kind: kind.exit_code for kind in errors.UserError.__subclasses__()}
    assert {k.__name__: v for k, v in kinds.items()} == {
        "ConfigError": 2,
        "MissingDependencyError": 2,
        "DataError": 3,
        "WeightsError": 3,
        "DivergedError": 4,
        "CheckpointError": 5,
    }


def test_an_interrupted_run_names_its_step_and_exit_code():
    error = errors.Interrupted(7, 143)
    assert str(error) == "saved step 7; rerun the same command to resume"
    assert error.exit_code == 143


def test_a_missing_library_is_shown_with_the_command_that_installs_it():
    error = errors.missing_dependency("av", "media", "decoding clips")
    assert str(error) == (
        "error[E01] decoding clips requires av, which is not installed.\n"
        '  fix: pip install "mmfusion_jax[media]"'
    )


def test_the_closest_name_is_suggested():
    assert errors.suggest("audoi", ["audio", "video"]) == "did you mean 'audio'?"
    assert errors.suggest("x", ["b", "a"]) == "known: a, b"
    assert errors.suggest("mosy", ["docs", "tests"]) == "known: docs, tests"


def test_names_that_begin_with_the_word_are_suggested_first():
    known = ["acc7", "acc2_non0", "acc2_has0", "f1_non0", "f1"]
    for word in ("acc2", "Acc-2"):
        hint = errors.suggest(word, known)
        assert hint == "did you mean 'acc2_has0' or 'acc2_non0'?"
    assert errors.suggest("F1", known) == "did you mean 'f1'?"
    assert errors.suggest("acc_7", known) == "did you mean 'acc7'?"
    assert errors.suggest("au", ["audio", "video"]) == "known: audio, video"


ESCAPE = "\x1b[2J\x9b31m\u202e\r\x00"


def test_a_value_in_a_message_is_short_and_printable():
    assert errors.shown("audio") == "'audio'" and errors.shown(3.5) == "3.5"
    assert len(errors.shown("x" * 10**6)) <= 70
    assert len(errors.shown(["x" * 100] * 1000)) <= 130
    assert errors.shown(ESCAPE).isprintable()


def test_names_texts_and_lists_are_short_and_printable():
    assert errors.shown_name("audio") == errors.shorten("audio") == "audio"
    assert len(errors.shown_name("x" * 10**6)) == 60
    assert len(errors.shorten("x" * 10**6)) == 300
    assert errors.shorten(f"{ESCAPE}\n").isprintable()
    assert errors.join_names(["a", 2]) == "a, 2" and errors.join_names([]) == "none"
    listed = errors.join_names(["x" * 10**4] * 1000)
    assert len(listed) < 830 and listed.endswith("xxx... and 988 more")
    assert errors.join_names([ESCAPE]).isprintable()


def test_a_path_is_shown_whole():
    assert errors.shown_path(Path("a", "x" * 200)) == f"'a/{'x' * 200}'"
    assert errors.shown_path(ESCAPE).isprintable()


def test_a_numpy_scalar_is_shown_as_a_number_or_string():
    values = (np.str_("a"), np.float32(0.5), np.int64(3), np.bool_(True))
    assert [errors.shown(value) for value in values] == ["'a'", "0.5", "3", "True"]


def test_suggestions_are_short_and_fast():
    names = [f"{i}{'x' * 10_000}" for i in range(1000)]
    began = time.process_time()
    assert len(errors.suggest("y" * 100_000, names)) < 850
    assert errors.suggest("audoi", [*names, "audio"]) == "did you mean 'audio'?"
    assert time.process_time() - began < 5


def test_no_message_sends_control_characters_to_a_terminal():
    error = errors.DataError("D41", f"label {ESCAPE}x\nsecond line", f"fix {ESCAPE}")
    lines = str(error).splitlines()
    assert len(lines) == 3 and all(line.isprintable() for line in lines)
    assert errors.printable("“ü” – 好\nx") == "“ü” – 好\nx"
