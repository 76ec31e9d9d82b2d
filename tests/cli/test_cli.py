"""Every mistake on the command line: few lines, the nearest name, the exit code."""

import dataclasses
import json
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from package_code import as_package_code
from paths import ROOT

import mmfusion_jax
from mmfusion_jax import __main__ as program
from mmfusion_jax import main
from mmfusion_jax.cli.command import Command, help_text, run_command
from mmfusion_jax.cli.flags import Flag, ParsedCommand, default_workdir, parse
from mmfusion_jax.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    Interrupted,
)

CONFIG = "configs/cfn_sr.py"
MODE = Flag("mode", "train", "what to do", ("train", "evaluate"))
LONG = Flag("kind", "", "what it is", ("", "first_of_them", "second_of_them", "third"))
STEPS = Flag("steps", 20, "how many", minimum=1)


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def answer(capsys, *words: str, main=lambda request: None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command with `words`."""
    command = Command("mmfusion_jax.main", "Does.", main, (MODE, STEPS))
    code = run_command(command, words)
    out, err = capsys.readouterr()
    return code, out, err


def read(*words: str) -> ParsedCommand:
    command = Command("mmfusion_jax.main", "Does.", lambda r: None, (MODE, STEPS))
    return parse(words, command.all_flags, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "error[C01] --config is required"),
        (["cfn_sr"], "error[C01] --config is required.\n  fix: --config=cfn_sr"),
        ([f"--config={CONFIG}", "---x"], "fix: --help lists the flags"),
        (
            [f"--config={CONFIG}", f"--config.seed={'9' * 400}"],
            "at most 2147483647",
        ),
        (["--config=configs/cfn_s.py"], "did you mean 'configs/cfn_sr.py'?"),
        (["--config=cfn_srr"], "did you mean 'cfn_sr'?"),
        (["--config=conf/cfn_sr.py"], "did you mean 'configs/cfn_sr.py'?"),
        (
            [f"--config={CONFIG}:ravdes"],
            "data='ravdes'; cfn_sr knows av_mnist, clips, digits",
        ),
        ([f"--config={CONFIG}", "--workdr=x"], "did you mean '--workdir'?"),
        ([f"--config={CONFIG}", "--steps=0"], "[C10] --steps=0 is less than 1"),
        ([f"--config={CONFIG}", "stray"], "unexpected argument 'stray'"),
        ([f"--config={CONFIG}", "--workdir"], "Missing value for flag --workdir"),
        ([f"--config={CONFIG}", "--mode=trian"], "did you mean 'train'?"),
        ([f"--config={CONFIG}", "--json=maybe"], "--json=maybe is not true or false"),
        ([f"--config={CONFIG}", "--config.sead=1"], "did you mean 'seed'?"),
        (
            [f"--config={CONFIG}", "--config.model.hiden_dim=1"],
            "did you mean 'hidden_dim'?",
        ),
        (
            [f"--config={CONFIG}", "--config.model.encoders.video.blocs=1"],
            "has no 'blocs' in config.model.encoders.video.",
        ),
        (
            [f"--config={CONFIG}", "--config.batch_size=3"],
            "did you mean --config.data.batch_size?",
        ),
        (
            [f"--config={CONFIG}", "--config.seed.x=3"],
            "config.seed=1234 is not a group",
        ),
        ([f"--config={CONFIG}", "--config.data=ravdess"], "is a group of fields"),
        ([f"--config={CONFIG}:digit"], f"did you mean --config={CONFIG}:digits?"),
        (
            [f"--config={CONFIG}", "--config.train.epochs=3.5"],
            "--config.train.epochs=3.5 is not an integer.",
        ),
        (
            [f"--config={CONFIG}", "--config.optim.learning_rate", "fast"],
            "--config.optim.learning_rate=fast is not a number.",
        ),
        (
            [f"--config={CONFIG}", "--config.model.name=cfn-sr"],
            "did you mean 'cfn_sr'?",
        ),
        (
            [f"--config={CONFIG}", "--config.model.encoders.audio.name=audio_cn"],
            "did you mean 'audio_cnn'?",
        ),
        (
            [f"--config={CONFIG}", "--config.losses.task.name=crossentropy"],
            "did you mean 'cross_entropy'?",
        ),
        ([f"--config={CONFIG}", "--config.optim.name=adm"], "did you mean 'adam'?"),
        (
            [f"--config={CONFIG}", "--config.optim.schedule.name=cosin"],
            "did you mean 'cosine'?",
        ),
        (
            [f"--config={CONFIG}", "--config.data.name=digit"],
            "did you mean 'digits'?",
        ),
        ([f"--config={CONFIG}", "--config.parallel=gmap"], "did you mean 'pmap'?"),
        (
            [f"--config={CONFIG}", "--config.protocol=valid"],
            "did you mean 'validation'?",
        ),
        ([f"--config={CONFIG}", "--config.seed=-1"], "a number at least 0"),
        ([f"--config={CONFIG}", "--config.data.batch_size=0"], "a number at least 1"),
        ([f"--config={CONFIG}", "--config.train.epochs=-1"], "a number at least 0"),
        (
            [f"--config={CONFIG}", "--config.optim.learning_rate=0"],
            "a number above 0",
        ),
        (
            [f"--config={CONFIG}", "--config.distributed.num_processes=2"],
            "error[C12]",
        ),
        (
            [f"--config={CONFIG}", "--config.distributed.process_id=1"],
            "error[C10]",
        ),
        *(
            (
                [f"--config={CONFIG}", "--config.distributed.num_processes=2"]
                + [f"--config.distributed.coordinator={address}"],
                "is not HOST:PORT",
            )
            for address in ("host", "host:", "host:x", "host:99999", "http://host:1")
        ),
        (
            [f"--config={CONFIG}", "--config.distributed.mode=auto"]
            + ["--config.distributed.coordinator=host:1234"],
            "is not used with mode=auto",
        ),
        (
            [f"--config={CONFIG}", "--config.distributed.mode=auto"]
            + ["--config.distributed.num_processes=2"],
            "leave these out",
        ),
        (
            [f"--config={CONFIG}", "--workdir=gs://b/c"],
            "error[C40] --workdir='gs://b/c'",
        ),
        (
            [f"--config={CONFIG}", "--workdir=gs:/b/c"],
            "error[C40] --workdir='gs:/b/c'",
        ),
        (["--config=gs://b/c.py:mosi"], "error[C40] --config='gs://b/c.py:mosi'"),
        (
            [f"--config={CONFIG}:clips", "--config.data.data_dir=s3://b"],
            "error[C40] --config.data.data_dir='s3://b'",
        ),
        (
            [f"--config={CONFIG}", "--config.optim.learning_rate=nan"],
            "--config.optim.learning_rate=nan is out of range",
        ),
    ],
)
def test_a_mistake_is_named(capsys, words, said):
    code, out, err = answer(capsys, *words)
    assert code == 2
    assert out == ""
    assert said in err
    assert err.startswith("error[C")
    assert len(err.splitlines()) <= 4


CFN = "def get_config(data='x'):\n    from ml_collections import ConfigDict\n"
CFN += "    return ConfigDict(dict(seed=1, word=data))\n"
SHOWN = "--config.seed=1  # Seed of .*\n--config.word={}\n"


def test_a_config_is_found_here_or_where_the_package_is(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    installed = str(ROOT / "configs" / "cfn_sr.py")
    for name in ("configs/cfn_sr.py", "cfn_sr", "cfn_sr.py"):
        code, out, err = answer(capsys, f"--config={name}:ravdess", "--print_config")
        assert (code, err) == (0, f"config: {installed}\n")
        assert "--config.data.name=ravdess" in out
        assert read(f"--config={name}:ravdess").workdir == Path("runs/cfn_sr_ravdess")
    Path("configs").mkdir()
    Path("configs/cfn_sr.py").write_text(CFN)
    code, out, err = answer(capsys, "--config=configs/cfn_sr.py:y", "--print_config")
    assert (code, err) == (0, "") and re.fullmatch(SHOWN.format("y"), out)
    for name in ("cfn_sr", "cfn_sr.py"):
        code, out, err = answer(capsys, f"--config={name}", "--print_config")
        assert (code, err) == (0, "config: configs/cfn_sr.py\n") and "word=x" in out
    Path("configs/cfn_sr.v2.py").write_text(CFN.replace("seed=1", "seed=2"))
    assert read("--config=cfn_sr.v2").config.seed == 2
    code, _, err = answer(capsys, "--config=cfn_sr.yaml")
    assert code == 2 and "the file does not exist" in err
    code, _, err = answer(capsys, "--config=cfn_rs")
    assert code == 2 and "did you mean 'cfn_sr'?" in err
    Path("mine.py").write_text(CFN)
    code, _, err = answer(capsys, "--config=mine")
    assert code == 2 and "did you mean 'mine.py'?" in err
    code, _, err = answer(capsys, "--config=elsewhere/cfn_sr.py")
    assert code == 2 and "did you mean 'configs/cfn_sr.py'?" in err


def test_every_command_has_one_name(capsys, monkeypatch):
    asked = []
    taken = dataclasses.replace(main.COMMAND, main=asked.append)
    monkeypatch.setattr(main, "COMMAND", taken)
    for mode in program.MODES:
        assert program.run([mode, "--config=cfn_sr", "--config.seed=5"]) == 0
        assert asked[-1].flags["mode"] == mode and asked[-1].config.seed == 5
    assert program.run(["--config=cfn_sr"]) == 0 and asked[-1].flags["mode"] == "train"
    assert set(program.MODES) == set(main.MODES)
    capsys.readouterr()
    for words, shown in {
        ("--help",): "commands:",
        ("train", "--help"): "python -m mmfusion_jax train --config=",
        ("inspect", "--help"): "  --compile ",
        ("bench", "--help"): "--steps=20",
        ("data", "--help"): "mmfusion_jax data import FILE",
        ("--version",): f"mmfusion_jax {mmfusion_jax.__version__}\n",
    }.items():
        assert program.run(words) == 0
        assert shown in capsys.readouterr().out
    program.run(["train", "--help"])
    shown = capsys.readouterr().out
    assert not any(flag in shown for flag in ("--mode", "--compile", "--batches"))
    assert program.run(["trian"]) == 2
    assert "unknown command 'trian'.\n  fix: did you mean 'train'?" in (
        capsys.readouterr().err
    )
    assert program.run([]) == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("x = (", "line 1: SyntaxError"),
        ("x = 1", "does not define get_config"),
        ("def get_config():\n    return {}", "returned a dict, not a ConfigDict"),
        ("def get_config():\n    return 1 / 0", "line 2: ZeroDivisionError"),
        (
            "def get_config():\n    raise ValueError('width must be 3')",
            "width must be 3",
        ),
        ("import nothing_of_that_name", "line 1: ModuleNotFoundError"),
        (
            "def get_config():\n    c = CD({'a': 1})\n    c.a = 'x'\n    return c",
            "line 4: the field 'a' must be of type int, and is x (str)",
        ),
        (
            "def get_config():\n    c = CD({'a': CD()})\n    c.a = 3",
            "line 4: the field 'a' must be a group of fields, and is 3 (int)",
        ),
        (
            "def get_config():\n    c = CD()\n    c.c = c\n    return c",
            "contains itself",
        ),
        ("def get_config():\n    return CD({1: 2, 'a': 3})", "name is not a string"),
        (
            "def get_config():\n    return CD({'a': needed(int)})",
            "required_placeholder",
        ),
    ],
)
def test_a_broken_config_file_is_named(capsys, tmp_path, body, said):
    path = tmp_path / "broken.py"
    names = "ConfigDict as CD; from ml_collections.config_dict import"
    names += " required_placeholder as needed\n"
    path.write_text(f"from ml_collections import {names}" * ("CD" in body) + body)
    code, _, err = answer(capsys, f"--config={path}")
    assert code == 2
    assert said in err
    assert err.startswith("error[C04]")
    assert len(err.splitlines()) <= 4


def test_a_frozen_config_is_accepted(tmp_path):
    path = tmp_path / "frozen.py"
    path.write_text(
        "from ml_collections import ConfigDict, FrozenConfigDict\n"
        "def get_config():\n"
        "    data, model = dict(x=1), dict(encoders=dict(audio=dict(name='lstm')))\n"
        "    return FrozenConfigDict(dict(data=data, model=model))\n"
    )
    config = read(f"--config={path}", "--config.data.x=2").config
    assert config.data.to_dict() == {"x": 2, "modality_dropout": {"audio": 0.0}}


def test_an_exception_while_flags_are_read_is_a_bug(capsys, monkeypatch, tmp_path):
    def broken(*args):
        raise TypeError("odd")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmfusion_jax.cli.command.parse", as_package_code(broken))
    code, _, err = answer(capsys, "--config=cfn_sr")
    assert code == 1 and err.startswith("error[B00] bug: TypeError: odd")
    assert "Traceback" in (tmp_path / "runs" / "run.log").read_text()


def test_a_config_without_variants_says_so(capsys, tmp_path):
    path = tmp_path / "plain.py"
    path.write_text("def get_config():\n    return None")
    _, _, err = answer(capsys, f"--config={path}:digits")
    assert "does not take a word after the colon" in err


def test_flags_reach_the_command():
    request = read(
        f"--config={CONFIG}:digits",
        "--workdir=there",
        "--mode=evaluate",
        "--config.train.epochs=3",
        "--config.optim.learning_rate",
        "1",
        "--noconfig.model.residual",
        "--config.pretrain_unimodal=audio,video",
        "--config.model.encoders.video.blocks=2,3",
    )
    assert request.workdir == Path("there")
    assert request.flags["mode"] == "evaluate"
    config = request.config.to_dict()
    assert config["train"]["epochs"] == 3
    assert config["optim"]["learning_rate"] == 1.0
    assert config["model"]["residual"] is False
    assert config["pretrain_unimodal"] == ("audio", "video")
    empty = read(f"--config={CONFIG}", "--config.pretrain_unimodal=").config
    assert empty.pretrain_unimodal == ()
    assert config["model"]["encoders"]["video"]["blocks"] == (2, 3)


def test_a_field_may_wait_for_its_value(capsys, tmp_path):
    path = tmp_path / "waits.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "from ml_collections.config_dict import placeholder\n"
        "def get_config():\n"
        "    return ConfigDict({'noise': placeholder(float), 'seed': 1})\n"
    )
    assert read(f"--config={path}").config.to_dict() == {"noise": None, "seed": 1}
    assert read(f"--config={path}", "--config.noise=3").config.noise == 3.0
    _, _, err = answer(capsys, f"--config={path}", "--config.noise=loud")
    assert err == "error[C11] --config.noise=loud is not a number.\n"
    _, out, _ = answer(capsys, f"--config={path}", "--print_config")
    assert re.fullmatch(r"# --config.noise is not set\n--config.seed=1  # .*\n", out)


def test_the_folder_is_named_after_the_config():
    assert default_workdir("configs/cfn_sr.py") == "runs/cfn_sr"
    assert default_workdir("configs/cfn_sr.py:a/../b") == "runs/cfn_sr_a_b"
    swapped = read(f"--config={CONFIG}", "--config.model.name=late_fusion")
    assert swapped.workdir == Path("runs/cfn_sr_late_fusion")


def test_printed_fields_can_be_given_back(capsys):
    _, out, _ = answer(capsys, f"--config={CONFIG}", "--print_config")
    assert "--config.model.hidden_dim=64" in out.splitlines()
    again = read(f"--config={CONFIG}", *shlex.split(out, comments=True))
    assert again.config.to_dict() == read(f"--config={CONFIG}").config.to_dict()
    _, out, _ = answer(capsys, f"--config={CONFIG}", "--print_config", "--json")
    assert json.loads(out)["model"]["hidden_dim"] == 64


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("C05", "too big"), 2, "error[C05] too big"),
        (DataError("D01", "no file", "get it"), 3, "error[D01] no file\n  fix: get it"),
        (DivergedError("N01", "not finite"), 4, "error[N01]"),
        (CheckpointError("K01", "none"), 5, "error[K01]"),
        (Interrupted(7, 143), 143, "saved step 7; rerun the same command to resume"),
        (KeyboardInterrupt(), 130, "Interrupted. Rerun"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (RuntimeError("odd\nmany\nlines"), 1, "error[B00] bug: RuntimeError: odd\n"),
    ],
)
def test_an_exception_becomes_an_exit_code(capsys, tmp_path, error, code, said):
    @as_package_code
    def main(request):
        raise error

    words = (f"--config={CONFIG}", f"--workdir={tmp_path}")
    got, _, err = answer(capsys, *words, main=main)
    assert got == code
    assert said in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 6
    if not isinstance(error, Interrupted | KeyboardInterrupt):
        assert "Traceback" in (tmp_path / "run.log").read_text()
    _, _, err = answer(capsys, *words, "--debug", main=main)
    has_trace = not isinstance(error, Interrupted | KeyboardInterrupt)
    assert ("Traceback" in err) == has_trace


def test_a_process_among_others_does_not_wait_for_them(capsys, tmp_path, monkeypatch):
    @as_package_code
    def main(request):
        raise RuntimeError("odd")

    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    words = [f"--config={CONFIG}", f"--workdir={tmp_path}"]
    answer(capsys, *words, main=main)
    assert codes == []
    words += [
        "--config.distributed.num_processes=2",
        "--config.distributed.coordinator=localhost:1",
    ]
    answer(capsys, *words, main=main)
    assert codes == [1]
    answer(capsys, *words)
    assert codes == [1]
    words = [*words[:2], "--config.distributed.mode=auto"]
    answer(capsys, *words, main=main)
    assert codes == [1, 1]


def test_a_bug_names_its_log_where_the_folder_cannot_be(capsys, tmp_path):
    @as_package_code
    def main(request):
        raise RuntimeError("odd")

    (tmp_path / "file").touch()
    workdir = tmp_path / "file" / "below"
    words = (f"--config={CONFIG}", f"--workdir={workdir}")
    code, _, err = answer(capsys, *words, main=main)
    assert code == 1
    path = Path(err.split()[-1])
    assert path.read_text().count("RuntimeError: odd")
    # In a folder that others can read and write: a file of the user's own.
    assert path.stat().st_mode & 0o777 == 0o600
    answer(capsys, *words, main=main)
    assert path.read_text().count("RuntimeError: odd") == 1
    path.unlink()


@pytest.mark.parametrize(
    ("words", "level"),
    [
        ((), "3"),
        (("--debug",), None),
        (("--config.distributed.num_processes=1",), None),
    ],
)
def test_xla_logs_only_what_ends_the_process(capsys, monkeypatch, words, level):
    """Except while debugging, and where processes wait for each other."""
    monkeypatch.setattr(os, "environ", {"PATH": ""})
    levels = []
    main = lambda request: levels.append(os.environ.get("TF_CPP_MIN_LOG_LEVEL"))
    assert answer(capsys, f"--config={CONFIG}", *words, main=main)[0] == 0
    assert levels == [level]


FIELDS = [
    "seed", "parallel", "data.batch_size", "model.name", "model.encoders.audio.name",
    "optim.learning_rate", "train.epochs", "pretrain_unimodal", "model", "nothing",
    "a..b",
]  # fmt: skip


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(FIELDS), st.text(max_size=8), st.sampled_from(["", "x", "."]))
def test_no_value_brings_a_traceback(capsys, field, value, tail):
    words = (f"--config={CONFIG}", f"--config.{field}{tail}={value}")
    code, _, err = answer(capsys, *words)
    assert code in (0, 2)
    assert len(err.splitlines()) <= 5
    assert err == "" or err.startswith("error[C")


def test_help_and_mistakes_do_not_wait_for_jax():
    probe = (
        "import sys; from mmfusion_jax import main;"
        "from mmfusion_jax.cli.command import run_command;"
        "code = run_command(main.COMMAND, sys.argv[1:]);"
        "assert 'jax' not in sys.modules; sys.exit(code)"
    )
    for words, code in (
        (["--help"], 0),
        ([f"--config={CONFIG}", "--config.train.epoch=3"], 2),
        ([f"--config={CONFIG}", "--config.model.name=x"], 2),
    ):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", probe, *words], timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == code
        # Seconds of the processor: those of the clock depend on the neighbours.
        took = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        assert took < 0.5


def test_help_lists_flags_and_configs(capsys):
    code, out, _ = answer(capsys, "--help")
    assert code == 0
    for flag in ("--config=", "--workdir=", "--mode=train|evaluate", "--print_config"):
        assert flag in out
    assert CONFIG in out


def test_help_puts_what_a_long_word_does_below_it(capsys):
    lines = answer(capsys, "--help")[1].splitlines()
    flags = lines[lines.index("flags:") + 1 : lines.index("configs:") - 1]
    assert "  --mode=train|evaluate           what to do" in flags
    command = Command("x", "Does.", lambda r: None, (LONG,), False)
    lines = help_text(command).splitlines()
    where = lines.index("  --kind=" + "|".join(LONG.choices[1:]))
    assert lines[where + 1] == " " * 34 + "what it is"


@pytest.mark.parametrize(
    "words", [["--help"], [f"--config={CONFIG}", "--print_config"]]
)
def test_a_reader_that_has_seen_enough_is_no_error(words):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "mmfusion_jax.main", *words],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_pipe_to_a_worker_that_breaks_is_an_error(capsys, tmp_path):
    @as_package_code
    def broken(request):
        raise BrokenPipeError("a worker is gone")

    command = Command("mmfusion_jax.x", "Does.", broken, (), False)
    assert run_command(command, [f"--workdir={tmp_path}"]) == 1
    assert "a worker is gone" in capsys.readouterr().err


def test_a_command_may_need_no_config(capsys):
    seen = []
    command = Command("mmfusion_jax.x", "Does.", seen.append, (), False)
    assert run_command(command, ["--workdir=here"]) == 0
    assert seen[0].workdir == Path("here")
    assert seen[0].config.to_dict() == ConfigDict().to_dict()
    assert run_command(command, ["--config=x.py"]) == 2
    assert "unknown flag --config" in capsys.readouterr().err
