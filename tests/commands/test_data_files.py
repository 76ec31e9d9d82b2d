"""Import of feature files, and the commands data import, check, list and remove."""

import dataclasses
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from feature_files import (
    COUNTS,
    STEPS,
    WIDTHS,
    equal_clips,
    lengths,
    mmsa,
    mult,
    npz,
    rows,
    scores,
    write,
    write_mmim,
)
from outlines import same_kinds
from paths import ROOT
from traced_models import traced_loss

from mmfusion_jax.cli.command import run_subcommand
from mmfusion_jax.commands import train_commands
from mmfusion_jax.commands.data_files import COMMANDS
from mmfusion_jax.config import build_data
from mmfusion_jax.config.load import load_config
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.datasets.sentiment_files import load_sentiment_file, outline
from mmfusion_jax.data.feature_files.checksums import PUBLISHED_FILES, PublishedFile
from mmfusion_jax.data.feature_files.import_manifest import open_import
from mmfusion_jax.data.feature_files.importer import import_file
from mmfusion_jax.errors import ConfigError, DataError

CONFIGS = ROOT / "configs"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A separate cache, and a folder for the log."""
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "imported"


@pytest.fixture(autouse=True)
def untraced(request, monkeypatch):
    """No config is traced, which is slow, where that is not tested."""
    if "traced" not in request.fixturenames:
        monkeypatch.setattr(train_commands, "trace_loss", lambda *_: None)


@pytest.fixture
def traced():
    """Configs are traced."""


def import_here(file, name="mosi", *, nan_to_zero=False, drop_bad=False):
    """Imports without a sandboxed process."""
    parent = Path(os.environ["MMFUSION_CACHE"]) / "imported" / name
    return import_file(str(file), name, str(parent), nan_to_zero, drop_bad)


def data(capsys, *words):
    """Exit code, stdout and stderr of a `data` command."""
    code = run_subcommand("mmfusion_jax data", "About data.", COMMANDS, words)
    return code, *capsys.readouterr()


@pytest.mark.parametrize("aligned", [True, False])
def test_examples_are_padded_at_the_end_and_masked(tmp_path, aligned):
    import_here(write(tmp_path / "x.pkl", mmsa(aligned=aligned)))
    made = load_sentiment_file("mosi")
    assert {split: len(source) for split, source in made.sources.items()} == COUNTS
    for split in COUNTS:
        source = made.source(split)
        for name in STEPS:
            own = lengths(split, "text" if aligned else name)
            want = rows(split, name, own)
            t = STEPS["text" if aligned else name]
            for i in range(len(source)):
                example = source[i]
                values, mask = example["inputs"][name], example["masks"][name]
                assert values.shape == (t, WIDTHS[name]) and values.dtype == np.float32
                assert mask.tolist() == [True] * own[i] + [False] * (t - own[i])
                np.testing.assert_array_equal(values[mask], want[i])
                assert not values[~mask].any()
        np.testing.assert_array_equal(made.label(split, "score"), scores(split))
        assert source[1]["labels"]["score"] == scores(split)[1]
    assert made.values["score"].family == "sentiment"
    assert made.groups["valid"] == ["valid0", "valid1"]
    assert made.facts["repaired"] == {} and made.facts["counts"] == COUNTS
    polarity = np.sign(scores("test")).astype(int) + 1
    assert made.label("test", "polarity").tolist() == polarity.tolist()


def test_left_padding_ends_up_on_the_right(tmp_path):
    import_here(write(tmp_path / "x.pkl", mult(), 2))
    made = load_sentiment_file("mosi")
    assert made.example_id_list("test") == made.example_ids["test"]
    example = made.source("test")[1]
    own = lengths("test", "audio")
    want = rows("test", "audio", own)[1]
    np.testing.assert_array_equal(example["inputs"]["audio"][: own[1]], want)
    assert example["masks"]["audio"].sum() == own[1] == len(want)


@pytest.mark.parametrize("text", ["vectors", "bert"])
def test_the_outline_is_of_the_same_kinds(tmp_path, text):
    import_here(write(tmp_path / "x.pkl", mmsa(aligned=True)))
    same_kinds(load_sentiment_file("mosi", text=text), outline("mosi", text=text))


def test_text_as_vectors_as_ids_or_as_words(tmp_path):
    import_here(write(tmp_path / "x.pkl", mmsa()))
    example = load_sentiment_file("mosi", text="bert").source("train")[1]
    ids, mask = example["inputs"]["text"], example["masks"]["text"]
    assert ids.dtype == np.int32 and ids.shape == mask.shape == (6,)
    assert ids[mask].all() and not ids[~mask].any()
    with pytest.raises(DataError, match=r"D77.*'words'[\s\S]*text=vectors or .*=bert"):
        load_sentiment_file("mosi", text="words")
    with pytest.raises(ConfigError, match=r"C03.*'bort'[\s\S]*'bert'"):
        load_sentiment_file("mosi", text="bort")
    import_here(write_mmim(tmp_path / "MOSEI"), "mosei")
    example = load_sentiment_file("mosei", text="words").source("train")[0]
    assert example["inputs"]["text"].tolist() == [1, 2, 3, 4, 5, 6]


def test_features_are_standardized_on_request(tmp_path):
    import_here(write(tmp_path / "x.pkl", mmsa()))
    made = load_sentiment_file("mosi", standardize=("audio",))
    examples = [made.source("train")[i] for i in range(COUNTS["train"])]
    real = np.concatenate([e["inputs"]["audio"][e["masks"]["audio"]] for e in examples])
    np.testing.assert_allclose(real.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(real.std(0), 1, atol=1e-5)
    assert not examples[1]["inputs"]["audio"][~examples[1]["masks"]["audio"]].any()
    want = rows("train", "video", lengths("train", "video"))[0]
    np.testing.assert_array_equal(examples[0]["inputs"]["video"], want)
    with pytest.raises(ConfigError, match="C03.*'vision'.*"):
        load_sentiment_file("mosi", standardize=("vision",))
    with pytest.raises(ConfigError, match="C03.*'text'"):  # ids have no mean
        load_sentiment_file("mosi", text="bert", standardize=("text",))


def test_a_modality_may_be_missing(tmp_path):
    root = mult()
    root["train"]["audio"][2] = 0
    import_here(write(tmp_path / "x.pkl", root))
    made = load_sentiment_file("mosi")
    example = made.source("train")[2]
    assert not example["masks"]["audio"].any() and not example["inputs"]["audio"].any()
    assert any("1 examples have no audio" in one for one in made.facts["warnings"])


def test_nan_and_infinite_values(tmp_path):
    root = mmsa()
    root["train"]["audio"][0, 1, :2] = [np.nan, -np.inf]
    root["test"]["vision"][0, 0, 0] = np.inf
    file = write(tmp_path / "x.pkl", root)
    with pytest.raises(DataError, match="D72") as caught:
        import_here(file)
    said = str(caught.value)
    assert "train audio  1 NaN, 1 infinite" in said and "--nan_to_zero" in said
    assert "test  video  0 NaN, 1 infinite" in said
    assert not list(tmp_path.rglob("MANIFEST.json"))
    found = import_here(file, nan_to_zero=True)
    assert found.repaired == {"train": {"audio": 2}, "test": {"video": 1}}
    made = load_sentiment_file("mosi")
    assert made.facts["repaired"] == found.repaired
    got = made.source("train")[0]["inputs"]["audio"]
    assert np.isfinite(got).all() and not got[1, :2].any() and got[1, 2]


def test_clips_and_videos_in_two_splits_are_rejected(tmp_path):
    root = mmsa()
    root["test"]["id"][2] = "train0$_$0"
    with pytest.raises(
        DataError, match=r"D73[\s\S]*1 clips.*'train0\$_\$0' in train, t"
    ):
        import_here(write(tmp_path / "x.pkl", root))
    root["test"]["id"][2] = "train0$_$7"
    file = write(tmp_path / "y.pkl", root)
    with pytest.raises(
        DataError, match=r"D73[\s\S]*1 videos .*'train0' in train, test"
    ):
        import_here(file)
    assert not list(tmp_path.rglob("MANIFEST.json"))


def test_sims_is_split_by_clip(tmp_path):
    root = mmsa(high=1.0, sims=True)
    root["test"]["id"][2] = "train0$_$7"
    import_here(write(tmp_path / "x.pkl", root), "sims")
    made = load_sentiment_file("sims")
    same_kinds(made, outline("sims"))
    assert not made.groups
    assert any("speakers, are in more than one" in w for w in made.facts["warnings"])
    assert {score.family for score in made.values.values()} == {"sims"}
    assert list(made.values) == ["score", "score_audio", "score_text", "score_video"]
    got = made.label("valid", "score_text")
    np.testing.assert_array_equal(got, scores("valid", 1.0)[::-1])


def test_the_file_is_another_data_set(tmp_path, monkeypatch):
    file = write(tmp_path / "x.pkl", mmsa())
    with pytest.raises(DataError, match=r"D74.*SIMS: -1 to 1[\s\S]*--dataset=mosi"):
        import_here(file, "sims")
    root = mmsa()
    root["train"]["regression_labels"][2] = np.nan
    with pytest.raises(
        DataError, match=r"D79[\s\S]*example 2 'train1.*': nan"
    ) as caught:
        import_here(write(tmp_path / "nan.pkl", root))
    assert "--dataset" not in caught.value.fix
    with pytest.raises(DataError, match=r"D74.*labels score; .*IEMOCAP: emotions"):
        import_here(file, "iemocap")
    with pytest.raises(DataError, match=r"D74.*emotions; .*CMU-MOSI: score"):
        import_here(write(tmp_path / "y.pkl", mult(emotions=True)))
    sha256 = import_here(file).sha256
    monkeypatch.setitem(PUBLISHED_FILES, sha256, PublishedFile("mosei", "MMSA MOSEI"))
    with pytest.raises(DataError, match=r"D74.*is MMSA MOSEI[\s\S]*--dataset=mosei"):
        import_here(file)
    assert import_here(file, "mosei").known == "MMSA MOSEI"
    assert load_sentiment_file("mosei").title == "CMU-MOSEI (MMSA MOSEI)"


def test_without_an_import():
    for name, said in (("mosi", "unaligned_50.pkl"), ("iemocap", "iemocap_data.pkl")):
        with pytest.raises(DataError, match="D75") as caught:
            load_sentiment_file(name)
        message = str(caught.value)
        assert said in message and "https://" in message
        assert f"mmfusion_jax data import FILE --dataset={name}" in message
        assert "runs on embedded data" in message


def test_of_several_imports_one_must_be_named(tmp_path, capsys):
    first = import_here(write(tmp_path / "x.pkl", mmsa()))
    import_here(write(tmp_path / "y.pkl", mult()))
    with pytest.raises(DataError, match=r"D76.*ambiguous") as caught:
        load_sentiment_file("mosi")
    today = time.strftime("%Y-%m-%d")
    for one, line in zip("xy", caught.value.fix.splitlines(), strict=True):
        assert line.endswith(f"17 examples, from {one}.pkl, {today}")
    assert load_sentiment_file("mosi", file="y.pkl").facts["prepared"][:5] == "mult_"
    assert (
        load_sentiment_file("mosi", file="mult")
        .facts["prepared"]
        .startswith("mult_unaligned")
    )
    name = Path(first.folder).name
    assert load_sentiment_file("mosi", file=name).facts["prepared"] == name
    with pytest.raises(DataError, match="D76.*'npz' has no match"):
        load_sentiment_file("mosi", file="npz")
    code, _, said = data(capsys, "check", "mosi")
    assert code == 3 and " --file=mmsa_" in said and "config" not in said
    _, said, _ = data(capsys, "import", str(tmp_path / "x.pkl"), "--dataset=mosi")
    assert f"mea.py:mosi --config.data.file={name}\n" in said
    assert f"check mosi --file={name}\n" in said


def test_the_same_file_again_is_found(tmp_path):
    file = write(tmp_path / "x.pkl", mmsa())
    first, again = import_here(file), import_here(file)
    assert (first.already_imported, again.already_imported) == (False, True)
    assert dataclasses.replace(first, already_imported=True) == again
    moved = import_here(shutil.copy(file, tmp_path / "z.pkl"))
    assert moved.folder == first.folder
    _, manifest = open_import(Path(first.folder), "mosi")
    assert manifest.splits["train"].ids == mmsa()["train"]["id"]
    assert manifest.splits == first.splits and manifest.counts == COUNTS


SMALL = {
    "mea": {
        "data.batch_size": 4,
        "model.num_heads": 2,
        "model.psa_layers": 2,
        "model.hca_layers": 1,
        "model.hidden_dim": 8,
        **{f"model.encoders.{m}.hidden_dim": 8 for m in ("text", "audio", "video")},
    },
    "mcl_mcf": {
        "data.batch_size": 4,
        "model.mixture_dim": 8,
        "model.projection_dim": 12,
        "model.hidden_dim": 8,
        "model.contrastive_dim": 8,
        "model.channels": (2, 1),
        **{f"model.encoders.{m}.hidden_dim": 8 for m in ("audio", "video")},
    },
}
BERT = {
    f"model.encoders.text.{name}": value
    for name, value in dict(
        hidden_dim=8,
        num_layers=1,
        num_heads=2,
        mlp_dim=16,
        vocab_size=64,
        max_position_embeddings=8,
    ).items()
}


def small(word: str):
    """A config of a paper, much smaller."""
    paper = word.split(":")[0]
    config = load_config(f"{CONFIGS / paper}.py:{word.split(':')[1]}")
    config = config.copy_and_resolve_references()
    config.unlock()
    if config.model.encoders.text.name == "bert":
        for name, value in BERT.items():
            config.model.encoders.text[name.split(".")[-1]] = value
    config.update_from_flattened_dict(SMALL[paper])
    config.train.epochs = 1
    return config


FILES = {
    "mosi": lambda: mmsa(),
    "mosei": lambda: mult(aligned=True),
    "sims": lambda: mmsa(high=1.0, sims=True),
    "iemocap": lambda: one_emotion(mult(emotions=True)),
}
LOGITS = {"emotions": 8, "emotion": 4}


def one_emotion(root: dict) -> dict:
    """A file with exactly one flag for the last four examples of every split."""
    for table in root.values():
        table["labels"][-4:] = np.eye(2, dtype=int)[np.eye(4, dtype=int)]
    return root


@pytest.mark.parametrize(
    "word",
    [
        "mea:mosi",
        "mea:mosei",
        "mea:iemocap",
        "mea:iemocap_emotion",
        "mcl_mcf:iemocap_emotion",
        "mcl_mcf:mosi",
        "mcl_mcf:mosi_vectors",
        "mcl_mcf:mosei_vectors",
        "mcl_mcf:sims",
    ],
)
def test_every_config_has_a_loss_on_its_data(tmp_path, word):
    config = small(word)
    name = config.data.name
    import_here(write(tmp_path / "x.pkl", FILES[name]()), name)
    spec = resolve(config)
    made = build_data.build_dataset(spec, 0)
    prediction, total = traced_loss(spec, made)
    size = LOGITS.get(config.data.label)
    assert prediction.shape == ((4, size) if size else (4,))
    assert total.shape == ()


@pytest.mark.slow
@pytest.mark.parametrize("word", ["mea:mosi", "mcl_mcf:mosi"])
def test_the_command_trains_for_an_epoch(tmp_path, word):
    import_here(write(tmp_path / "x.pkl", mmsa()))
    paper, data_word = word.split(":")
    values = SMALL[paper] | (BERT if paper == "mcl_mcf" else {})
    words = [
        f"--config.{k}={','.join(map(str, np.ravel(v)))}" for k, v in values.items()
    ]
    command = [sys.executable, "-m", "mmfusion_jax.main"]
    command += [f"--config={CONFIGS / paper}.py:{data_word}", "--config.train.epochs=1"]
    done = subprocess.run([*command, *words, "--workdir=run"], timeout=900)
    assert done.returncode == 0
    result = json.loads(Path("run/result.json").read_text())
    assert result["data"]["facts"]["prepared"].startswith("mmsa_unaligned")


def test_commands_import_and_check(tmp_path, capsys, cache):
    root = mmsa()
    root["train"]["audio"][0, 1, 1] = -np.inf
    file = write(tmp_path / "some.pkl", root)
    code, out, err = data(capsys, "check", str(file))
    assert code == 1 and "problem: train: NaN or infinite values" in out
    code, out, err = data(capsys, "import", str(file), "--dataset=mosi")
    assert code == 3 and err.splitlines()[-1].startswith("  fix: --nan_to_zero")
    code, out, err = data(
        capsys, "import", "--dataset", "mosi", str(file), "--nan_to_zero"
    )
    assert code == 0
    for said in (
        "some.pkl: CMU-MOSI, layout mmsa_unaligned",
        "not recognized",
        "train: NaN and infinite values set to 0: 1 of audio",
        "--config=configs/mea.py:mosi",
        f"imported: {cache / 'mosi' / 'mmsa_unaligned-'}",
    ):
        assert said in out, out
    code, out, err = data(capsys, "check", "mosi")
    assert code == 0 and "no problem was found in what could be checked" in out
    assert "not checked: ids such as 'train0$_$0' begin with the name of their" in out
    assert "baseline on test (training median: " in out and "): MAE " in out
    code, out, err = data(capsys, "check", "mosi", "--json")
    assert json.loads(out)["repaired"] == {"train": {"audio": 1}}
    (shard,) = (cache / "mosi").glob("*/*train*array_record*")
    os.truncate(shard, 10)
    code, out, err = data(capsys, "check", "mosi")
    assert code == 3 and "error[D21]" in err and "import FILE --dataset=mosi" in err


def test_an_npz_may_be_what_one_trains_on(tmp_path, capsys):
    np.savez("own.npz", **npz(emotions=True))  # pyright: ignore[reportArgumentType]
    code, out, _ = data(capsys, "import", "own.npz", "--dataset=iemocap")
    assert code == 0
    made = load_sentiment_file("iemocap")
    assert made.flags == {"emotions": ("neutral", "happy", "sad", "angry")}
    assert made.label("valid", "emotions").tolist() == np.eye(4).tolist()
    code, out, _ = data(capsys, "check", "iemocap")
    assert code == 0 and "happy 0.250" in out
    assert "baseline on test (majority answer of each flag): accuracy " in out


def some_emotions(split: str) -> np.ndarray:
    """Flags of every example: none, two, or the class `i % 4` at position `i`."""
    flags = np.eye(4, dtype="i8")[np.arange(COUNTS[split]) % 4]
    flags[0], flags[2] = 0, (0, 1, 0, 1)
    return flags


def test_one_emotion_is_a_class_and_the_other_examples_are_left_out(capsys):
    arrays = npz(emotions=True)
    arrays |= {f"{split}_emotions": some_emotions(split) for split in COUNTS}
    np.savez("own.npz", **arrays)  # pyright: ignore[reportArgumentType]
    code, out, _ = data(capsys, "import", "own.npz", "--dataset=iemocap")
    assert code == 0
    count = "1 neutral, 2 happy, 1 sad, 2 angry; left out: 1 with no emotion, 1 with"
    assert f"train: emotion: {count} several" in out
    flags = load_sentiment_file("iemocap")
    made = load_sentiment_file("iemocap", label="emotion")
    same_kinds(made, outline("iemocap", label="emotion"))
    assert made.title.startswith("IEMOCAP, one of 4 emotions (npz-")
    assert flags.title.startswith("IEMOCAP, 4 yes/no emotions (npz-")
    for split, n in COUNTS.items():
        rows = [i for i in range(n) if i not in (0, 2)]
        assert len(flags.source(split)) == n and len(made.source(split)) == n - 2
        assert made.label(split, "emotion").tolist() == [i % 4 for i in rows]
        assert made.example_ids[split] == [flags.example_ids[split][i] for i in rows]
        for new, old in enumerate(rows):
            example, same = made.source(split)[new], flags.source(split)[old]
            assert example["labels"].pop("emotion") == old % 4
            for group in ("inputs", "masks", "labels"):
                for name, values in same[group].items():
                    np.testing.assert_array_equal(example[group][name], values)
    assert made.facts["counts"] == {split: n - 2 for split, n in COUNTS.items()}
    table, left_out = made.facts["warnings"][-2:]
    assert "not comparable with the yes/no flags of MulT and MEA, Table IV" in table
    assert left_out == (
        "label 'emotion': 6 examples are left out (train: 1 with no emotion, 1 with "
        "several; valid: 1 with no emotion, 1 with several; test: 1 with no emotion, "
        "1 with several)"
    )
    assert "not comparable with an accuracy over four" in flags.facts["warnings"][-1]


@pytest.mark.ci
def test_emotions_without_scores_have_commands(tmp_path, capsys, traced):
    """Every command traces its loss on the flags, or on the one that is set."""
    arrays = npz()
    for split, count in COUNTS.items():
        del arrays[f"{split}_score"]
        arrays[f"{split}_emotions"] = np.eye(6, dtype="i4")[np.arange(count) % 6]
    np.savez("own.npz", **arrays)  # pyright: ignore[reportArgumentType]
    code, out, _ = data(capsys, "import", "own.npz", "--dataset=mosei", "--json")
    assert code == 0
    found = [line.split("configs/")[1] for line in json.loads(out)["commands"]]
    flags = "--config.data.label=emotions --config.losses.task.name=multilabel"
    assert found == [
        f"mea.py:mosei {flags} --config.train.selection_metric=f1",
        f"mcl_mcf.py:mosei_vectors {flags} --config.train.selection_metric=f1",
        "hetero_fusion_net.py:mosei --config.data.label=emotion",
        "of_cmaer_cat.py:mosei --config.data.label=emotion",
    ]


def test_emotions_of_mosei_where_a_file_has_them(tmp_path, capsys):
    root = mult(aligned=True)
    file = write(tmp_path / "plain.pkl", root)
    import_here(file, "mosei")
    for label in ("emotions", "emotion"):
        with pytest.raises(
            ConfigError, match=rf"C07.*label='{label}': plain.pkl has no"
        ):
            load_sentiment_file("mosei", label=label)
    for split, table in root.items():
        six = np.eye(6)[np.arange(COUNTS[split]) % 6] / 3
        six[1] = 0
        table["labels"] = np.append(scores(split)[:, None], six, axis=1)[:, None]
    file = write(tmp_path / "six.pkl", root)
    with pytest.raises(
        DataError, match=r"D74.*6 emotions; expected for CMU-MOSI: none"
    ):
        import_here(file, "mosi")
    found = import_here(file, "mosei")
    code, out, _ = data(capsys, "check", str(file))
    assert "test: emotions: 0 0.200, 1 0.000" in out
    options = {"file": Path(found.folder).name}
    for label in ("emotions", "emotion"):
        made = load_sentiment_file("mosei", label=label, **options)
        same_kinds(made, outline("mosei", label=label))
    names = ("happy", "sad", "anger", "surprise", "disgust", "fear")
    assert made.classes["emotion"] == made.flags["emotions"] == names
    assert made.label("test", "emotion").tolist() == [0, 2, 3, 4]
    np.testing.assert_array_equal(
        made.label("test", "score"), scores("test")[[0, 2, 3, 4]]
    )
    made = load_sentiment_file("mosei", **options)
    assert made.label("test", "emotions").sum(axis=1).tolist() == [1, 0, 1, 1, 1]
    assert made.title.startswith("CMU-MOSEI (mult_aligned")


def test_the_example_in_the_documentation_is_read(tmp_path):
    page = (CONFIGS.parent / "docs" / "formats.md").read_text("utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    import_here("own.npz")
    shapes = {
        k: v.shape
        for k, v in load_sentiment_file("mosi").source("test")[0]["inputs"].items()
    }
    assert shapes == {"text": (30, 300), "audio": (80, 74), "video": (90, 35)}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["imprt"], 2, "did you mean 'import'?"),
        (["import"], 2, "FILE is"),
        (["import", "x.pkl"], 2, "--dataset is"),
        (["import", "x.pkl", "--dataset=mosy"], 2, "did you mean 'mosi'?"),
        (["import", "x.pkl", "y.pkl", "--dataset=mosi"], 2, "'y.pkl'"),
        (
            ["import", "x.pkl", "--dataset=mosi", "--nan_to_zeros"],
            2,
            "did you mean '--nan_to_zero'?",
        ),
        (
            ["import", "x.pkl", "--dataset=mosi", "--max_memory_gb=x"],
            2,
            "is not a number",
        ),
        (["import", "x.pkl", "--dataset=mosi"], 3, "error[D30] x.pkl does not exist"),
        (["check"], 2, "NAME|FILE|FOLDER is"),
        (["check", "mosei"], 3, "error[D75]"),
        (["check", "mosie"], 3, "error[D30]"),
    ],
)
def test_errors_are_named(capsys, words, code, said):
    got, out, err = data(capsys, *words)
    assert got == code and said in err and not out
    assert len(err.splitlines()) <= 7 and "Traceback" not in err


def test_a_cache_that_is_not_writable_is_an_error_before_reading(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"D22[\s\S]*MMFUSION_CACHE"):
        import_here(tmp_path / "nothing.pkl")  # nothing is read before


def test_the_import_is_sandboxed(tmp_path, capsys):
    file = write(tmp_path / "x.pkl", {"train": os.system})
    code, _, err = data(capsys, "import", str(file), "--dataset=mosi")
    assert code == 3 and "error[D61]" in err
    root = mmsa()
    root["train"]["spare"] = np.zeros(60_000_000, "u1")
    file = write(tmp_path / "big.pkl", root)
    code, _, err = data(
        capsys, "import", str(file), "--dataset=mosi", "--max_memory_gb=0.05"
    )
    assert code == 3 and "error[D65]" in err and "raise --max_memory_gb" in err


def test_imports_are_listed_and_removed(tmp_path, capsys, cache, monkeypatch):
    import_here(write(tmp_path / "x.pkl", mmsa()))
    import_here(write(tmp_path / "y.pkl", mult()))
    import_here(write(tmp_path / "z.pkl", mmsa(high=1.0, sims=True)), "sims")
    (cache / "mosi" / ".half.building-1").mkdir()
    (cache / "mosi" / ".half.building-1" / "MANIFEST.json").touch()
    code, out, _ = data(capsys, "list")
    names = [line.split()[0] for line in out.splitlines()]
    assert code == 0 and names[0].startswith("mosi/mmsa_unaligned-")
    assert names[1].startswith("mosi/mult_unaligned-")
    assert names[2].startswith("sims/") and names[3] == "3"
    about = "MB  mosi features (mmsa_unaligned), 17 examples, from x.pkl, "
    assert f"{about}{time.strftime('%Y-%m-%d')}" in out.splitlines()[0]
    assert str(tmp_path / "cache") in out.splitlines()[-1]
    _, out, _ = data(capsys, "list", "--json")
    assert [store["name"] for store in json.loads(out)] == names[:3]
    assert min(store["bytes"] for store in json.loads(out)) > 1000
    for store in json.loads(out):
        assert store["kind"] == "imported" and store["source"].endswith(".pkl")
        assert store["date"] == time.strftime("%Y-%m-%d")

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))  # not a terminal
    code, _, err = data(capsys, "remove", "sims")
    assert code == 2 and "error[C01]" in err and "--yes" in err
    assert f"{cache / 'sims' / 'mmsa_unaligned-'}" in err
    code, _, err = data(capsys, "remove", "mosi", "--yes")
    assert code == 3 and "error[D76]" in err
    code, _, err = data(capsys, "remove", "mosy", "--yes")
    assert code == 3 and "error[D75]" in err
    code, out, _ = data(capsys, "remove", "sims", "--yes")
    assert code == 0 and "deleted" in out and not list((cache / "sims").glob("mmsa*"))
    assert not [path for path in (cache / "sims").iterdir() if path.is_dir()]
    with pytest.raises(DataError, match="D75"):
        load_sentiment_file("sims")


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)])
def test_removing_asks_for_confirmation(
    tmp_path, capsys, cache, monkeypatch, answer, code
):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    folder = import_here(write(tmp_path / "x.pkl", mmsa())).folder
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    got, _, err = data(capsys, "remove", Path(folder).name)
    assert got == code and f"This deletes {folder} (" in err
    assert Path(folder).exists() == bool(code)


def test_help_and_errors_of_data_do_not_wait():
    probe = [sys.executable, "-m", "mmfusion_jax", "data"]
    for words, code in ((["--help"], 0), (["import", "--help"], 0), (["import"], 2)):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([*probe, *words], timeout=60, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == code
        took = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        assert took < 0.5


def imported(tmp_path, capsys, root, name="mosi") -> tuple[list[str], str]:
    """The commands that an import prints to train, and all that it prints."""
    file = write(tmp_path / "own.pkl", root)
    code, out, _ = data(capsys, "import", str(file), f"--dataset={name}")
    assert code == 0
    start = "train:  python -m mmfusion_jax.main --config=configs/"
    lines = [line for line in out.splitlines() if line.startswith("train: ")]
    assert all(line.startswith(start) for line in lines)
    return [line.removeprefix(start) for line in lines], out


def test_json_of_an_import_has_the_commands_that_are_printed(tmp_path, capsys):
    file = write(tmp_path / "own.pkl", equal_clips("train", "valid"))
    words = ["import", str(file), "--dataset=mosi"]
    code, _, err = data(capsys, *words, "--json")
    assert code == 3 and "error[D73]" in err
    _, out, _ = data(capsys, *words, "--equal_clips", "--json")
    found = json.loads(out)
    assert found["name"] == "mosi" and found["misfits"] == []
    _, out, _ = data(capsys, *words, "--equal_clips")
    printed = [line for line in out.splitlines() if line.startswith("train:  ")]
    assert found["commands"] == [line.removeprefix("train:  ") for line in printed]
    # The commands accept what the import was told to accept.
    assert len(printed) == 3
    assert all("--config.data.equal_clips=True" in line for line in printed)


def without(root: dict, *names: str) -> dict:
    """A file without some entries."""
    for part in root.values():
        for name in names:
            part.pop(name, None)
    return root


@pytest.mark.ci
def test_the_printed_commands_take_out_the_encoder_of_an_absent_modality(
    tmp_path, capsys, traced
):
    found, _ = imported(tmp_path, capsys, without(mmsa(), "text", "text_bert"))
    assert found == ["mea.py:mosi --config.model.encoders.text=None"]


def test_ids_beyond_the_vocabulary_are_named_and_their_config_is_not_printed(
    tmp_path, capsys, traced
):
    root = without(mmsa(high=1.0, sims=True), "text")
    root["train"]["text_bert"][0, 0, :2] = 1, 29000
    found, out = imported(tmp_path, capsys, root, "sims")
    assert found == [] and "no config of this library fits the file as it is" in out
    assert (
        "mcl_mcf:sims does not fit: config.model.encoders.text.vocab_size=21128" in out
    )
    assert "has ids from 1 to 29000" in out


def test_a_config_that_fails_in_another_way_is_named(tmp_path, capsys, monkeypatch):
    def fail(word, flags):
        if word == "mcl_mcf:mosi":
            raise TypeError("dot_general requires contracting dimensions")

    monkeypatch.setattr(train_commands, "trace_loss", fail)
    found, out = imported(tmp_path, capsys, mmsa())
    assert found == ["mea.py:mosi", "mcl_mcf.py:mosi_vectors"]
    assert "mcl_mcf:mosi does not fit: dot_general requires" in out


@pytest.mark.ci
def test_the_printed_commands_are_those_that_fit(tmp_path, capsys, traced):
    found, out = imported(tmp_path, capsys, mult(aligned=True), "mosei")
    flag = "--config.model.encoders.text.name=lstm"
    assert found == [
        "mea.py:mosei",
        f"mcl_mcf.py:mosei_vectors {flag}",
        "hetero_fusion_net.py:mosei",
        "of_cmaer_cat.py:mosei",
    ]
    assert "does not fit" not in out
    write_mmim(tmp_path / "MOSI")
    code, out, _ = data(capsys, "import", str(tmp_path / "MOSI"), "--dataset=mosi")
    words = "--config.data.text=words --config.model.encoders.text.vocab_size=7"
    assert code == 0 and f"mea.py:mosi {words}" in out and "mcl_mcf" not in out


@pytest.mark.slow
def test_every_config_of_iemocap_fits_its_usual_file(tmp_path, capsys, traced):
    root = one_emotion(mult(emotions=True))
    found, _ = imported(tmp_path, capsys, root, "iemocap")
    assert [words.split()[0] for words in found] == [
        "mea.py:iemocap",
        "mea.py:iemocap_emotion",
        "mcl_mcf.py:iemocap_emotion",
        "hetero_fusion_net.py:iemocap",
        "hetero_fusion_net.py:iemocap_emotion",
        "of_cmaer_cat.py:iemocap",
        "of_cmaer_cat.py:iemocap_emotion",
    ]


@pytest.mark.slow
def test_a_printed_command_with_two_modalities_trains(tmp_path, capsys, traced):
    root = without(mmsa(), "text", "text_bert")
    (words, *_), _ = imported(tmp_path, capsys, root)
    sizes = {k: v for k, v in SMALL["mea"].items() if ".text." not in k}
    flags = [f"--config.{k}={v}" for k, v in sizes.items()]
    config, *rest = words.split()
    command = [sys.executable, "-m", "mmfusion_jax.main"]
    command += [f"--config={CONFIGS / config}", *rest, *flags]
    command += ["--config.train.epochs=1", "--workdir=run"]
    assert subprocess.run(command, timeout=900).returncode == 0


def test_an_import_of_an_earlier_version_is_not_an_ambiguity(tmp_path, capsys):
    folder = Path(import_here(write(tmp_path / "x.pkl", mmsa())).folder)
    old = shutil.copytree(folder, folder.with_name("mmsa_unaligned-0000"))
    manifest = json.loads((old / "MANIFEST.json").read_text())
    (old / "MANIFEST.json").write_text(json.dumps({**manifest, "version": 3}))
    assert load_sentiment_file("mosi").facts["prepared"] == folder.name
    _, out, _ = data(capsys, "list")
    assert "of another version: import it again" in out.splitlines()[0]
    shutil.rmtree(folder)
    with pytest.raises(DataError, match="D21.*has version 3"):
        load_sentiment_file("mosi")


def test_a_store_in_use_or_outside_of_the_cache_is_not_removed(tmp_path, capsys):
    folder = Path(import_here(write(tmp_path / "x.pkl", mmsa())).folder)
    hold = "import sys, time; f = open(sys.argv[1]); print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", hold, str(next(folder.glob("*train*")))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        code, _, err = data(capsys, "remove", "mosi", "--yes")
        process.kill()
    assert code == 3 and f"error[D29] '{folder}' is in use by process" in err
    outside = tmp_path / "elsewhere"
    folder.rename(outside)
    folder.symlink_to(outside)
    code, _, err = data(capsys, "remove", "mosi", "--yes")
    assert code == 3 and "error[D29]" in err and str(outside) in err
    assert (outside / "MANIFEST.json").is_file()
