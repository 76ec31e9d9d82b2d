"""From a file to a data set that both papers' configs train on, by the commands."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from feature_files import (
    COUNTS,
    STEPS,
    WIDTHS,
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

from mmfusion_jax.cli.command import run_subcommand
from mmfusion_jax.commands.data_files import COMMANDS
from mmfusion_jax.config import build
from mmfusion_jax.config.load import load_config
from mmfusion_jax.data.datasets.sentiment_files import load_sentiment_file, outline
from mmfusion_jax.data.feature_files.checksums import PUBLISHED_FILES, PublishedFile
from mmfusion_jax.data.feature_files.importer import import_file
from mmfusion_jax.data.storage.array_record_store import open_store
from mmfusion_jax.errors import ConfigError, DataError

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test alone, and a folder for its log."""
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "imported"


def bring(file, name="mosi", *, repair=False):
    """Imports without a process of its own."""
    parent = Path(os.environ["MMFUSION_CACHE"]) / "imported" / name
    return import_file(str(file), name, str(parent), repair)


def data(capsys, *words):
    """Exit code, stdout and stderr of a command about data."""
    code = run_subcommand("mmfusion_jax data", "About data.", COMMANDS, words)
    return code, *capsys.readouterr()


@pytest.mark.parametrize("aligned", [True, False])
def test_examples_are_padded_at_the_end_and_masked(tmp_path, aligned):
    bring(write(tmp_path / "x.pkl", mmsa(aligned=aligned)))
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
    bring(write(tmp_path / "x.pkl", mult(), 2))
    example = load_sentiment_file("mosi").source("test")[1]
    own = lengths("test", "audio")
    want = rows("test", "audio", own)[1]
    np.testing.assert_array_equal(example["inputs"]["audio"][: own[1]], want)
    assert example["masks"]["audio"].sum() == own[1] == len(want)


@pytest.mark.parametrize("text", ["vectors", "bert"])
def test_the_outline_is_of_the_same_kinds(tmp_path, text):
    bring(write(tmp_path / "x.pkl", mmsa(aligned=True)))
    same_kinds(load_sentiment_file("mosi", text=text), outline("mosi", text=text))


def test_text_as_vectors_as_ids_or_as_words(tmp_path):
    bring(write(tmp_path / "x.pkl", mmsa()))
    example = load_sentiment_file("mosi", text="bert").source("train")[1]
    ids, mask = example["inputs"]["text"], example["masks"]["text"]
    assert ids.dtype == np.int32 and ids.shape == mask.shape == (6,)
    assert ids[mask].all() and not ids[~mask].any()
    with pytest.raises(DataError, match=r"D77.*'words'[\s\S]*text=vectors or .*=bert"):
        load_sentiment_file("mosi", text="words")
    with pytest.raises(ConfigError, match=r"C03.*'bort'[\s\S]*'bert'"):
        load_sentiment_file("mosi", text="bort")
    bring(write_mmim(tmp_path / "MOSEI"), "mosei")
    example = load_sentiment_file("mosei", text="words").source("train")[0]
    assert example["inputs"]["text"].tolist() == [1, 2, 3, 4, 5, 6]


def test_features_are_standardised_if_asked(tmp_path):
    bring(write(tmp_path / "x.pkl", mmsa()))
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
    bring(write(tmp_path / "x.pkl", root))
    made = load_sentiment_file("mosi")
    example = made.source("train")[2]
    assert not example["masks"]["audio"].any() and not example["inputs"]["audio"].any()
    assert any("1 examples have no audio" in one for one in made.facts["warnings"])


def test_values_that_are_no_numbers(tmp_path):
    root = mmsa()
    root["train"]["audio"][0, 1, :2] = [np.nan, -np.inf]
    root["test"]["vision"][0, 0, 0] = np.inf
    file = write(tmp_path / "x.pkl", root)
    with pytest.raises(DataError, match="D72") as caught:
        bring(file)
    said = str(caught.value)
    assert "train audio  1 NaN, 1 infinite" in said and "--repair" in said
    assert "test  video  0 NaN, 1 infinite" in said
    assert not list(tmp_path.rglob("MANIFEST.json"))
    found = bring(file, repair=True)
    assert found["repaired"] == {"train": {"audio": 2}, "test": {"video": 1}}
    made = load_sentiment_file("mosi")
    assert made.facts["repaired"] == found["repaired"]
    got = made.source("train")[0]["inputs"]["audio"]
    assert np.isfinite(got).all() and not got[1, :2].any() and got[1, 2]


def test_a_clip_in_two_splits_is_refused_and_a_video_is_not_trained_on(tmp_path):
    root = mmsa()
    root["test"]["id"][2] = "train0$_$0"
    with pytest.raises(DataError, match=r"D73.*'train0\$_\$0' in train and test"):
        bring(write(tmp_path / "x.pkl", root))
    root["test"]["id"][2] = "train0$_$7"
    file = write(tmp_path / "y.pkl", root)
    bring(file)
    with pytest.raises(DataError, match="D10.*'train0'"):
        load_sentiment_file("mosi")


def test_sims_is_divided_by_clip(tmp_path):
    root = mmsa(high=1.0, sims=True)
    root["test"]["id"][2] = "train0$_$7"
    bring(write(tmp_path / "x.pkl", root), "sims")
    made = load_sentiment_file("sims")
    same_kinds(made, outline("sims"))
    assert not made.groups
    assert any("speakers, are in more than one" in w for w in made.facts["warnings"])
    assert {score.family for score in made.values.values()} == {"sims"}
    assert list(made.values) == ["score", "score_audio", "score_text", "score_video"]
    got = made.label("valid", "score_text")
    np.testing.assert_array_equal(got, scores("valid", 1.0)[::-1])


def test_another_data_set_than_said(tmp_path, monkeypatch):
    file = write(tmp_path / "x.pkl", mmsa())
    with pytest.raises(DataError, match=r"D74.*not from -1 to 1[\s\S]*--as=mosi"):
        bring(file, "sims")
    root = mmsa()
    root["train"]["regression_labels"][2] = np.nan
    with pytest.raises(DataError, match="D74.*example 2: score nan") as caught:
        bring(write(tmp_path / "nan.pkl", root))
    assert "--as" not in caught.value.fix
    with pytest.raises(DataError, match=r"D74.*labels score; .*IEMOCAP are emotions"):
        bring(file, "iemocap")
    with pytest.raises(DataError, match=r"D74.*emotions; .*CMU-MOSI are score"):
        bring(write(tmp_path / "y.pkl", mult(emotions=True)))
    sha256 = bring(file)["sha256"]
    monkeypatch.setitem(PUBLISHED_FILES, sha256, PublishedFile("mosei", "MMSA MOSEI"))
    with pytest.raises(DataError, match=r"D74.*is MMSA MOSEI[\s\S]*--as=mosei"):
        bring(file)
    assert bring(file, "mosei")["known"] == "MMSA MOSEI"
    assert load_sentiment_file("mosei").title == "CMU-MOSEI (MMSA MOSEI)"


def test_nothing_is_imported_yet():
    for name, said in (("mosi", "unaligned_50.pkl"), ("iemocap", "iemocap_data.pkl")):
        with pytest.raises(DataError, match="D75") as caught:
            load_sentiment_file(name)
        message = str(caught.value)
        assert said in message and "https://" in message
        assert f"mmfusion_jax data import FILE --as={name}" in message
        assert "runs on embedded data" in message


def test_of_several_imports_one_must_be_named(tmp_path, capsys):
    first = bring(write(tmp_path / "x.pkl", mmsa()))
    bring(write(tmp_path / "y.pkl", mult()))
    with pytest.raises(DataError, match=r"D76.*several[\s\S]*mmsa_.* or .*mult_"):
        load_sentiment_file("mosi")
    assert (
        load_sentiment_file("mosi", file="mult")
        .facts["prepared"]
        .startswith("mult_unaligned")
    )
    name = Path(first["folder"]).name
    assert load_sentiment_file("mosi", file=name).facts["prepared"] == name
    with pytest.raises(DataError, match="D76.*'npz' fits none"):
        load_sentiment_file("mosi", file="npz")
    code, _, said = data(capsys, "doctor", "mosi")
    assert code == 3 and " --file=mmsa_" in said and "config" not in said
    _, said, _ = data(capsys, "import", str(tmp_path / "x.pkl"), "--as=mosi")
    assert f"mea.py:mosi --config.data.file={name}\n" in said
    assert f"doctor mosi --file={name}\n" in said


def test_the_same_file_again_is_found(tmp_path):
    file = write(tmp_path / "x.pkl", mmsa())
    first, again = bring(file), bring(file)
    assert (first["there"], again["there"]) == (False, True)
    assert {**first, "there": True} == again
    moved = bring(shutil.copy(file, tmp_path / "z.pkl"))
    assert moved["folder"] == first["folder"]
    manifest = open_store(Path(first["folder"])).manifest
    assert manifest["report"]["train"]["ids"] == mmsa()["train"]["id"]


SMALL = {
    "mea": {
        "data.batch_size": 4,
        "model.heads": 2,
        "model.psa_layers": 2,
        "model.hca_layers": 1,
        "model.width": 8,
        **{f"model.encoders.{m}.width": 8 for m in ("text", "audio", "video")},
    },
    "mcl_mcf": {
        "data.batch_size": 4,
        "model.mixed": 8,
        "model.lifted": 12,
        "model.hidden": 8,
        "model.projected": 8,
        "model.channels": (2, 1),
        **{f"model.encoders.{m}.width": 8 for m in ("audio", "video")},
    },
}
BERT = {
    f"model.encoders.text.{name}": value
    for name, value in dict(
        width=8, depth=1, heads=2, hidden=16, vocabulary=64, places=8
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
    "iemocap": lambda: mult(emotions=True),
}


@pytest.mark.parametrize(
    "word",
    [
        "mea:mosi",
        "mea:mosei",
        "mea:iemocap",
        "mcl_mcf:mosi",
        "mcl_mcf:mosi_vectors",
        "mcl_mcf:mosei_vectors",
        "mcl_mcf:sims",
    ],
)
def test_every_config_has_a_loss_on_its_data(tmp_path, word):
    config = small(word)
    name = config.data.name
    bring(write(tmp_path / "x.pkl", FILES[name]()), name)
    made = build.dataset(config, 0)
    parts = build.parts(config, made, 1)
    reader = build.pipeline(config, made, 0)

    def loss(batch):
        key = jax.random.key(0)
        variables = parts.model.init(key, batch, train=False)
        outputs = parts.model.apply(
            variables,
            batch,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )[0]
        return outputs.prediction, parts.objective(outputs, batch, 0)[0]

    prediction, total = jax.eval_shape(loss, next(iter(reader.train(0, 1))))
    assert prediction.shape == ((4, 8) if name == "iemocap" else (4,))
    assert total.shape == ()


@pytest.mark.slow
@pytest.mark.parametrize("word", ["mea:mosi", "mcl_mcf:mosi"])
def test_the_command_trains_for_an_epoch(tmp_path, word):
    bring(write(tmp_path / "x.pkl", mmsa()))
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


def test_a_file_is_imported_and_examined_by_command(tmp_path, capsys, cache):
    root = mmsa()
    root["train"]["audio"][0, 1, 1] = -np.inf
    file = write(tmp_path / "some.pkl", root)
    code, out, err = data(capsys, "doctor", str(file))
    assert code == 1 and "problem: train: values that are NaN" in out
    code, out, err = data(capsys, "import", str(file), "--as=mosi")
    assert code == 3 and err.splitlines()[-1].startswith("  fix: --repair")
    code, out, err = data(capsys, "import", "--as", "mosi", str(file), "--repair")
    assert code == 0
    for said in (
        "some.pkl: CMU-MOSI, layout mmsa_unaligned",
        "not recognised",
        "repaired in train: values set to 0: 1 of audio",
        "--config=configs/mea.py:mosi",
        f"imported: {cache / 'mosi' / 'mmsa_unaligned-'}",
    ):
        assert said in out, out
    code, out, err = data(capsys, "doctor", "mosi")
    assert code == 0 and "no problem was found" in out
    assert "to beat on test: always the training median" in out
    code, out, err = data(capsys, "doctor", "mosi", "--json")
    assert json.loads(out)["repaired"] == {"train": {"audio": 1}}
    (shard,) = (cache / "mosi").glob("*/*train*array_record*")
    os.truncate(shard, 10)
    code, out, err = data(capsys, "doctor", "mosi")
    assert code == 3 and "error[D21]" in err and "import FILE --as=mosi" in err


def test_an_npz_may_be_what_one_trains_on(tmp_path, capsys):
    np.savez("own.npz", **npz(emotions=True))  # pyright: ignore[reportArgumentType]
    code, out, _ = data(capsys, "import", "own.npz", "--as=iemocap")
    assert code == 0
    made = load_sentiment_file("iemocap")
    assert made.flags == {"emotions": ("neutral", "happy", "sad", "angry")}
    assert made.label("valid", "emotions").tolist() == np.eye(4).tolist()
    code, out, _ = data(capsys, "doctor", "iemocap")
    assert code == 0 and "happy 0.250" in out and "to beat on test" in out


def test_the_example_in_the_documentation_is_read(tmp_path):
    page = (CONFIGS.parent / "docs" / "formats.md").read_text("utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    bring("own.npz")
    shapes = {
        k: v.shape
        for k, v in load_sentiment_file("mosi").source("test")[0]["inputs"].items()
    }
    assert shapes == {"text": (30, 300), "audio": (80, 74), "video": (90, 35)}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["imprt"], 2, "did you mean 'import'?"),
        (["import"], 2, "FILE is missing"),
        (["import", "x.pkl"], 2, "--as is missing"),
        (["import", "x.pkl", "--as=mosy"], 2, "did you mean 'mosi'?"),
        (["import", "x.pkl", "y.pkl", "--as=mosi"], 2, "'y.pkl' is no flag"),
        (["import", "x.pkl", "--as=mosi", "--repare"], 2, "did you mean '--repair'?"),
        (["import", "x.pkl", "--as=mosi", "--memory_gb=x"], 2, "is not a number"),
        (["import", "x.pkl", "--as=mosi"], 3, "error[D30] x.pkl is not there"),
        (["doctor"], 2, "NAME|FILE is missing"),
        (["doctor", "mosei"], 3, "error[D75]"),
        (["doctor", "mosie"], 3, "error[D30]"),
    ],
)
def test_a_mistake_is_named(capsys, words, code, said):
    got, out, err = data(capsys, *words)
    assert got == code and said in err and not out
    assert len(err.splitlines()) <= 7 and "Traceback" not in err


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"D22[\s\S]*MMFUSION_CACHE"):
        bring(tmp_path / "nothing.pkl")  # nothing is read before


def test_the_import_is_caged(tmp_path, capsys):
    file = write(tmp_path / "x.pkl", {"train": os.system})
    code, _, err = data(capsys, "import", str(file), "--as=mosi")
    assert code == 3 and "error[D61]" in err
    root = mmsa()
    root["train"]["spare"] = np.zeros(60_000_000, "u1")
    file = write(tmp_path / "big.pkl", root)
    code, _, err = data(capsys, "import", str(file), "--as=mosi", "--memory_gb=0.05")
    assert code == 3 and "error[D65]" in err and "raise --memory_gb" in err


def test_help_and_mistakes_about_data_do_not_wait():
    probe = [sys.executable, "-m", "mmfusion_jax", "data"]
    for words, code in ((["--help"], 0), (["import", "--help"], 0), (["import"], 2)):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([*probe, *words], timeout=60, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == code
        took = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        assert took < 0.5
