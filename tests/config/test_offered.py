"""Every word of every config can be built, and every baseline in its place."""

import functools
import re
from pathlib import Path

import jax
import pytest
from groups import in_ci
from loaded_tables import MODELS, loaded
from outlines import same_shapes

from mmfusion_jax.cli.flags import Flag, ParsedCommand, parse
from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.load import installed_configs
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.dataset import Dataset, loader_info
from mmfusion_jax.data.registry import DATASETS
from mmfusion_jax.errors import ConfigError, DataError
from mmfusion_jax.models import GENERIC_MODELS
from mmfusion_jax.training.state import create_state
from mmfusion_jax.training.step import make_eval_step

CONFIGS = sorted(path.stem for path in installed_configs().glob("*.py"))
LOADERS = loaded(DATASETS)
OUTLINES = {name: loader_info(f).outline for name, f in LOADERS.items()}
CLIPS = ["--config.data.classes=no,yes", "--config.data.duration=3"]
QUICK = (
    ("cfn_sr", "ravdess_features"),
    ("hetero_fusion_net", "mosei"),
    ("hetero_fusion_net", "iemocap"),
    ("mcl_mcf", "mosi_vectors"),
    ("of_cmaer_cat", "stress-cnn"),
)
"""Words whose shapes are computed in the default group too."""


@functools.cache
def request(name: str, word: str, *flags: str) -> ParsedCommand:
    """The config that a command line asks for, which no test changes."""
    clips = CLIPS if "clips" in word else []
    words = [f"--config={name}:{word}", *clips, *flags]
    return parse(words, (Flag("workdir", "", "where to"),), True)


@functools.cache
def words_of(name: str) -> tuple[str, ...]:
    """Every word of a config, which names them itself."""
    with pytest.raises(ConfigError) as info:
        request(name, "?")
    known = rf"{name} knows ([\w, ]+?)(?:\.|, alone|, and each)"
    match = re.search(known, str(info.value))
    assert match
    words = match[1].split(", ")
    if name == "cfn_sr":
        rows = re.findall(r"_(\w+)", str(info.value).split("with one of")[1])
        words += [f"{word}_{row}" for word in ("digits", "ravdess") for row in rows]
    if name == "of_cmaer_cat":
        steps = re.findall(r"-(\w+)", str(info.value).split("followed by")[1])
        words = [
            f"{word}{step}"
            for word in words
            for step in ("", *map("-{}".format, steps))
        ]
    if name == "hetero_fusion_net":
        words = [
            f"{word}{rest}"
            for word in words
            for rest in ("", "_early", "_late", *modalities(name, word))
        ]
    return tuple(words)


def modalities(name: str, word: str) -> list[str]:
    """The modalities of a word, as they may follow it."""
    return [f"_{m}" for m in request(name, word).config.model.encoders]


OFFERED = [(name, word) for name in CONFIGS for word in words_of(name)]
ROW = re.compile("(digits|ravdess)_(?!features|released_code)")
TABLE_1 = [(n, word) for n, word in OFFERED if n == "cfn_sr" and ROW.match(word)]
"""Words of the baselines of CFN-SR, all with the same encoders."""


def made(asked: ParsedCommand) -> tuple[Dataset, build.TrainingComponents]:
    """The dataset in outline and all parts, by the functions that a run uses."""
    spec = resolve(asked.config)
    data = build_data.describe_dataset(spec, build_data.fold_numbers(spec)[0])
    per_epoch = build_data.build_pipeline(spec, data, spec.seed).steps_per_epoch
    task = build.build_task(spec, data)
    plan = build.build_plan(spec, task, per_epoch)
    assert spec.training.selection_metric in [
        *task.metrics().infos,
        "loss",
    ]
    return data, build.build_components(spec, data, plan.steps)


def shapes(asked: ParsedCommand) -> tuple[int, ...]:
    """The shape of the prediction; every shape of a run is computed on the way."""
    data, parts = made(asked)
    batch = build_data.build_pipeline(resolve(asked.config), data, 0).dummy_batch()
    key = jax.random.key(0)
    init = lambda b: create_state(parts.model, parts.tx, b, key)
    state = jax.eval_shape(init, batch)
    after, _ = jax.eval_shape(parts.train_step(None), state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    scores = parts.task.metrics()
    evaluate = make_eval_step(parts.model, parts.objective, scores, parts.modalities)
    found = jax.eval_shape(evaluate, state.variables, batch)
    size = parts.task.head_size
    prediction = found["collected"]["prediction"].shape[1:]
    assert prediction == (() if size == 1 else (size,))
    return prediction


def in_place_of(name: str, word: str, model: str) -> ParsedCommand:
    """A config with another model."""
    flags = [f"--config.model.name={model}"]
    if model == "unimodal" and len(request(name, word).config.model.encoders) > 1:
        flags.append(f"--config.model.modality={modalities(name, word)[0][1:]}")
    return request(name, word, *flags)


def replacements(word: str) -> tuple[str, ...]:
    """The models that may take the place of that of a word."""
    # Its loss, which is that of the label too, compares modalities.
    return ("late_fusion",) if word.endswith("_multiplicative") else GENERIC_MODELS


BUILT = [pair for pair in OFFERED if pair not in TABLE_1]


@pytest.mark.parametrize(
    ("name", "word"), in_ci(OFFERED, *BUILT, ("cfn_sr", "digits_msaf"), several=True)
)
def test_every_word_and_every_baseline_on_it_is_built(name, word):
    assert made(request(name, word))
    for model in replacements(word):
        asked = in_place_of(name, word, model)
        _, parts = made(asked)
        assert asked.config.model.name == model
        assert parts.modalities == tuple(sorted(asked.config.model.encoders))
        own = request(name, word).config
        if own.model.name != model:
            assert asked.notes[-1].startswith(f"model: {model} instead of ")
            gone = set(own.model) - set(asked.config.model)
            assert all(re.search(rf"\b{field}\b", asked.notes[-1]) for field in gone)


PAPER = {("cfn_sr", "ravdess"), ("mea", "mosi"), ("of_cmaer_cat", "mosei"), *QUICK}
"""Words of the papers' data, with those of the default group."""

SLOW = [
    (name, word)
    for name, word in OFFERED
    if (name, word) not in PAPER and not word.startswith("digits")
]
"""Words of other data or other parts: they are built, and their parts have tests."""


@pytest.mark.parametrize(
    ("name", "word"), in_ci(OFFERED, *QUICK, several=True, slow=[*SLOW, *TABLE_1])
)
def test_every_word_has_shapes_and_so_has_a_baseline_on_it(name, word):
    baselines = replacements(word)
    # In turn, so that every baseline is traced on many words.
    model = baselines[OFFERED.index((name, word)) % len(baselines)]
    assert shapes(in_place_of(name, word, model)) == shapes(request(name, word))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "word"), OFFERED)
def test_every_baseline_on_every_word_has_shapes(name, word):
    own = shapes(request(name, word))
    for model in replacements(word):
        assert shapes(in_place_of(name, word, model)) == own


WHOLE = [(n, w) for n, w in BUILT if not re.search("-|_early|_late", w)]
WHOLE = [(n, w) for n, w in WHOLE if len(request(n, w).config.model.encoders) > 1]
"""Words with several encoders; those of ablations and baselines have no others."""
DISTINCT = {
    (name, repr(request(name, word).config.model.encoders)): (name, word)
    for name, word in WHOLE
}.values()
"""One word for each group of encoders of a config, whose shapes are computed."""


@pytest.mark.parametrize(
    ("name", "word"),
    in_ci(
        WHOLE,
        ("hetero_fusion_net", "mosei"),
        ("mcl_mcf", "mosi_vectors"),
        several=True,
        slow=[(name, word) for name, word in WHOLE if word != "digits"],
    ),
)
def test_every_encoder_can_be_taken_out(name, word):
    own = request(name, word).config
    needs = getattr(MODELS[own.model.name], "num_modalities", 1)
    for modality in own.model.encoders:
        flags = [f"--config.model.encoders.{modality}=None"]
        if len(own.model.encoders) <= needs:
            with pytest.raises(ConfigError, match=f"requires {needs} modalities") as e:
                request(name, word, *flags)
            flags.append("--config.model.name=fused")
            assert e.value.fix.startswith(flags[-1])
        asked = request(name, word, *flags)
        assert asked.notes[1].startswith(f"model.encoders: without {modality}; ")
        left = set(own.model.encoders) - {modality}
        assert set(asked.config.model.encoders) == left
        if (name, word) in DISTINCT:
            shapes(asked)  # checks the size of the prediction
        else:
            made(asked)


def test_a_baseline_of_the_paper_is_that_of_its_table():
    asked = in_place_of("cfn_sr", "ravdess", "concat_fc")
    assert asked.config.model.hidden_dims == (256,)
    assert asked.config.model.dropout == 0.4
    assert asked.config.pretrain_unimodal == ("audio", "video")


def test_a_model_that_replaces_combined_networks_is_trained():
    alone = request("cfn_sr", "digits_averaging").config
    assert (alone.pretrain_epochs, alone.train.epochs) == (8, 0)
    assert request("cfn_sr", "digits_multiplication").config.train.epochs == 0
    assert request("cfn_sr", "digits_multiplicative").config.train.epochs == 8
    asked = in_place_of("cfn_sr", "digits_averaging", "concat_fc")
    assert asked.config.train.epochs == 8
    assert "config.train.epochs=8" in asked.notes[-1]


def test_what_is_dropped_is_named():
    asked = in_place_of("hetero_fusion_net", "digits", "unimodal")
    config, note = asked.config, asked.notes[-1]
    assert list(config.model.encoders) == ["audio"] and config.model.modality == "audio"
    assert list(config.losses) == ["task"] and "mis" not in config
    assert config.train.selection_metric == "accuracy"
    stages = in_place_of("cfn_sr", "digits", "unimodal")
    assert stages.config.pretrain_unimodal == ()
    assert stages.notes[-1].endswith("; config.pretrain_unimodal=()")
    for words in (
        "config.losses.{consistency, entropy, heads}",
        "config.mis",
        "config.model.encoders.{image, text, video}",
        "config.train.selection_metric=accuracy",
    ):
        assert words in note


def test_late_fusion_keeps_the_losses_of_single_modalities():
    config = in_place_of("hetero_fusion_net", "digits", "late_fusion").config
    assert set(config.losses) == {"task", "heads", "consistency"} and "mis" in config


def test_a_baseline_keeps_the_losses_of_encoders():
    config = in_place_of("mea", "mosi_ctc", "concat_fc").config
    assert set(config.losses) == {"task", "ctc_audio", "ctc_video"}
    config = in_place_of("mea", "mosi_ctc", "unimodal").config
    assert list(config.model.encoders) == ["audio"]
    assert set(config.losses) == {"task", "ctc_audio"}


def test_a_flag_of_the_new_model_is_taken_and_one_of_the_old_is_refused():
    late = "--config.model.name=late_fusion"
    asked = request("mea", "mosi", late, "--config.model.rule=learned")
    assert asked.config.model.rule == "learned"
    said = "mea:mosi with the model late_fusion has no 'psa_layers' in config.model"
    with pytest.raises(ConfigError, match=said):
        request("mea", "mosi", late, "--config.model.psa_layers=1")


def test_the_model_of_a_paper_takes_no_other_place():
    with pytest.raises(ConfigError, match="mea cannot replace cfn_sr") as info:
        request("cfn_sr", "digits", "--config.model.name=mea")
    assert "--config=mea" in info.value.fix
    with pytest.raises(ConfigError, match="msaf cannot replace cfn_sr") as info:
        request("cfn_sr", "digits", "--config.model.name=msaf")
    assert "--config=cfn_sr:digits_msaf" in info.value.fix


def test_the_loss_of_the_label_is_never_dropped():
    flags = ["--config.model.name=concat_fc"]
    flags.append("--config.losses.task.name=multiplicative")
    with pytest.raises(ConfigError, match="'multiplicative' requires outputs that"):
        request("cfn_sr", "digits", *flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--config.model.modality is required: which of audio, text, video?"),
        (["--config.model.modality=smell"], "'smell' has no encoder"),
    ],
)
def test_unimodal_asks_which_modality(flags, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        request("mea", "mosi", "--config.model.name=unimodal", *flags)


def test_scores_are_combined_by_rules_for_scores():
    late = "--config.model.name=late_fusion"
    assert shapes(request("mea", "mosi", late, "--config.model.rule=learned")) == ()
    with pytest.raises(ConfigError, match="does not support regression"):
        shapes(request("mea", "mosi", late, "--config.model.rule=product"))


COUNTS = {
    "ravdess": 26_301_417,
    "ravdess_averaging": 25_916_080,
    "ravdess_multiplication": 25_916_080,
    "ravdess_multiplicative": 25_916_080,
    "ravdess_concat_fc": 26_838_952,
    "ravdess_mcbp": 29_986_984,
    "ravdess_mmtm": 31_496_512,
    "ravdess_msaf": 25_940_724,
}
"""Word of CFN-SR -> number of parameters, see specs and docs of Table 1."""


@pytest.mark.parametrize("word", in_ci(COUNTS, "ravdess"))
def test_the_counts_of_parameters_need_no_data(word):
    data, parts = made(request("cfn_sr", word))
    spec = resolve(request("cfn_sr", word).config)
    batch = build_data.build_pipeline(spec, data, 0).dummy_batch()
    init = lambda b: parts.model.init(jax.random.key(0), b, train=False)
    params = jax.eval_shape(init, batch)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == COUNTS[word]


def test_the_emotions_of_mosei_need_three_flags():
    flags = ["data.label=emotions", "losses.task.name=multilabel"]
    flags.append("train.selection_metric=f1")
    asked = request("mea", "mosei", *(f"--config.{flag}" for flag in flags))
    data, parts = made(asked)
    assert parts.task.head_size == 12 and data.title.startswith("CMU-MOSEI, 6 yes/no")


def test_every_data_set_has_an_outline():
    assert all(OUTLINES.values())


@pytest.mark.parametrize("options", [{}, {"modalities": ("text", "audio")}])
def test_the_outline_of_digits(cache_dir, options):
    real = LOADERS["digits"](cache_dir=cache_dir / "digits", **options)
    same_shapes(real, OUTLINES["digits"](**options))


@pytest.mark.parametrize(
    ("name", "folder", "options"),
    [
        ("mmmo", "mmmo", {}),
        ("mmmo", "mmmo", {"folds": 5, "fold": 2, "keep_clips_without_text": True}),
        ("mosi_utterances", "mosi", {"protocol": "fixed_epochs"}),
        (
            "mosi_utterances",
            "mosi",
            {"label": "score", "context_before": 99, "context_after": 99},
        ),
        ("ravdess_features", "ravdess", {"stride": 4}),
        ("ravdess_features", "ravdess", {"protocol": "as_published"}),
        ("stress_predict", "stress_predict", {"window": 20, "hop": 10}),
    ],
)
def test_outlines_of_real_data(real_data: Path, name, folder, options):
    real = LOADERS[name](data_dir=str(real_data / folder), **options)
    outline = OUTLINES[name](**options)
    same_shapes(real, outline, sizes=name != "stress_predict")
    if name == "stress_predict":  # an estimate
        for split, source in real.sources.items():
            assert len(outline.sources[split]) == pytest.approx(len(source), rel=0.2)


def test_an_option_that_cannot_work_is_refused_without_data():
    for name, options in {
        "av_mnist": {"max_train_pairs": -1},
        "deap": {"window": 61},
        "mmmo": {"clip_quantile": 0.7},
        "mosi_utterances": {"context_before": -1},
        "stress_predict": {"standardize_by": "none"},
        "ravdess_features": {"stride": 999},
        "ravdess": {"crop": "face"},
        "digits": {"missing_rate": 2.0},
        "mosi": {"text": "bret"},
    }.items():
        with pytest.raises(ConfigError):
            OUTLINES[name](**options)


def test_data_that_are_named_are_read_and_not_outlined(tmp_path):
    asked = request("cfn_sr", "ravdess", f"--config.data.data_dir={tmp_path}")
    with pytest.raises(DataError, match="contains no speech recording of RAVDESS"):
        build_data.describe_dataset(resolve(asked.config), 0)
    asked = request("mea", "mosi", "--config.data.file=aligned")
    with pytest.raises(DataError, match="CMU-MOSI has not been imported"):
        build_data.describe_dataset(resolve(asked.config), 0)
