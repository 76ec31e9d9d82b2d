"""Parts of a user's own: what is wrong with them is an error that names them."""

import jax
import pytest
import tiny_dataset
from package_code import as_package_code

from mmfusion_jax.cli.command import Command, run_command
from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.load import Config
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.errors import UserError
from mmfusion_jax.training.state import create_state
from mmfusion_jax.training.step import make_eval_step

TASK = {"name": "cross_entropy"}


def changed(changes) -> Config:
    """The config of the tones with fields of any type."""
    config = tiny_dataset.config()
    for name, value in changes.items():
        group, _, last = name.rpartition(".")
        level = config
        for word in filter(None, group.split(".")):
            level = level[word]
        with level.ignore_type():
            level[last] = value
    return config


def trace(config: Config) -> None:
    """Everything before a run is compiled: data, parts, shapes, a batch."""
    spec = resolve(config)
    data = build_data.build_dataset(spec, build_data.fold_numbers(spec)[0])
    pipeline = build_data.build_pipeline(spec, data, spec.seed)
    next(pipeline.train(0, 1))
    parts = build.build_components(spec, data, 1)
    batch = jax.eval_shape(lambda b: b, pipeline.dummy_batch())
    init = lambda b: create_state(parts.model, parts.tx, b, jax.random.key(0))
    state = jax.eval_shape(init, batch)
    jax.eval_shape(parts.train_step(None), state, batch)
    scores = parts.task.metrics()
    evaluate = make_eval_step(parts.model, parts.objective, scores, parts.modalities)
    jax.eval_shape(evaluate, state.variables, batch)


TRACE = Command("x", "Does.", as_package_code(lambda request: trace(request.config)))
trace = as_package_code(trace)


def model(kind: str = "", name: str = "bad_parts:Model") -> dict:
    return {"model": {"name": name, "encoders": {}, "kind": kind}}


def encoder(name: str = "bad_parts:Encoder", **options) -> dict:
    return {"model.encoders": {"video": {"name": name, **options}}}


def data(kind: str) -> dict:
    return {"data.name": "bad_parts:dataset", "data.kind": kind}


def loss(name: str, **options) -> dict:
    return {"losses": {"task": TASK, "extra": {"name": name, **options}}}


def augmentation(kind: str) -> dict:
    part = {"name": "bad_parts:Augmentation", "kind": kind}
    return {"data.augmentations": {"audio": part}}


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (
            {"model": {"name": "bad_parts:NotAModel", "encoders": {}}},
            "C33",
            "is an object of type NotAModel, not a Linen module",
        ),
        (model("no parameters"), "C33", "has no parameters to train"),
        (model("wrong size"), "C33", "shape (8, 7) for 8 examples, not (8, 3)"),
        (model("an array"), "C33", "returns an array, not Outputs"),
        (model("scalar"), "C33", "aux['scale'] without an axis of the 8 examples"),
        (model("classes"), "C33", "a prediction of type int32, not float"),
        (encoder(kind="an array"), "C33", "encoders.video returns an array, not Tok"),
        (encoder(kind="flat"), "C33", "returns values float32 (8, 6) and a mask bool"),
        (encoder(kind="refused"), "C33", "raises ValueError: no such kind"),
        (
            encoder("bad_parts:EncoderWithoutTrain"),
            "C33",
            "is not a function of (values, mask, train=True)",
        ),
        (encoder("builtins:dict"), "C33", "is an object of type dict, not a function"),
        (loss("bad_parts:loss_function"), "C33", "is a function of (outputs, batch)"),
        (loss("bad_parts:Loss"), "C33", "config.losses.extra returns None, not"),
        (loss("bad_parts:Loss", kind="per class"), "C33", "of shape (8, 3), not one"),
        (augmentation("None"), "D25", "is None, not a dictionary"),
        (augmentation("longer"), "D25", "the mask of input 'audio' of training"),
        (data("None"), "C33", "returns None, not a Dataset"),
        (data("no train"), "D25", "does not have the split 'train'"),
        (data("empty"), "D23", "split 'valid' of bad is empty"),
        (data("mask"), "D25", "is bool (3,), not bool (1,)"),
        (data("lengths"), "D25", "'label' has 4 examples, but the first mask has 9"),
        (data("dev"), "D25", "split 'dev' is not one of train, valid, test"),
        (data("generator"), "D25", "is an object of type tuple_iterator, not"),
        (data("unlabeled"), "D25", "split 'valid' is object (), not one number"),
        (data("facts"), "D25", "facts cannot be written as JSON"),
        (data("target"), "D25", "values['label'] is an object of type tuple"),
        (data("family"), "C32", "'nothing_of_that_name:X' cannot be imported"),
        (data("flags"), "D25", "int32 (), not 2 flags"),
        (data("labels"), "D25", "split 'train' has 9 examples and 3 labels"),
        ({"data.name": "bad_parts:undeclared"}, "C33", "takes=('fold',)"),
        (
            {"model.encoders.video.weights": "x.safetensors"},
            "C03",
            "'feature_tokens' is not an encoder with pretrained weights",
        ),
        (encoder(weights="x.safetensors"), "C03", "the class attribute weight_mapping"),
        (
            encoder("bad_parts:OddWeights", weights="x.safetensors"),
            "C33",
            "its weight_mapping is an object of type dict, not a WeightMapping",
        ),
        (encoder("mmfusion_jax.losses.supervised:MSE", label="x"), "C33", "train=True"),
        (data("text"), "D25", "does not have 'inputs'"),
        ({"optim.name": "bad_parts:no_optimizer"}, "C33", "is None, not an optax"),
        ({"optim.name": "optax:lbfgs"}, "C33", "'optax:lbfgs' raises TypeError"),
        ({"optim.b1": "a"}, "C11", "config.optim.b1='a' is not a number"),
        (
            {"optim.schedule": {"name": "bad_parts:no_schedule"}},
            "C33",
            "is an object of type str, not a function of (step)",
        ),
        ({"metrics": {"x": {"name": "bad_parts:dataset"}}}, "C33", "not a metric"),
    ],
)
def test_a_part_that_breaks_its_contract_is_named(changes, code, said):
    with pytest.raises(UserError) as info:
        trace(changed(changes))
    assert info.value.code == code and said in str(info.value)


@pytest.mark.parametrize(
    ("changes", "part", "said", "source"),
    [
        (
            model("raises"),
            "model",
            "line 36: TypeError: dot_general",
            "return x @ jnp.ones((99, 3))",
        ),
        (
            loss("bad_parts:Loss", kind="a key"),
            "losses.extra",
            "KeyError: 'smell'",
            'return outputs.aux["smell"]',
        ),
        (
            data("raises"),
            "data",
            "FileNotFoundError: no such clip",
            'raise FileNotFoundError("no such clip")',
        ),
        (
            augmentation("a key"),
            "data.augmentations.audio",
            "KeyError: 'nothing'",
            'return example["nothing"]',
        ),
    ],
)
def test_an_exception_in_own_code_shows_its_frames(
    changes, part, said, source, tmp_path, capsys
):
    path = tmp_path / "mine.py"
    path.write_text(
        "from test_own_parts import changed\n"
        f"def get_config():\n    return changed({changes!r})\n"
    )
    assert run_command(TRACE, [f"--config={path}", f"--workdir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error[C33] ") and "bad_parts.py, line " in error
    assert said in error and f"\n    {source}\n" in error
    assert f"\n  part: config.{part}\n" in error
    assert "mmfusion_jax/" not in error
    assert "Traceback" in (tmp_path / "run.log").read_text()


def test_a_bug_of_the_library_stays_a_bug(tmp_path, capsys, monkeypatch):
    def broken(*args):
        raise TypeError("odd")

    monkeypatch.setattr(build, "build_objective", as_package_code(broken))
    path = tmp_path / "mine.py"
    path.write_text(
        "from test_own_parts import changed, model\n"
        "def get_config():\n    return changed(model())\n"
    )
    assert run_command(TRACE, [f"--config={path}", f"--workdir={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error[B00] bug: TypeError: odd\n  File ")
    assert "which may be the cause: bad_parts:Model, tiny_dataset:tones\n" in error
    assert error.endswith(f"which is in {tmp_path}/run.log\n")


def test_python_gets_the_exception_of_own_code_unchanged():
    with pytest.raises(KeyError, match="smell") as info:
        trace(changed(loss("bad_parts:Loss", kind="a key")))
    assert type(info.value) is KeyError and info.value.args == ("smell",)


@pytest.mark.parametrize(
    "raised", ["MemoryError()", "RuntimeError('RESOURCE_EXHAUSTED: Out of memory')"]
)
def test_too_little_memory_is_no_bug(raised, tmp_path, capsys):
    def main(request):
        raise eval(raised)

    path = tmp_path / "mine.py"
    path.write_text("from tiny_dataset import config as get_config\n")
    words = [f"--config={path}", f"--workdir={tmp_path}"]
    assert run_command(Command("x", "Does.", main), words) == 2
    assert "error[E05] not enough memory" in capsys.readouterr().err
