"""One flag replaces a part or takes an encoder out; a line names what is dropped."""

import re

import pytest
import small_configs
import tiny_dataset
from groups import in_ci
from test_offered import request, shapes
from test_own_parts import trace

from mmfusion_jax.cli.flags import Flag, ParsedCommand, parse
from mmfusion_jax.config.load import Config, flatten, load_config
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.fusion import FUSIONS
from mmfusion_jax.runner import experiment

FUSED = "--config.model.name=fused"
CONFIGS = ("cfn_sr", "hetero_fusion_net", "mcl_mcf", "mea", "of_cmaer_cat")


def refused(*flags: str, name: str = "cfn_sr", word: str = "digits") -> ConfigError:
    with pytest.raises(ConfigError) as info:
        shapes(request(name, word, *flags))
    return info.value


@pytest.mark.parametrize("name", in_ci(CONFIGS, "mea"))
def test_any_config_trains_a_block_of_another_package(name):
    flags = [FUSED, "--config.model.fusion.name=own_parts:SumOfMeans"]
    asked = request(name, "digits", *flags)
    assert list(asked.config.losses) == ["task"]
    assert asked.notes[-1].startswith(f"model: fused instead of {name}; dropped: ")
    assert shapes(asked) == (10,)


@pytest.mark.parametrize("fusion", in_ci(FUSIONS, "transformer_context"))
def test_every_block_is_one_flag(fusion):
    """Those whose options name modalities need more, which one error lists."""
    flags = [FUSED, f"--config.model.fusion.name={fusion}"]
    if fusion in ("residual_attention", "tensor_convolution"):
        found = refused(*flags)
        assert found.code == "C31" and "must be set" in str(found)
        flags += found.fix.split()
        values = {"hidden_dim": "8", "into": "joint", "source": "audio", "x": "audio"}
        flags = [
            re.sub(r"(\w+)=VALUE", lambda m: f"{m[1]}={values.get(m[1], 'video')}", f)
            for f in flags
        ]
    assert shapes(request("cfn_sr", "digits", *flags)) == (10,)


def test_options_of_a_block_are_flags():
    block = "--config.model.fusion.name=cross_modal_alignment"
    config = request("mea", "digits", FUSED, block, "--config.model.fusion.num_heads=2")
    fusion = config.config.model.fusion
    assert (fusion.num_heads, fusion.per_modality) == (2, False)
    found = refused(FUSED, block, "--config.model.fusion.self_loops=True")
    assert found.code == "C02" and "the fusion cross_modal_alignment" in str(found)
    found = refused(FUSED, block, "--config.model.fusion.num_heads=two")
    assert found.code == "C11"


def test_a_block_in_a_config_file_is_replaced(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from small_configs import small\n"
        "def get_config():\n"
        "    fusion = dict(name='adaptive_gate', hidden_dim=4, kind='softmax')\n"
        "    encoders = dict(audio=dict(name='precomputed'))\n"
        "    model = dict(name='fused', encoders=encoders, fusion=fusion)\n"
        "    return small('cfn_sr', model=model, pretrain_unimodal=())\n"
    )
    flags = [f"--config={path}", "--config.model.fusion.name=modality_weighting"]
    asked = parse(flags, (Flag("workdir", "", "where to"),), True)
    assert asked.notes == (
        "model.fusion: modality_weighting instead of adaptive_gate; "
        "dropped: config.model.fusion.kind",
    )
    assert asked.config.model.fusion.hidden_dim == 4


def test_a_removed_modality_is_named_where_it_was():
    flags = ["--config.model.encoders.text=None", FUSED]
    note = request("mcl_mcf", "mosi", *flags).notes[1]
    assert note.startswith("model.encoders: without text; dropped: ")
    for words in (
        "config.data.modality_dropout.text",
        "config.losses.{level2, level3}",
        "config.optim.groups.text",
        "config.losses.level1.pairs=level1/video_audio",
        "config.model.modality_order=audio,video",
    ):
        assert words in note


def test_a_removed_modality_leaves_the_lists_of_others():
    removed = "--config.model.encoders.text=None"
    config = request("mea", "digits_ctc", removed).config
    assert config.model.modality_order == ("video", "audio")
    assert config.losses.disparity.modalities == ("video", "audio")
    assert config.losses.ctc_audio.modalities == ("audio",)
    removed = "--config.model.encoders.audio=None"
    asked = request("mea", "digits_ctc", removed)
    assert "ctc_audio" not in asked.config.losses
    assert "config.losses.ctc_audio" in asked.notes[-1]


def test_pretraining_and_augmentations_go_with_their_encoder():
    flags = ["--config.model.encoders.audio=None", FUSED]
    config = request("cfn_sr", "digits", *flags).config
    assert config.pretrain_unimodal == ("video",)
    config = request("hetero_fusion_net", "clips", *flags).config
    assert list(config.data.augmentations) == ["video"]
    assert "mis" not in config and config.train.selection_metric == "accuracy"


def test_one_modality_left_has_no_contrast():
    flags = [f"--config.model.encoders.{m}=None" for m in ("text", "audio", "video")]
    config = request("of_cmaer_cat", "digits", *flags).config
    assert list(config.model.encoders) == ["image"]
    assert "contrastive" not in config.losses
    assert shapes(request("of_cmaer_cat", "digits", *flags)) == (10,)


def test_mis_needs_two_modalities():
    removed = "--config.model.encoders.audio=None"
    asked = request("hetero_fusion_net", "av_mnist", removed)
    assert "mis" not in asked.config
    assert "config.train.selection_metric=accuracy" in asked.notes[-1]


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--config.model.encoders.text=None"], "C02", "no encoder 'text'"),
        (["--config.model.encoders.audio=none"], "C02", "is a group of fields"),
        (
            ["--config.model.encoders.audio=None"],
            "C22",
            "leaves encoders for video, but the model cfn_sr requires 2 modalities",
        ),
        (
            [f"--config.model.encoders.{m}=None" for m in ("audio", "video")],
            "C22",
            "--config.model.encoders.video=None removes the only encoder",
        ),
        (
            [
                FUSED,
                "--config.model.encoders.audio=None",
                "--config.model.fusion.name=own_parts:Scaled",
                "--config.model.fusion.target=audio",
            ],
            "C22",
            "config.model.fusion.target='audio' names",
        ),
        (["--config.data.name=mosi"], "C07", "config.data.label='digit'"),
        (["--config.data.name=stress_predict"], "C06", "config.data.folds=1"),
        (
            ["--config.data.name=stress_predict", "--config.data.folds=5"],
            "C22",
            "only has encoders for audio, video",
        ),
        (["--config.data.name=mossi"], "C03", "did you mean 'mosi'"),
        (
            ["--config.data.name=av_mnist"],
            "C22",
            "--config.data.name=av_mnist leaves encoders for audio, but the model",
        ),
        (["--config.losses.task.name=focal"], "C03", "is not a known loss"),
        (["--config.losses.none.name=mse"], "C02", "has no 'none' in config.losses"),
        (["--config.model.fusion.name=identity"], "C02", "has no 'fusion'"),
        ([FUSED, "--config.model.fusion.name=x"], "C03", "not a known fusion"),
        (
            [FUSED, "--config.model.fusion.name=own_parts:Scaled"],
            "C31",
            "--config.model.fusion.target=VALUE",
        ),
    ],
)
def test_what_cannot_work_is_one_error(flags, code, words):
    found = refused(*flags)
    assert found.code == code and words in str(found)


def test_a_flag_adds_an_option_that_the_config_leaves_out():
    flags = {
        "model.attended_modality": "video",
        "model.encoders.audio.pool": 2,
        "losses.task.class_weights": ",".join("1" * 10),
        "optim.nesterov": "true",
    }
    asked = request(
        "cfn_sr", "digits", *(f"--config.{k}={v}" for k, v in flags.items())
    )
    assert not flags.keys() & flatten(load_config("cfn_sr:digits")).keys()
    found = flatten(asked.config)
    assert found["losses.task.class_weights"] == (1.0,) * 10
    assert found["model.attended_modality"] == "video"
    assert found["model.encoders.audio.pool"] == 2
    assert found["optim.nesterov"] is True
    assert shapes(asked) == (10,)


@pytest.mark.parametrize(
    ("flag", "code", "words"),
    [
        ("model.varient=paper", "C02", "varient"),
        ("losses.task.weights=1", "C02", "weights"),
        ("losses.task.class_weights=-1,1", "C10", "class_weights"),
        ("model.encoders.audio.pool.size=2", "C02", "pool"),
        ("data.label_column=x", "C02", "label_column"),
    ],
)
def test_an_option_that_no_part_has_is_one_error(flag, code, words):
    found = refused(f"--config.{flag}")
    assert found.code == code and words in str(found)


@pytest.mark.parametrize("name", in_ci(CONFIGS, "hetero_fusion_net"))
def test_one_flag_replaces_the_dataset(name):
    flags = ["--config.data.name=mosi", "--config.data.label=score"]
    flags += ["--config.losses.task.name=mse", "--config.train.selection_metric=mae"]
    flags += [FUSED, "--config.data.text=vectors"]
    for m in ("audio", "text", "video"):
        if m in request(name, "digits").config.model.encoders:
            flags.append(f"--config.model.encoders.{m}.name=lstm")
    if name in ("mcl_mcf", "mea"):  # mosi has vectors
        with pytest.raises(ConfigError, match=r"C26[^$]*fix: frame_channels=\(\)"):
            shapes(request(name, "digits", *flags))
        flags.append("--config.model.encoders.video.frame_channels=()")
    asked = request(name, "digits", *flags)
    line = next(note for note in asked.notes if note.startswith("data: "))
    assert line.startswith("data: mosi instead of digits; dropped: config.data.{cache_")
    assert "image" not in asked.config.model.encoders
    assert shapes(asked) == ()


def test_modalities_of_a_dataset_are_its_own():
    flags = ["--config.data.name=clips", FUSED, "--config.data.duration=3"]
    flags += ["--config.data.classes=no,yes", "--config.data.label=label"]
    asked = request("mea", "digits", *flags)
    assert set(asked.config.data.modalities) == {"audio", "video"}
    assert set(asked.config.model.encoders) == {"audio", "video"}


def test_folds_go_with_the_dataset():
    flags = ["--config.data.name=digits", "--config.data.label=digit", FUSED]
    asked = request("cfn_sr", "ravdess", *flags)
    assert (asked.config.data.folds, asked.config.data.fold) == (1, "0")
    assert "config.data.folds=1" in asked.notes[1]
    assert resolve(asked.config)


def test_one_flag_replaces_a_loss():
    name = "hetero_fusion_net"
    flag = "--config.losses.heads.name=own_parts:Margin"
    note = request(name, "digits", flag).notes[-1]
    assert note == (
        "losses.heads: own_parts:Margin instead of unimodal_losses; dropped: "
        "config.losses.heads.{kind, modalities}"
    )
    flags = ["--config.losses.task.name=own_parts:Margin"]
    flags.append("--config.losses.task.factor=0.5")
    config = request(name, "digits", *flags).config
    assert config.losses.task.factor == 0.5 and config.losses.task.weight == 1.0


def test_one_flag_replaces_an_encoder():
    flags = ["--config.model.encoders.text.name=conv_lstm", FUSED]
    note = request("mcl_mcf", "mosi", *flags).notes[-1]
    assert "config.model.encoders.text.{" in note and "weights" in note
    flags = ["--config.model.encoders.text.name=bert"]
    config = request("mea", "digits", *flags).config
    assert config.model.encoders.text.weights == ""
    assert config.model.encoders.text.vocab_size == 64
    inner = "--config.model.encoders.audio.encoder.name=own_parts:Projected"
    config = request("mea", "digits_ctc", inner).config
    assert config.model.encoders.audio.encoder.hidden_dim == 24


def test_nothing_that_is_dropped_prints_no_line():
    flags = ["--config.optim.name=adamw", "--config.optim.b1=0.8"]
    asked = request("cfn_sr", "digits", *flags)
    assert asked.config.optim.b1 == 0.8
    assert not [note for note in asked.notes if "optim" in note]


OWN = {
    "model": {"model.name": "own_parts:Linear", "model.width": "3"},
    "fusion": {
        "model.name": "fused",
        "model.fusion.name": "own_parts:Scaled",
        "model.fusion.target": "video",
    },
    "encoder": {"model.encoders.video.name": "own_parts:Projected"},
    "inner encoder": {"model.encoders.audio.encoder.name": "own_parts:Projected"},
    "loss": {"losses.extra.name": "own_parts:Margin", "losses.extra.factor": "2"},
    "metric": {
        "metrics.mine.name": "own_parts:ERRORS",
        "train.selection_metric": "mine",
    },
    "dataset": {"data.name": "own_parts:quiet_tones", "data.count": "3"},
    "augmentation": {
        "data.augmentations.audio.name": "own_parts:Louder",
        "data.augmentations.audio.factor": "3",
    },
    "optimizer": {"optim.name": "own_parts:sgd", "optim.momentum": "0.1"},
    "schedule": {"optim.schedule.name": "own_parts:halved"},
}
"""Kind of part -> flags that put one of another package in its place."""


def own_config() -> Config:
    """A config of tones with a part of every kind."""
    config = tiny_dataset.config()
    config.model.name = "concat_fc"
    inner = dict(name="feature_tokens", hidden_dim=4)
    config.model.encoders.audio = dict(name="own_parts:Normalized", encoder=inner)
    config.losses.extra = dict(name="cross_entropy", weight=0.1)
    config.metrics.mine = dict(name="own_parts:ERRORS")
    config.data.augmentations.audio = dict(name="own_parts:Same")
    config.train.update(epochs=1)
    return config


def own(tmp_path, *kinds: str) -> ParsedCommand:
    path = tmp_path / "mine.py"
    path.write_text("from test_swaps import own_config as get_config\n")
    chosen = {k: v for kind in kinds for k, v in OWN[kind].items()}
    flags = [f"--config.{field}={value}" for field, value in chosen.items()]
    words = [f"--config={path}", f"--workdir={tmp_path / 'run'}", *flags]
    return parse(words, (Flag("workdir", "", "where to"),), True)


@pytest.mark.parametrize("kind", OWN)
def test_a_part_of_another_package_replaces_one_of_ours(kind, tmp_path):
    asked = own(tmp_path, kind)
    trace(asked.config)


def test_all_parts_of_another_package_train_together(tmp_path):
    asked = own(tmp_path, *(kind for kind in OWN if kind != "model"))
    result = experiment.train(resolve(asked.config), asked.workdir, "train")
    (run,) = result.runs
    assert result.model.name == "fused" and "errors" not in run.test.scores
    assert 0 <= run.test.scores["mine"] <= 1


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("own_parts:Result --kind=lost", "does not return video: a fusion block"),
        ("own_parts:Result --kind=flat", "returns stream 'audio' as values float32"),
        ("own_parts:Result --kind=vector", "returns an array, not streams"),
        ("own_parts:Result", "returns None, not streams"),
        ("own_parts:FusionWithoutTrain", "is not a function of (streams, train=True)"),
        ("own_parts:fuse", "is a function of (streams)"),
        ("builtins:dict", "is an object of type dict, not a function"),
        ("own_parts:SumOfMean", "did you mean 'own_parts:SumOfMeans'?"),
    ],
)
def test_a_block_that_breaks_its_contract_is_named(block, words, tmp_path):
    name, *options = block.split(" --")
    flags = [f"--config.model.fusion.{one}" for one in options]
    flags = [FUSED, f"--config.model.fusion.name={name}", *flags]
    found = refused(*flags)
    assert found.code in ("C32", "C33") and words in str(found)
    assert "config.model.fusion" in str(found)


def test_small_configs_have_blocks_of_their_own_width():
    model = dict(name="fused", encoders={}, fusion=dict(num_heads=2))
    with pytest.raises(ConfigError, match="config.model.fusion.name is missing"):
        resolve(small_configs.small("cfn_sr", model=model, pretrain_unimodal=()))
