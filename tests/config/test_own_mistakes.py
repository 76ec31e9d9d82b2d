"""The package of CONTRIBUTING.md with one mistake: what the command prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from groups import in_ci
from package_code import as_package_code
from paths import ROOT
from test_own_parts import trace

from mmfusion_jax import main
from mmfusion_jax.cli.command import Command, run_command
from mmfusion_jax.data.storage.worker_pool import map_in_processes

BLOCKS = dict(
    (block.split("\n", 1)[0].removeprefix("# my_package/").removesuffix(".py"), block)
    for block in re.findall(
        r"```python\n(# my_package/.*?)```",
        (ROOT / "CONTRIBUTING.md").read_text("utf-8"),
        re.DOTALL,
    )
)
"""Name of a module -> its text."""

COMMAND = Command("x", "Does.", as_package_code(lambda request: trace(request.config)))


@pytest.fixture
def answer(tmp_path, monkeypatch, capsys):
    """Maps changes of modules to the exit code and what is printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*changes: tuple[str, str, str], main: Command = COMMAND) -> tuple[int, str]:
        texts = dict(BLOCKS)
        for module, old, new in changes:
            assert old in texts.setdefault(module, "")
            texts[module] = texts[module].replace(old, new) if old else new
        Path("my_package").mkdir()
        for module, text in texts.items():
            Path("my_package", f"{module}.py").write_text(text)
        code = run_command(main, ["--config=my_package/config.py", "--workdir=runs"])
        return code, capsys.readouterr().err

    yield run
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


def test_the_package_itself_is_correct(answer):
    assert answer() == (0, "")


ARRAY = ("encoder", "Tokens(zero_masked(x[:, None], present), present)", "x")
JOINT = "joint = jnp.concatenate(list(vectors.values()), axis=-1)"
IMPORT_JAX = ("model", "import jax.numpy", "import jax\nimport jax.numpy")
GROUP = "raise ExceptionGroup('files', [KeyError('a')])"
WHILE = "joint = jax.lax.while_loop(lambda x: x.sum() > 9, lambda x: x / 2, joint)"
LOSS = "return jnp.mean(jnp.square(zero_masked(x - y, valid)), axis=-1)"
OUTPUTS = "return Outputs(prediction_head(joint, self.head_size), vectors)"
SOURCE = """class Source:
    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, i):
        if i > 0:
            BODY
        return self.inner[i]


@dataset_loader("""
ITEMS = ("dataset", 'InMemory(inputs, masks, {"pitch": label})', "Source(MADE)")
NEW = ("dataset", "MADE", 'InMemory(inputs, masks, {"pitch": label})')
SCHEDULE = "    config.optim.schedule.name = 'my_package.s:NAME'\n    return config"
OPTIM = ("config", "    return config", SCHEDULE)


def items(body: str) -> list[tuple[str, str, str]]:
    """Changes after which all examples but the first are wrong."""
    new = SOURCE.replace("BODY", body)
    return [("dataset", "@dataset_loader(", new), ITEMS, NEW]


def part(field: str, *lines: str) -> list[str]:
    """Lines of a message about a part."""
    return [*lines, f"  part: config.{field}"]


MISTAKES = {
    # The config
    "a dict": (
        [("config", "return config", "return config.to_dict()")],
        ["error[C04]", "returned a dict, not a ConfigDict"],
    ),
    "a name": (
        [("config", "return config", "return confg")],
        ["error[C04] my_package/config.py line 26: NameError", "    return confg"],
    ),
    "top level": (
        [("config", "from ml_", "1 / 0\nfrom ml_")],
        ["error[C04] my_package/config.py line 2: ZeroDivisionError", "    1 / 0"],
    ),
    "a field": (
        [
            (
                "config",
                "config = mmf.base_config()",
                "config = mmf.base_config()\n    config.opt",
            )
        ],
        [
            "error[C04]",
            "AttributeError: 'opt'",
            '  Did you mean "optim"',
            "    config.opt",
        ],
    ),
    "exits": (
        [("config", "config = mmf.base_config()", "raise SystemExit")],
        ["error[C04] my_package/config.py line 8: SystemExit", "    raise SystemExit"],
    ),
    "label": (
        [("config", 'label="pitch"', 'label="pich"')],
        ["error[C07]", "did you mean 'pitch'?"],
    ),
    "a class object": (
        [
            ("config", 'name="my_package.model:MyFusion"', "name=MyFusion"),
            ("config", "from ml_", "from my_package.model import MyFusion\nfrom ml_"),
        ],
        ["error[C03]", "did you mean the import path 'my_package.model:MyFusion'?"],
    ),
    # Import paths and modules
    "typo in the module": (
        [("config", "my_package.model:", "my_package.modell:")],
        [
            "error[C32]",
            "No module named 'my_package.modell'",
            "mean 'my_package.model:",
        ],
    ),
    "circular import": (
        [
            (
                "model",
                "from my_package.fusion",
                "from my_package.h import x\nfrom my_package.fusion",
            ),
            ("h", "", "from my_package.model import MyFusion\n"),
        ],
        [
            "error[C32]",
            'File "my_package/h.py", line 1, in <module>',
            "correct this module",
        ],
    ),
    "syntax": (
        [("loss", "valid = batch", "valid == = batch")],
        ["error[C32]", 'File "my_package/loss.py", line 27\n', "    valid == = batch"],
    ),
    "an instance": (
        [
            ("model", "class MyFusion(nn.Module)", "class _Fusion(nn.Module)"),
            ("model", OUTPUTS, f"{OUTPUTS}\n\n\nMyFusion = _Fusion({{}}, 2)"),
        ],
        ["error[C33]", "is an object of type _Fusion, not a class."],
    ),
    # The model, its encoders and fusion
    "aux names": (
        [("model", ", vectors)", ", {**vectors, 3: joint})")],
        ["error[C33]", "returns aux[3], not a string"],
    ),
    "no aux": (
        [("model", ", vectors)", ")")],
        ["error[C17] config.losses.agreement", "model output 'audio'"],
    ),
    "assert": (
        [("model", JOINT, f"assert batch.weight.ndim == 2\n        {JOINT}")],
        part("model", "AssertionError\n", "    assert batch.weight.ndim == 2"),
    ),
    "chex": (
        [
            ("model", JOINT, f"chex.assert_rank(batch.weight, 2)\n        {JOINT}"),
            (
                "model",
                "import jax.numpy as jnp",
                "import chex\nimport jax.numpy as jnp",
            ),
        ],
        part("model", "error[C33]", "AssertionError: [Chex]", "    chex.assert_rank("),
    ),
    "recursion": (
        [
            (
                "model",
                "encode(self.encoders, batch, train=train)",
                "self(batch, train=train)",
            )
        ],
        part("model", "RecursionError", "\n    (repeated "),
    ),
    "gradient of a loop": (
        [("model", JOINT, f"{JOINT}\n        {WHILE}"), IMPORT_JAX],
        part(
            "model",
            "error[C33]",
            "ValueError: Reverse-mode",
            "    joint = jax.lax.while_loop(",
        ),
    ),
    "if of a tracer": (
        [("model", JOINT, f"if batch.weight.sum() > 0:\n            {JOINT}")],
        part("model", "TracerBoolConversionError", "    if batch.weight.sum() > 0:"),
    ),
    "arguments of a function of the package": (
        [("model", "mean(streams[name])", "mean(streams[name].values)")],
        part("model", "AttributeError", "fix: check the arguments of this call"),
    ),
    "encoder array": ([ARRAY], ["error[C33]", "encoders.audio returns an array, not"]),
    "fusion": (
        [("fusion", "streams[self.source]", "streams['speech']")],
        part("model", "KeyError: 'speech'", "AddSource.__call__", "MyFusion.__call__"),
    ),
    # Losses and metrics
    "loss float": (
        [("loss", LOSS, "return float(x.mean())")],
        part("losses.agreement", "ConcretizationTypeError", "    return float("),
    ),
    "loss label": (
        [("loss", LOSS, "return batch.labels['pich']")],
        part("losses.agreement", "KeyError: 'pich'", "    return batch.labels['pich']"),
    ),
    "metric string": (
        [("metric", "return float(", "return str(")],
        ["error[C33]", "metric 'brier' returns an object of type str, not a number"],
    ),
    "metric key": (
        [("metric", 'collected["prediction"]', 'collected["y"]')],
        ["error[C16]", "KeyError: 'y'", '    p = softmax(collected["y"], axis=-1)'],
    ),
    "metric function": (
        [("config", "metric:BRIER", "metric:_brier")],
        ["error[C33]", "is a function of (collected)", "a ScoreInfo with this formula"],
    ),
    # The dataset and augmentations
    "lists": (
        [("dataset", "x.astype(np.float32)", "x.tolist()")],
        ["error[D25]", "is an object of type list, not a NumPy array"],
    ),
    "no masks": (
        [("dataset", "InMemory(inputs, masks,", "InMemory(inputs, {},")],
        part(
            "data",
            "error[D25] InMemory has the input 'audio' without a mask",
            "    sources[split] = InMemory(",
        ),
    ),
    "class numbers": (
        [("dataset", '("low", "high")', "(0, 1)")],
        ["error[D25]", "classes or flags of 'pitch' are (0, 1)"],
    ),
    "classes without a label": (
        [("dataset", '{"pitch": CLASSES})', "CLASSES)")],
        ["error[D25]", "'classes' is an object of type tuple, not a dictionary"],
    ),
    "title": (
        [("dataset", 'Dataset("tones", "Tones (synthetic)"', 'Dataset("tones", None')],
        ["error[D25]", "'title' is None, not a string"],
    ),
    "labels": (
        [
            (
                "dataset",
                '{"pitch": CLASSES})',
                '{"pitch": CLASSES}, labels={"test": []})',
            )
        ],
        ["error[D25]", "labels['test'] is an object of type list, not a dictionary"],
    ),
    "augment": (
        [
            (
                "dataset",
                '{"pitch": CLASSES})',
                '{"pitch": CLASSES}, augment=lambda e: e)',
            )
        ],
        ["error[D25]", "not a function of (example, rng)"],
    ),
    "takes": (
        [("dataset", 'takes=("seed",)', 'takes="seed"')],
        [
            "error[C32]",
            "takes='seed' must be a tuple: ('seed',)",
            "    @dataset_loader(",
        ],
    ),
    "takes more": (
        [("dataset", 'takes=("seed",)', 'takes=("seed", "fold")')],
        ["error[C33]", "declares takes=('fold',), which are not its arguments"],
    ),
    "group": (
        [("dataset", "    rng = np", f"    {GROUP}\n    rng = np")],
        part("data", "ExceptionGroup: files (1 sub-exception)\n  - KeyError: 'a'\n"),
    ),
    "dataset exits": (
        [("dataset", "    rng = np", "    raise SystemExit\n    rng = np")],
        part("data", "error[C33] my_package/dataset.py, line 25: SystemExit\n"),
    ),
    "stop": (
        items("next(iter([]))"),
        part("data", "error[C33]", "StopIteration", "    next(iter([]))"),
    ),
    "late key": (
        items("{}['clip_7']"),
        part("data", "KeyError: 'clip_7'", "in Source.__getitem__\n    {}['clip_7']\n"),
    ),
    "late None": (
        items("return None"),
        ["error[D25] example", "is None, not a dictionary"],
    ),
    "augmentation": (
        [("augment", "mask[:, None]", "mask[:, 3]")],
        part("data.augmentations.audio", "IndexError", "    x = np.where(mask[:, 3]"),
    ),
    # The optimizer
    "schedule": (
        [
            (*OPTIM[:2], OPTIM[2].replace("NAME", "late")),
            ("s", "", "def late(rate, steps):\n    return lambda step: {}[step]\n"),
        ],
        part("optim.schedule", "error[C33]", "    return lambda step: {}[step]"),
    ),
    "rate": (
        [
            (*OPTIM[:2], OPTIM[2].replace("NAME", "text")),
            ("s", "", "def text(rate, steps):\n    return lambda step: 'fast'\n"),
        ],
        ["error[C33] config.optim.schedule", "of type str for a step, not a number"],
    ),
}
"""Mistake -> changes of the package, and parts of what is printed."""

DEFAULT = ("a field", "syntax", "no aux", "gradient of a loop", "stop", "group")


@pytest.mark.parametrize("mistake", in_ci(MISTAKES, *DEFAULT))
def test_a_mistake_of_a_user_shows_the_code_of_the_user(answer, mistake):
    changes, said = MISTAKES[mistake]
    code, error = answer(*changes)
    assert code in (2, 3)
    assert error.startswith("error[") and "B00" not in error
    for text in said:
        assert text in error
    # Neither frames of the package, JAX or Flax, nor a page of text.
    assert not re.search(r"File .*(mmfusion_jax|site-packages)/", error)
    assert len(error.splitlines()) <= 14


LATE_METRIC = "if len(p) > 2:\n        raise KeyError('many')\n    return float("
TRAINED = {
    "metric of more examples": (
        [("metric", "return float(", LATE_METRIC)],
        part("metrics.brier", "KeyError: 'many'", "    raise KeyError('many')"),
    ),
    "metric that becomes an array": (
        [("metric", "return float(", "return p if len(p) > 2 else float(")],
        ["error[C33]", "the formula of metric 'brier' returns an array, not a number"],
    ),
    "examples without a weight": (
        items('return {k: v for k, v in self.inner[i].items() if k != "weight"}'),
        ["error[D25]", "does not have 'weight'"],
    ),
}
"""Mistakes that only a training shows."""


@pytest.mark.ci
@pytest.mark.parametrize("mistake", TRAINED)
def test_a_mistake_of_a_user_is_shown_while_training(answer, mistake):
    changes, said = TRAINED[mistake]
    shorter = [("config", "epochs=5", "epochs=1")]
    if "weight" in mistake:
        shorter.append(("config", "    config.data.augmentations.audio", "    dict"))
        shorter.append(("config", 'dict = dict(name="my_', 'dict(name="my_'))
    code, error = answer(*changes, *shorter, main=main.COMMAND)
    assert code in (2, 3)
    error = error[error.index("error[") :]
    for text in said:
        assert text in error
    assert "B00" not in error


LATE = """count = 0


def late(x):
    global count
    count += 1
    if count > 6:
        raise KeyError("step")


class MyFusion("""


@pytest.mark.ci
def test_an_exception_of_a_callback_shows_the_callback(answer):
    # In a process with one device: on two, XLA ends the process, because the other
    # device waits for the one that failed.
    def train(request):
        words = ["train", "--config=my_package/config.py", "--workdir=runs"]
        done = subprocess.run(
            [sys.executable, "-m", "mmfusion_jax", *words],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:.", "JAX_NUM_CPU_DEVICES": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        print(done.stderr, file=sys.stderr)
        return done.returncode

    callback = f"jax.debug.callback(late, joint)\n        {OUTPUTS}"
    code, error = answer(
        ("model", OUTPUTS, callback),
        ("model", "class MyFusion(", LATE),
        IMPORT_JAX,
        main=Command("x", "Does.", train),
    )
    error = error[error.index("error[") :]
    assert code == 2
    assert re.match(
        r"error\[C33\] my_package/model.py, line \d+: KeyError: 'step'", error
    )
    assert (
        '", line 21, in late\n    raise KeyError("step")\n  part: config.model' in error
    )


def worker_job(job: str) -> str:
    """Raises KeyError; a job of the test below."""
    return {}[job]


def test_a_worker_names_the_line_of_the_user():
    failure = next(iter(map_in_processes(worker_job, ["clip"], workers=0)))
    assert re.fullmatch(
        r"KeyError: 'clip' \(.*test_own_mistakes\.py, line \d+\)", failure.reason
    )
