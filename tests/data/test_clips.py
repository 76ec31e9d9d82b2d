"""Folders of clips with labels.csv: examples, splits, the cache and error messages."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from media_files import gray_steps, tone, write_video, write_wav

from mmfusion_jax import testing
from mmfusion_jax.data.datasets.clips import load_clips
from mmfusion_jax.data.media import clip_store, decode_clips
from mmfusion_jax.data.media.decode import mfcc
from mmfusion_jax.data.media.labels_csv import read_labels
from mmfusion_jax.errors import ConfigError, DataError
from mmfusion_jax.runner.folds import dataset_lines

SMALL = {"frames": 3, "size": 8, "sample_rate": 16000, "workers": 0}
HEAD = "file,label,split\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Twelve clips of two classes: videos, a video without audio, a wav."""
    folder = tmp_path_factory.mktemp("media")
    for i in range(10):
        frames = [np.full((32, 32, 3), 20 * i, np.uint8)] * 5
        write_video(folder / f"{i}.mp4", frames, tone(1 + i / 10, 200 + 100 * i))
    write_video(folder / "silent.mp4")
    write_wav(folder / "audio.wav", tone(0.5))
    return folder


@pytest.fixture
def folder(media, tmp_path):
    return shutil.copytree(media, tmp_path / "talks")


def table(folder, text):
    (folder / "labels.csv").write_text(text)
    return str(folder)


def full(folder):
    lines = [f"{i}.mp4,{'ab'[i % 2]},{'train' if i < 6 else 'test'}" for i in range(10)]
    return table(folder, HEAD + "\n".join(lines))


@pytest.mark.parametrize("standardize", [False, True])
def test_properties(folder, standardize):
    data = load_clips(full(folder), standardize=standardize, **SMALL)
    assert "labels in range" in testing.check_dataset(data, "label").checked


def test_examples_are_those_of_the_files(folder):
    data = load_clips(full(folder), standardize=False, **SMALL)
    assert data.classes == {"label": ("a", "b")}
    assert {k: len(v) for k, v in data.sources.items()} == {"train": 6, "test": 4}
    assert data.example_id_list("test") == [f"{i}.mp4" for i in range(6, 10)]
    example = data.source("test")[1]  # 7.mp4
    assert example["labels"]["label"] == 1 and example["weight"] == 1
    video, audio = example["inputs"]["video"], example["inputs"]["audio"]
    assert video.shape == (3, 8, 8, 3) and video.dtype == np.uint8
    assert np.abs(video.astype(int) - 140).max() < 5
    assert audio.dtype == np.float32 and audio.shape[1] == 13
    steps = example["masks"]["audio"].sum()
    want = mfcc(tone(1.7, 900), 16000)
    assert abs(steps - len(want)) <= 2  # the codec adds a frame
    np.testing.assert_allclose(
        audio[5 : steps - 8].mean(0), want[5:-8].mean(0), rtol=0.2, atol=6
    )
    assert not audio[steps:].any() and len(audio) > steps
    assert data.label("test", "label").tolist() == [0, 1, 0, 1]


def test_a_missing_stream_is_masked(folder):
    rows = "silent.mp4,a,train\naudio.wav,b,train\n0.mp4,a,test\n"
    data = load_clips(table(folder, HEAD + rows), **SMALL)
    silent, audible = data.source("train")[0], data.source("train")[1]
    assert not silent["masks"]["audio"].any() and silent["masks"]["video"].all()
    assert not audible["masks"]["video"].any() and audible["masks"]["audio"].any()
    assert not silent["inputs"]["audio"].any()
    assert not audible["inputs"]["video"].any()
    assert silent["inputs"]["audio"].shape == audible["inputs"]["audio"].shape
    assert any("1 of 3 clips have no audio" in w for w in data.facts["warnings"])


def test_mfcc_are_standardized_over_the_training_split(folder):
    data = load_clips(full(folder), **SMALL)
    rows = lambda split: np.concatenate(
        [
            example["inputs"]["audio"][example["masks"]["audio"]]
            for example in (data.source(split)[i] for i in range(4))
        ]
    )
    train = np.concatenate([rows("train"), *_rest(data)])
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-3)
    assert np.abs(rows("test").mean(0)).max() > 0.05


def _rest(data):
    for i in (4, 5):
        example = data.source("train")[i]
        yield example["inputs"]["audio"][example["masks"]["audio"]]


FOUR = {"modalities": ("audio", "image", "text", "video"), "audio_features": "waveform"}


def test_four_modalities_of_clips(folder):
    lines = [
        f"{i}.mp4,{'ab'[i % 2]},{'train' if i < 6 else 'test'},word {i}"
        for i in range(10)
    ]
    rows = [*lines[:9], "9.mp4,b,test,", "silent.mp4,a,train,new", "audio.wav,b,train,"]
    text = "file,label,split,text\n" + "\n".join(rows)
    options = SMALL | FOUR | {"image_size": 12, "max_tokens": 5}
    data = load_clips(table(folder, text), **options)
    assert "labels in range" in testing.check_dataset(data, "label").checked
    seven = data.source("test")[1]
    image, video = seven["inputs"]["image"], seven["inputs"]["video"]
    assert image.shape == (1, 12, 12, 3) and image.dtype == np.uint8
    assert video.shape == (3, 8, 8, 3)
    audio, mask = seven["inputs"]["audio"], seven["masks"]["audio"]
    assert audio.dtype == np.float32 and audio.ndim == 1 == mask.ndim
    assert abs(mask.sum() - 1.7 * 16000) < 3000  # samples, with those of the codec
    want = tone(1.7, 900)
    got = np.abs(np.fft.rfft(audio[:16000])).argmax()
    assert abs(got - np.abs(np.fft.rfft(want[:16000])).argmax()) <= 1
    # [CLS] word [UNK] [SEP]: the words are those of the training transcripts.
    assert seven["inputs"]["text"].tolist() == [2, 11, 1, 3, 0]
    assert data.facts["vocabulary_size"] == 4 + len("012345") + len(("new", "word"))
    assert data.ids == {"text": (0, 11)}  # 0 is padding
    silent, audible = data.source("train")[6], data.source("train")[7]
    there = lambda example: {m for m, mask in example["masks"].items() if mask.any()}
    assert there(silent) == {"image", "text", "video"}
    assert there(audible) == {"audio"}
    assert there(data.source("test")[3]) == {"audio", "image", "video"}
    missing = {"audio": 1, "image": 1, "text": 2, "video": 1}
    assert data.facts["missing"] == missing


def test_the_key_frame_is_in_the_middle(folder):
    for i in range(3):
        write_video(folder / f"{i}.mp4")  # frame k of 25 is gray 10 k
    text = "file,label,split,start,end\n0.mp4,a,train,,\n1.mp4,b,train,0.2,0.6\n"
    text += "2.mp4,a,test,0,0.5\n"
    for modalities in (("image",), ("image", "video")):
        options = SMALL | {"modalities": modalities, "equal_clips": True}
        data = load_clips(table(folder, text), **options)
        grays = [
            data.source(split)[i]["inputs"]["image"].mean() / 10
            for split, i in (("train", 0), ("train", 1), ("test", 0))
        ]
        # The frames displayed at 0.5 s, 0.4 s and 0.25 s, 25 a second.
        assert np.abs(np.subtract(grays, [12, 10, 6])).max() < 0.3
        if "video" in modalities:
            video = data.source("train")[0]["inputs"]["video"].mean(axis=(1, 2, 3))
            assert np.abs(video / 10 - [0, 8, 16]).max() < 0.3


def test_a_vocabulary_file_is_read_before_clips_are_decoded(folder, cache):
    text = "file,label,split,text\n0.mp4,a,train,big\n1.mp4,b,train,c\n2.mp4,a,test,d\n"
    with pytest.raises(DataError, match=r"absent\.txt does not exist"):
        load_clips(
            table(folder, text), vocabulary=str(folder / "absent.txt"), **SMALL | FOUR
        )
    assert not list(cache.glob("clips-*"))
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\nbig\n")
    data = load_clips(table(folder, text), vocabulary=str(folder), **SMALL | FOUR)
    assert data.source("train")[0]["inputs"]["text"][:2].tolist() == [2, 0]
    with pytest.raises(DataError, match="D41.*no column 'words'"):
        load_clips(table(folder, text), text_column="words", **SMALL | FOUR)


def test_decodes_once_and_again_when_something_changed(folder, cache, capfd):
    count = lambda: len(list(cache.glob("clips-*/part-*")))
    load_clips(full(folder), **SMALL)
    assert "decoding 10 clips" in capfd.readouterr().err
    relabeled = HEAD + "\n".join(
        f"{i}.mp4,{'ba'[i % 2]},{'train' if i < 7 else 'valid' if i < 8 else 'test'}"
        for i in range(10)
    )
    data = load_clips(table(folder, relabeled), **SMALL)
    assert "valid" in data.sources and data.source("train")[0]["labels"]["label"] == 1
    assert count() == 1 and "decoding" not in capfd.readouterr().err
    load_clips(str(folder), **SMALL | {"frames": 2})
    assert count() == 2
    write_video(folder / "0.mp4", gray_steps(5), tone())
    capfd.readouterr()
    load_clips(str(folder), **SMALL)
    assert count() == 3
    assert "decoding 1 clips, 9 are in the cache" in capfd.readouterr().err


def test_an_interrupted_build_has_lost_one_part_only(folder, cache, monkeypatch, capfd):
    monkeypatch.setattr(clip_store, "PART_SECONDS", 0.0)
    monkeypatch.setattr(clip_store, "_PART_FRACTION", 0.0)
    decode = decode_clips.decode_job

    def interrupted(spec, job):
        if job.key == "7.mp4":
            raise KeyboardInterrupt
        return decode(spec, job)

    monkeypatch.setattr(decode_clips, "decode_job", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_clips(full(folder), **SMALL)
    monkeypatch.setattr(decode_clips, "decode_job", decode)
    data = load_clips(str(folder), **SMALL)
    assert "decoding 3 clips, 7 are in the cache" in capfd.readouterr().err
    assert [len(data.sources[split]) for split in ("train", "test")] == [6, 4]
    grays = [data.source("test")[i]["inputs"]["video"].mean() for i in range(4)]
    np.testing.assert_allclose(grays, [120, 140, 160, 180], atol=4)


def test_rows_that_are_removed_and_sorted_keep_their_clips(folder, capfd):
    load_clips(full(folder), **SMALL)
    lines = [f"{i}.mp4,{'ab'[i % 2]},{'train' if i > 4 else 'test'}" for i in range(9)]
    capfd.readouterr()
    data = load_clips(table(folder, HEAD + "\n".join(lines[::-1])), **SMALL)
    assert "decoding" not in capfd.readouterr().err
    for split, numbers in (("train", (8, 7, 6, 5)), ("test", (4, 3, 2, 1, 0))):
        source = data.source(split)
        grays = [source[i]["inputs"]["video"].mean() / 20 for i in range(len(source))]
        np.testing.assert_allclose(grays, numbers, atol=0.2)


def test_the_store_has_its_origin(folder, cache):
    load_clips(full(folder), **SMALL)
    (manifest,) = cache.glob("clips-*/MANIFEST.json")
    about = json.loads(manifest.read_text())
    assert about["title"] == "clips in talks" and about["source"] == str(folder)
    assert about["spec"]["frames"] == 3 and about["version"] == 2 and about["created"]


def test_a_full_disk_is_named(folder, cache, monkeypatch):
    def close(self):
        raise RuntimeError("write() failed: No space left on device; writing X")

    monkeypatch.setattr(
        "array_record.python.array_record_module.ArrayRecordWriter.close", close,
        raising=False,
    )  # fmt: skip
    with pytest.raises(DataError, match="D22.*No space left on device"):
        load_clips(full(folder), **SMALL)


def test_two_builds_are_the_same_bytes_in_processes_or_not(folder, cache):
    stores = []
    for workers in (0, 1):
        data = load_clips(
            full(folder), **SMALL | {"workers": workers, "noise_snr_db": 3.0}
        )
        store = cache / data.facts["prepared"]
        (part,) = store.glob("part-*")
        stores.append({f.name: f.read_bytes() for f in part.iterdir()})
        shutil.rmtree(store)
    assert stores[0] == stores[1] and len(stores[0]) == 4


def test_absent_and_damaged_clips_are_listed_or_left_out(folder, cache):
    (folder / "5.mp4").write_text("<html>Please log in</html>")
    (folder / "6.mp4").unlink()
    with pytest.raises(DataError, match=r"D42[\s\S]*1 of 10[\s\S]*line 8: 6\.mp4"):
        load_clips(full(folder), **SMALL)
    message = r"D44[\s\S]*2 of 10 clips cannot be used:\n  6\.mp4 .*\n  5\.mp4 .*HTML"
    with pytest.raises(DataError, match=message + r"[\s\S]*max_left_out=0.2 leaves"):
        load_clips(str(folder), max_left_out=0.1, **SMALL)
    data = load_clips(str(folder), max_left_out=0.2, **SMALL)
    (warning,) = [w for w in data.facts["warnings"] if "skipped" in w]
    assert warning.splitlines() == [
        "2 of 10 clips are skipped:",
        "  6.mp4  does not exist",
        "  5.mp4  got an HTML page instead of a media file.",
    ]
    lines = [*dataset_lines(data, "label")]
    assert lines[-3:] == [
        f"warning: {line}" if line[0] != " " else line for line in warning.splitlines()
    ]
    assert len(data.source("train")) == 5 and len(data.source("test")) == 3
    assert list(data.facts["skipped"]) == ["6.mp4", "5.mp4"]
    (manifest,) = cache.glob("clips-*/part-*/MANIFEST.json")
    first = json.loads(manifest.read_text())["clips"][0]
    content = (folder / "0.mp4").read_bytes()
    assert first["sha256"] == {"0.mp4": hashlib.sha256(content).hexdigest()}
    assert first["key"] == "0.mp4" and first["video_steps"] == 3
    write_video(folder / "5.mp4", gray_steps(5), tone())
    shutil.copy(folder / "5.mp4", folder / "6.mp4")
    assert not load_clips(str(folder), equal_clips=True, **SMALL).facts["skipped"]


def test_all_clips_failed(folder):
    for i in range(10):
        (folder / f"{i}.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"D43[\s\S]*10 of 10[\s\S]*9\.mp4 .*is empty"):
        load_clips(full(folder), **SMALL)


def test_noise_is_of_the_clip_and_its_seed(folder):
    noisy = lambda **more: load_clips(
        full(folder), standardize=False, noise_snr_db=-10.0, **SMALL, **more
    )
    audio = lambda data, i: data.source("train")[i]["inputs"]["audio"]
    clean = load_clips(full(folder), standardize=False, **SMALL)
    assert np.abs(audio(noisy(), 0) - audio(clean, 0)).max() > 20
    np.testing.assert_array_equal(audio(noisy(), 0), audio(noisy(), 0))
    assert (audio(noisy(), 0) != audio(noisy(noise_seed=1), 0)).any()


def test_spans_of_one_file_stay_in_one_split(folder):
    write_video(folder / "long.mp4", gray_steps(25), tone(1.0))
    write_video(folder / "other.mp4", gray_steps(25), tone(1.0, 600))
    rows = [
        f"{name}.mp4,{label},{at},{at + 0.2:.1f}"
        for name in ("long", "other")
        for at, label in ((0.0, "a"), (0.2, "b"), (0.4, "a"), (0.6, "b"))
    ]
    text = "file,label,start,end\n" + "\n".join(rows)
    data = load_clips(table(folder, text), val_fraction=0.0, test_fraction=0.4, **SMALL)
    assert {k: len(v) for k, v in data.sources.items()} == {"train": 4, "test": 4}
    assert sorted(data.groups) == ["test", "train"]
    values = [data.source("train")[i]["inputs"]["video"].mean() for i in range(4)]
    assert np.allclose(np.diff(values), 50, atol=5)


def test_grayscale_keeps_the_brightness_and_three_channels(folder):
    data = load_clips(full(folder), rgb=False, **SMALL)
    video = data.source("train")[5]["inputs"]["video"]
    assert video.shape == (3, 8, 8, 3) and np.abs(video.astype(int) - 100).max() < 5


def test_one_modality_alone(folder):
    data = load_clips(full(folder), modalities=("audio",), **SMALL)
    assert list(data.source("train")[0]["inputs"]) == ["audio"]
    rows = "silent.mp4,a,train\naudio.wav,b,train\n1.mp4,b,train\n0.mp4,a,train\n"
    text = HEAD + rows + "2.mp4,a,test"
    data = load_clips(
        table(folder, text), modalities=("video",), max_left_out=0.2, **SMALL
    )
    assert data.facts["skipped"] == {"audio.wav": "has no video."}


def test_augments_training_videos_if_asked(folder):
    assert load_clips(full(folder), **SMALL).augment is None
    data = load_clips(full(folder), augment=True, **SMALL)
    assert data.augment is not None
    got = data.augment(data.source("train")[0], np.random.default_rng(0))
    assert got["inputs"]["video"].shape == (3, 8, 8, 3)


def test_splits_at_random_keep_speakers_apart_or_warn(folder):
    rows = [f"{i}.mp4,{'ab'[i % 2]},s{i // 2}" for i in range(10)]
    text = "file,label,speaker\n" + "\n".join(rows)
    data = load_clips(table(folder, text), **SMALL)
    spoken = [set(names) for names in data.groups.values()]
    assert len(spoken) == 3 and sum(map(len, spoken)) == len(set.union(*spoken)) == 5
    (warning,) = [w for w in data.facts["warnings"] if "black" not in w]
    assert warning.endswith("no row in labels.csv: audio.wav, silent.mp4")
    named = load_clips(
        table(folder, text.replace("speaker", "who")), speaker_column="who", **SMALL
    )
    assert named.groups == data.groups
    data = load_clips(str(folder), **SMALL)
    assert data.groups == {}
    assert any("no column `speaker`" in w for w in data.facts["warnings"])


def test_a_speaker_in_two_splits_is_refused(folder):
    text = "file,label,split,speaker\n0.mp4,a,train,x\n1.mp4,b,train,y\n2.mp4,a,test,x"
    with pytest.raises(DataError, match="D10.*'x'.*'train'.*'test'"):
        load_clips(table(folder, text), **SMALL)


WRONG = {
    "": "D41.*labels.csv is empty",
    "file;label\n0.mp4;a": "D41.*semicolon-separated.*\n.*comma-separated",
    "file\tlabel\n0.mp4\ta": "D41.*tab-separated",
    "file,label": "D41.*no rows",
    "file,lable\n0.mp4,a": "D41.*no column 'label'.*did you mean 'lable'",
    "file,label,file\n0.mp4,a,b": "D41.*column 'file' twice",
    "file,label\n0.mp4,": "D41.*line 2: 'label' is empty",
    "file,label\n,a": "D41.*line 2: 'file' is empty",
    "file,label\n0.mp4,a\n1.mp4,a": "D07.*every row has the label 'a'",
    "file,label\n0.mp4,a,b\n1.mp4,b": "D41.*line 2: 3 cells in 2 columns",
    "file,label\n0.mp4,\n1.mp4,b\n,c": r"D41.*2 mistakes:\n  line 2: .*\n  line 4: ",
    "file,label\n# by hand\n0.mp4,b": "D41.*line 2: '# by hand' is a comment",
    "0.mp4,a\n1.mp4,b": "D41.*no header: its first line is '0.mp4,a'",
    "filename,emotion\n0.mp4,a": "D41.*no columns 'file' and 'label'.*'filename'",
    '[{"file": "0.mp4"}]': "D41.*is a JSON file",
    "file,label\n0.mp4,NA\n1.mp4,b\n2.mp4,b": "D07.*line 2: label 'NA' is a missing",
    "file,score\n0.mp4,0.5\n1.mp4,high": "D41.*line 3: score 'high' is not a number",
    "file,label\n" + "".join(f"{i}.mp4,{i / 4}\n" for i in range(9)): (
        r"D07.*9 different numbers in 9 rows, as scores do.*\n.*name the column score"
    ),
    "file,label,split\n0.mp4,a,trian": "D41.*split 'trian' is unknown.*mean 'train'",
    "file,label,split\n0.mp4,a,": "D41.*line 2: 'split' is empty",
    "file,label,speaker\n0.mp4,a,": "D41.*line 2: 'speaker' is empty",
    "file,label,start\n0.mp4,a,one": "D41.*start 'one' is not a time in seconds",
    "file,label,start\n0.mp4,a,-1": "D41.*start '-1'",
    "file,label,end\n0.mp4,a,nan": "D41.*end 'nan'",
    "file,label,start,end\n0.mp4,a,2,1": "D41.*end=1 is not after start=2",
    "file,label\n0.mp4,a\n1.mp4,b\n0.mp4,b": (
        "D41.*line 4.*is a duplicate of line 2 with label 'b' instead of 'a'"
    ),
    "file,label\n0.mp4,a\nx.mp4,b\ny.mp4,b": (
        r"D42[\s\S]*2 of 3 files[\s\S]*line 3: x.mp4[\s\S]*line 4: y.mp4"
    ),
    'file,label\n"0.mp4,a': "D41.*line 2: the quotation mark before '0.mp4,a' is not",
    HEAD + "0.mp4,a,train\n1.mp4,b,train": "D45.*split 'test' is empty",
    HEAD + "0.mp4,a,train\n1.mp4,b,test": "D46.*line 3: class 'b' of split 'test'",
    "file,label\n"
    + "".join(f"{i}.mp4,happy\n" for i in range(5))
    + "5.mp4,hapy\n6.mp4,sad\n7.mp4,sad": (
        "D07.*line 7: label 'hapy' occurs once.*typo of 'happy'"
    ),
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_mistakes_in_the_table_are_named(folder, text):
    with pytest.raises(DataError, match=WRONG[text]):
        load_clips(table(folder, text), **SMALL)


def test_a_label_outside_the_classes_is_named(folder):
    (folder / "labels.csv").write_text("file,label\n0.mp4,happy\n1.mp4,hapy\n")
    message = (
        r"D07.*labels.csv line 3: label 'hapy' is not in classes; did you mean 'happy'"
    )
    with pytest.raises(DataError, match=message):
        read_labels(folder / "labels.csv", folder, ("sad", "happy"))


def test_tables_of_spreadsheets_are_read(folder):
    text = "\ufefffile , label,note\r\n 0.mp4,a,x\r\n\r\n1.mp4, b ,\r\n"
    (folder / "labels.csv").write_bytes(text.encode("utf-8"))
    rows = read_labels(folder / "labels.csv", folder).rows
    assert [(r.line, r.file, r.label) for r in rows] == [
        (2, "0.mp4", "a"),
        (4, "1.mp4", "b"),
    ]
    (folder / "labels.csv").write_bytes("file,label\n0.mp4,é".encode("latin-1"))
    with pytest.raises(DataError, match="D41.*not UTF-8"):
        read_labels(folder / "labels.csv", folder)


def test_a_missing_folder_or_labels_file_shows_the_expected_layout(tmp_path):
    run = r"[\s\S]*file,label\[,split\][\s\S]*fix: python -m mmfusion_jax.main"
    with pytest.raises(DataError, match="D40.*data_dir is missing" + run):
        load_clips("")
    with pytest.raises(DataError, match="D40.*'/no/where' is not a folder" + run):
        load_clips("/no/where")
    with pytest.raises(DataError, match="D40.*labels.csv does not exist" + run):
        load_clips(str(tmp_path))
    with pytest.raises(DataError, match="D40.*is a folder" + run):
        load_clips(str(tmp_path), labels=str(tmp_path))


def test_options_out_of_range_are_named(folder):
    for option, message in [
        ({"frames": 0}, "frames=0"),
        ({"duration": -1.0}, "duration=-1"),
        ({"pad_mode": "zeros"}, r"pad_mode='zeros'.*\s.*reflect"),
        ({"modalities": ("sound",)}, "modalities='sound'"),
        ({"test_fraction": 1.0}, "test_fraction=1"),
        ({"resize_mode": "crop"}, r"resize_mode='crop'.*\s.*center_crop"),
    ]:
        with pytest.raises(ConfigError, match=message):
            load_clips(full(folder), **SMALL | option)


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_real_clips_of_a_speaker(real_data, tmp_path, count):
    folder = real_data / "grid_s1"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    lines = (folder / "labels.csv").read_text().splitlines()
    picked = [line for line in lines[1:] if ",zero," in line or ",one," in line]
    picked = picked[:count] if count < 100 else lines[1:]
    part = tmp_path / "some.csv"
    part.write_text("\n".join([lines[0], *picked]))
    workers = None if count == 100 else 0
    data = load_clips(str(folder), str(part), size=56, workers=workers)
    assert sum(map(len, data.sources.values())) == len(picked)
    example = data.source("train")[0]
    assert example["inputs"]["video"].shape == (30, 56, 56, 3)
    assert example["inputs"]["video"].std() > 20
    assert example["inputs"]["audio"].shape == (129, 13)
    assert not data.facts["skipped"] and data.facts["missing"]["video"] == 0


def test_real_recordings_without_video(real_data, tmp_path):
    folder = real_data / "ravdess"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    lines = (folder / "wav_labels.csv").read_text().splitlines()
    part = tmp_path / "some.csv"
    rows = [line for line in lines[1:] if ",calm," in line or ",angry," in line]
    part.write_text("\n".join([lines[0], *rows]))
    data = load_clips(
        str(folder), str(part), speaker_column="actor", size=8, workers=0,
        sample_rate=44100, offset=0.5, duration=2.45,
    )  # fmt: skip
    example = data.source("train")[0]
    assert example["inputs"]["audio"].shape == (212, 13)
    assert not example["masks"]["video"].any() and example["masks"]["audio"].any()
    assert data.facts["missing"]["video"] == len(rows) == 10
