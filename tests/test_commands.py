"""Every command of the README, the docs and the configs can be typed as it stands.

A command that trains is followed until everything it needs is built, one that needs
data until the message that asks for it.
"""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from groups import in_ci
from paths import docs_files

from mmfusion_jax import __main__ as program
from mmfusion_jax import bench, main
from mmfusion_jax.cli.command import run_command
from mmfusion_jax.cli.flags import ParsedCommand
from mmfusion_jax.commands import doctor
from mmfusion_jax.config import build_data
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.runner.trainer import Trainer
from mmfusion_jax.runner.workdir import fold_seed_pairs
from mmfusion_jax.training.topology import check_topology

ROOT = Path(__file__).parent.parent
MAIN = "python -m mmfusion_jax.main"
FIRST = f"{MAIN} --config=configs/cfn_sr.py"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *docs_files(".md"),
    *sorted(ROOT.glob("experiments/*/README.md")),
    *sorted(ROOT.glob("configs/*.py")),
]
OPTIONS = {
    "README.md": FIRST,
    "clips.md": MAIN,
    "precision.md": FIRST,
    "pretrained.md": f"{MAIN} --config=configs/hetero_fusion_net.py:raw_clips",
    "predict.md": "python -m mmfusion_jax predict --run=runs/clips new.mp4",
    "export.md": "python -m mmfusion_jax export --run=runs/clips --out=exported",
    "formats.md": "python -m mmfusion_jax data import FILE --dataset=mosi",
}
DATA, RUN = 3, 5
"""Exit codes of the messages that ask for data and for a trained run."""


def commands(page: Path) -> list[str]:
    """The commands in a page: in code, one after the other where && joins them.

    The flags in its table of options are those of one command.
    """
    text = page.read_text("utf-8")
    text = re.sub(r"\s*\\\n\s*", " ", text)
    spans = re.findall(r"`([^`\n]+)`", text)
    rows = re.findall(r"^\| `(--[^`]+)`", text, re.M)  # the table of options
    spans += re.findall(r"^(?: {3,4})?((?:pip|python|mmfusion-jax) .*)$", text, re.M)
    found = []
    for span in spans:
        for part in span.split("&&"):
            word = re.sub(r"\s+#.*$", "", part.strip())
            if word.startswith("... --"):
                found.append(MAIN + word.removeprefix("..."))
            elif re.match(r"(python -m mmfusion_jax|mmfusion-jax|pip|python) ?", word):
                found.append(word)
    found += [f"{OPTIONS[page.name]} {row}" for row in rows]
    prose = ("data import", "data check")  # a command by its name alone
    return [word for word in found if "$" not in word and not word.endswith(prose)]


def all_commands() -> list[str]:
    return sorted({command for page in PAGES for command in commands(page)})


TYPED = [
    c for c in all_commands() if re.match("python -m mmfusion_jax|mmfusion-jax", c)
]
FIRST_READ = [c for c in commands(ROOT / "README.md") if c in TYPED]
SCRIPTS = [c for c in all_commands() if re.match("python (experiments|docs)/", c)]


def test_there_are_commands():
    assert FIRST in TYPED and len(TYPED) > 50 and len(SCRIPTS) > 10
    assert f"{FIRST} --config.model.name=late_fusion" in TYPED


@pytest.fixture
def followed(monkeypatch, cache_dir, tmp_path):
    """Commands that train and measure stop when everything is built."""
    reached = []

    def follow(spec: ExperimentSpec, request: ParsedCommand):
        for unit in fold_seed_pairs(spec, request.workdir)[:1]:
            found = build_data.build_dataset(spec, unit.fold)
            run = Trainer(spec, found)
            build_data.check_ids(spec, found)
            assert run.components.modalities
        reached.append(request)
        return {}

    monkeypatch.setitem(main.MODES, "train", main.Mode(follow))
    monkeypatch.setattr(
        "mmfusion_jax.commands.benchmark.measure", lambda config, steps: {}
    )
    monkeypatch.setattr("mmfusion_jax.commands.benchmark.show", reached.append)
    # Compiling takes minutes, and requires libtpu.
    compiling = "mmfusion_jax.commands.compile_for"
    monkeypatch.setattr(
        f"{compiling}.compile_for", lambda spec, name: check_topology(name) or {}
    )
    monkeypatch.setattr(f"{compiling}.show", reached.append)
    # A minute of training; it has tests of its own.
    monkeypatch.setattr(doctor, "_self_test", lambda: (None, []))
    monkeypatch.setattr(
        "mmfusion_jax.runner.runtime.initialize", lambda spec, cache=True: None
    )
    monkeypatch.setenv("MMFUSION_CACHE", str(cache_dir / "digits"))
    monkeypatch.chdir(ROOT)
    return reached


def exit_code(command: str, workdir: Path) -> int:
    """Runs a command in this process and returns its exit code."""
    command = command.replace("--config=...", "--config=configs/cfn_sr.py")
    command = re.sub(r"--workdir=\S+", f"--workdir={workdir}", command)
    words = shlex.split(command)
    if words[0] == "mmfusion-jax":
        return program.run(words[1:])
    name, rest = words[2], words[3:]
    known = {"mmfusion_jax.main": main.COMMAND, "mmfusion_jax.bench": bench.COMMAND}
    if name in known:
        if not any(word.startswith("--workdir") for word in rest):
            rest.append(f"--workdir={workdir}")
        return run_command(known[name], rest)
    assert name == "mmfusion_jax"
    return program.run(rest)


@pytest.mark.parametrize("command", in_ci(TYPED, *FIRST_READ))
def test_it_can_be_typed(command, followed, tmp_path, capsys):
    code = exit_code(command, tmp_path / "run")
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error")]
    if code == 0:
        assert not errors
        return
    (line,) = errors
    if "demo" in command and "error[E01]" in line:  # gradio is not in `dev`
        return
    assert code in (DATA, RUN), err
    assert re.match(r"error\[(D40|D60|D70|D75|D3\d|K01|K09)\]", line), line


@pytest.mark.parametrize("command", SCRIPTS)
def test_a_script_is_there_and_has_the_flags(command):
    script, *words = shlex.split(command)[1:]
    source = (ROOT / script).read_text("utf-8")
    flags = [word.split("=")[0] for word in words if word.startswith("--")]
    assert all(f'"{flag}"' in source for flag in flags)


def test_every_extra_that_is_named_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = "".join(page.read_text("utf-8") for page in PAGES)
    text += "".join(path.read_text("utf-8") for path in ROOT.rglob("mmfusion_jax/*.py"))
    named = {
        extra
        for group in re.findall(r"(?:mmfusion_jax|\.)\[([a-z0-9,]+)\]", text)
        for extra in group.split(",")
    }
    assert named and named <= set(project["optional-dependencies"])
