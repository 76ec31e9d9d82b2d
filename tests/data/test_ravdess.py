"""A small RAVDESS as downloaded: names, crops, audio, folds, protocols."""

import shutil

import numpy as np
import pytest
from media_files import tone, write_video, write_wav
from outlines import same_shapes

from mmfusion_jax.data.datasets.ravdess.filenames import EMOTIONS, parse
from mmfusion_jax.data.datasets.ravdess.videos import (
    find_recordings,
    find_with_remarks,
    load_ravdess,
    outline,
)
from mmfusion_jax.data.media.decode import mfcc
from mmfusion_jax.data.media.face_crop import FaceCrop
from mmfusion_jax.errors import ConfigError, DataError

SMALL = {"size": 16, "frames": 3, "workers": 0}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two clips for each of 24 actors; the left part of the frame is white.

    Actor 1 has a wav next to the mp4 and files that must be ignored; actor 2 has wavs
    without an mp4.
    """
    root = tmp_path_factory.mktemp("ravdess")
    model = root / "model.mp4"
    frame = np.zeros((36, 64, 3), np.uint8)
    frame[:, :24] = 250
    write_video(model, [frame] * 75, tone(3.0, 300))
    wav = write_wav(root / "model.wav", tone(3.0, 600))
    for actor in range(1, 25):
        actor_dir = root / f"Actor_{actor:02d}"
        actor_dir.mkdir()
        for emotion in (1 + actor % 8, 1 + (actor + 1) % 8):
            code = f"01-{emotion:02d}-01-01-01-{actor:02d}"
            if actor == 2:
                (actor_dir / f"03-{code}.wav").write_bytes(wav.read_bytes())
            else:
                (actor_dir / f"01-{code}.mp4").write_bytes(model.read_bytes())
    first = root / "Actor_01"
    (first / "03-01-02-01-01-01-01.wav").write_bytes(wav.read_bytes())
    (first / "02-01-02-01-01-01-01.mp4").write_bytes(b"video only: not read")
    (first / "01-02-02-01-01-01-01.mp4").write_bytes(b"a song: not read")
    (first / "01-01-09-01-01-01-01.mp4").write_bytes(b"no such emotion: not read")
    (first / "notes.txt").write_text("hello")
    model.unlink()
    wav.unlink()
    return root


def test_file_names_are_parsed(tmp_path):
    code = parse(tmp_path / "01-01-06-01-02-01-12.mp4")
    assert code and (code.modality, code.channel) == ("01", "01")
    assert EMOTIONS[code.emotion] == "fearful" and code.actor == 12
    assert code.recording == "01-06-01-02-01-12"
    for name in ("01-01-09-01-01-01-01", "01-01-01-01-01-01-25", "clip", "01-01-01"):
        assert parse(tmp_path / f"{name}.mp4") is None


def test_recordings_are_speech_with_audio_of_the_wav_if_any(folder):
    recordings = {one.name: one for one in find_recordings(str(folder))}
    assert len(recordings) == 48
    both = recordings["01-02-01-01-01-01"]
    assert both.video and both.video.name.startswith("01-")
    assert both.audio and both.audio.suffix == ".wav"
    video = recordings["01-03-01-01-01-01"]
    assert video.audio == video.video and video.actor == 1 and video.emotion == 2
    audio_only = recordings["01-03-01-01-01-02"]
    assert audio_only.video is None and audio_only.audio


def test_examples_are_those_of_the_paper(folder):
    data = load_ravdess(str(folder), **SMALL)
    assert data.classes == {"emotion": EMOTIONS}
    example = data.source("test")[0]  # 01-02-...-01: 600 Hz, from the wav
    assert example["inputs"]["video"].shape == (3, 16, 16, 3)
    audio = example["inputs"]["audio"]
    assert audio.shape == (212, 13) and example["masks"]["audio"].all()
    want = mfcc(tone(3.0, 600, 44100)[22050 : 22050 + 108045], 44100)
    np.testing.assert_allclose(audio[8:-8, 1:6], want[8:-8, 1:6], rtol=0.1, atol=8)
    other = data.source("test")[1]["inputs"]["audio"]  # 300 Hz, from the mp4
    assert np.abs(other - audio).mean() > 5
    audio_only = data.source("test")[2]["masks"]
    assert not audio_only["video"].any() and audio_only["audio"].any()
    assert data.label("test", "emotion").tolist() == [1, 2, 2, 3, 3, 4, 4, 5]


def test_the_outline_has_the_same_shapes(folder):
    for protocol in ("validation", "as_published"):
        real = load_ravdess(str(folder), protocol=protocol, **SMALL)
        same_shapes(real, outline(protocol=protocol, **SMALL), sizes=False)


def test_folds_and_protocols(folder):
    validation = load_ravdess(str(folder), fold=1, **SMALL)
    assert validation.facts["actors"]["test"] == [5, 6, 7, 8]
    assert validation.facts["actors"]["valid"] == [9, 10, 11, 12]
    assert {k: len(v) for k, v in validation.sources.items()} == {
        "train": 32,
        "test": 8,
        "valid": 8,
    }
    assert validation.groups["test"] == [f"actor 0{n}" for n in (5, 6, 7, 8)]
    paper = load_ravdess(str(folder), fold=1, protocol="as_published", **SMALL)
    assert {k: len(v) for k, v in paper.sources.items()} == {"train": 40, "test": 8}
    last = load_ravdess(str(folder), fold=5, folds=6, **SMALL)
    assert last.facts["actors"]["test"] == [21, 22, 23, 24]
    assert validation.facts["prepared"] == last.facts["prepared"]  # decoded once
    with pytest.raises(ConfigError, match="C06"):
        load_ravdess(str(folder), fold=5, **SMALL)


def test_warnings_name_differences_from_the_paper(folder):
    warnings = "\n".join(load_ravdess(str(folder), **SMALL).facts["warnings"])
    assert "48 of 1440 clips" in warnings and "central square" in warnings
    assert "2 of 48 clips have no video" in warnings


def landmark_rows(boxes, named=True):
    """A CSV file with the corners of each box among 68 points inside of it."""
    names = [f"column_{i}" for i in range(440)]
    x, y = (299, 367) if named else (297, 365)
    if named:
        names[x : x + 68] = [f" x_{i}" for i in range(68)]
        names[y : y + 68] = [f" y_{i}" for i in range(68)]
    lines = [",".join(names)]
    for left, top, right, bottom in boxes:
        row = np.full(440, -1.0)
        row[x : x + 68] = np.linspace(left, right, 68)
        row[y : y + 68] = np.linspace(top, bottom, 68)
        lines.append(",".join(f"{value:.3f}" for value in row))
    return "\n".join(lines)


@pytest.mark.parametrize("named", [True, False])
def test_the_face_is_the_box_around_its_landmarks(tmp_path, named):
    path = tmp_path / "a.csv"
    boxes = [(20 * k, 40, 20 * k + 640, 400) for k in range(10)]
    path.write_text(landmark_rows(boxes, named))
    frame = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    face_crop = FaceCrop(path, 3, 640)
    for index, row in enumerate((0, 4, 7)):  # ceil(k * 10 / 3)
        got = face_crop(index, np.repeat(frame[:, :, :1], 3, axis=2))
        part = frame[40:400, 20 * row : 20 * row + 640, 0]
        assert got.shape == (640, 640, 3)
        np.testing.assert_allclose(got[:, :, 0].mean(), part.mean(), atol=1)
        columns = np.corrcoef(got[:, :, 0].mean(0), part.mean(0))[0, 1]
        assert columns > 0.9


def test_consecutive_frames_have_the_boxes_of_the_middle(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(landmark_rows([(20 * k, 40, 20 * k + 640, 400) for k in range(10)]))
    left = FaceCrop(path, 4, 64, frame_sampling="consecutive").boxes[:, 0] * 1280
    np.testing.assert_allclose(left, [60, 80, 100, 120], atol=0.01)


def test_the_official_crop_resizes_first(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(landmark_rows([(320, 180, 960, 540)]))
    frame = np.zeros((720, 1280, 3), np.uint8)
    frame[:, np.arange(1280) // 10 % 2 == 0] = 255
    sharp = FaceCrop(path, 1, 64)(0, frame)  # a stripe is a pixel
    blurred = FaceCrop(path, 1, 64, "released_code")(0, frame)  # or half a pixel
    assert sharp.std() > 50 and blurred.std() < 10
    assert blurred.shape == sharp.shape == (64, 64, 3)


@pytest.mark.ci
def test_landmarks_are_used_for_every_clip(folder, tmp_path):
    marks = tmp_path / "FacialTracking"
    marks.mkdir()
    for recording in find_recordings(str(folder)):
        left = landmark_rows([(20, 100, 400, 600)] * 75)
        (marks / f"01-{recording.name}.csv").write_text(left)
    data = load_ravdess(str(folder), landmarks_dir=str(marks), **SMALL)
    assert data.source("test")[0]["inputs"]["video"].min() > 200  # the white part
    assert "face by landmarks" in data.facts["crop"]
    stored = data.preprocessing.decoding
    assert stored and stored.crop["mode"] == "landmarks"
    assert stored.crop["crop"] == "full" and "central square" in stored.crop["note"]
    assert stored.crop["without_landmarks"] == "center_crop"
    assert "central square" not in "\n".join(data.facts["warnings"])
    (marks / "01-01-02-01-01-01-01.csv").unlink()
    with pytest.raises(DataError, match=r"D51.*1 of 46 clips.*01-01-02-01-01-01-01"):
        load_ravdess(str(folder), landmarks_dir=str(marks), **SMALL)


def test_clips_with_broken_landmarks_are_skipped(folder, tmp_path):
    marks = tmp_path / "FacialTracking"
    marks.mkdir()
    table = landmark_rows([(20, 100, 400, 600)])
    broken = {
        "01-02-01-01-01-01": "",
        "01-03-01-01-01-01": "a,b\n1,2\n",
        "01-04-01-01-01-03": landmark_rows([(0, 0, 0, 0)]),
        "01-05-01-01-01-03": table.replace("400.000", "nan"),
    }
    for recording in find_recordings(str(folder)):
        text = broken.get(recording.name, table)
        (marks / f"01-{recording.name}.csv").write_text(text)
    options = SMALL | {"landmarks_dir": str(marks)}
    with pytest.raises(DataError, match=r"D44.*4 of 48 clips[\s\S]*max_left_out=0.09"):
        load_ravdess(str(folder), **options)
    data = load_ravdess(str(folder), max_left_out=0.09, **options)
    assert set(data.facts["skipped"]) == set(broken)


def test_missing_data_is_reported_with_its_source(tmp_path, folder):
    hint = r"[\s\S]*Actor_01[\s\S]*zenodo.org[\s\S]*fix: python -m mmfusion_jax.main"
    with pytest.raises(DataError, match="D40.*data_dir is missing" + hint):
        load_ravdess("")
    with pytest.raises(DataError, match="D40.*is not a folder" + hint):
        load_ravdess(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="D40.*contains no speech recording" + hint):
        load_ravdess(str(tmp_path))
    with pytest.raises(ConfigError, match="crop='face' is unknown"):
        load_ravdess(str(folder), crop="face")
    with pytest.raises(
        DataError, match="D45.*'valid' is empty: .* actors 9, 10, 11, 12"
    ):
        load_ravdess(str(folder / "Actor_01"), fold=1, **SMALL)


@pytest.mark.ci
def test_augmentation(folder):
    assert load_ravdess(str(folder), augment=False, **SMALL).augment is None
    data = load_ravdess(str(folder), augment_per_frame=True, **SMALL)
    assert data.augment is not None
    video = data.augment(data.source("train")[0], np.random.default_rng(0))
    assert video["inputs"]["video"].shape == (3, 16, 16, 3)
    assert data.augment.per_frame


def tree(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return str(root)


INSTEAD = {
    "song": (["Actor_01/01-02-02-01-01-01-01.mp4"], "1 song rec.*", "speech files"),
    "video": (["02-01-02-01-01-01-01.mp4"], "1 video-only.*", "01-01-... have video"),
    "zips": (["Video_Speech_Actor_01.zip", "x.zip"], "2 archives, such", "extract"),
    "prepared": (["03-01-02-01-01-01-01_pad.wav"], "1 files of RAVDESS that", "orig"),
    "arrays": (["01-01-02-01-01-01-01.npy"], "1 files of RAVDESS that", "original"),
    "converted": (["01-01-02-01-01-01-01.avi"], "1 recordings .* another", "original"),
    "crema_d": (["Audio/1001_IEO_ANG_HI.wav"], "1 clips of CREMA-D", ":clips .*init"),
    "copies": (["03-01-02-01-01-01-01 (1).wav"], "1 copies made by", "rename them"),
    "others": (["a.mp4", "notes.txt"], "1 media files with other names", ":clips"),
    "nothing": (["notes.txt"], r"\. Expected", "runs on embedded data"),
}


@pytest.mark.parametrize("kind", INSTEAD)
def test_other_files_are_named(tmp_path, kind):
    names, what, fix = INSTEAD[kind]
    with pytest.raises(DataError, match=rf"D40.*of RAVDESS.*{what}[\s\S]*fix: .*{fix}"):
        find_recordings(tree(tmp_path, *names))


def test_unusual_folders_are_remarked(folder, tmp_path):
    root = tmp_path / "more"
    shutil.copytree(folder, root)
    shutil.copytree(folder / "Actor_02", root / "again" / "Actor_02")
    wav = "03-01-02-01-01-01-01.wav"
    (root / "Actor_01" / wav).rename(root / "Actor_05" / wav)
    tree(root, "Actor_01/03-01-05-01-01-01-01 (1).wav", "Actor_01/._x.wav")
    _, warnings = find_with_remarks(str(root))
    assert "2 files are in the folder more than once, and are used once" in warnings
    (wrong,) = [w for w in warnings if "another actor" in w]
    assert wrong.startswith("1 files") and wav in wrong
    (unused,) = [w for w in warnings if "not used" in w]
    assert "1 copies made by a browser" in unused and "._x" not in unused
    assert not find_with_remarks(str(folder))[1]


def test_few_actors_name_the_clips_config(folder, tmp_path):
    root = tmp_path / "few"
    for actor in range(1, 11):
        shutil.copytree(folder / f"Actor_{actor:02d}", root / f"Actor_{actor:02d}")
    warnings = load_ravdess(str(root), **SMALL).facts["warnings"]
    (few,) = [w for w in warnings if w.startswith("few actors")]
    assert "2 in train" in few and "cfn_sr.py:clips" in few
    with pytest.raises(DataError, match=r"D45.*actors 21, 22[\s\S]*cfn_sr\.py:clips"):
        load_ravdess(str(root), fold=5, folds=6, **SMALL)
