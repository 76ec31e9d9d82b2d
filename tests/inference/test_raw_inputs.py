"""New files and arrays become the examples of the training, bit for bit."""

import sys
from types import SimpleNamespace
from typing import Any

import feature_files
import numpy as np
import pytest
from groups import in_ci
from media_files import tone, write_video, write_wav
from paths import TESTS

from mmfusion_jax.data.datasets.clips import load_clips
from mmfusion_jax.data.datasets.ict_mmmo import load_ict_mmmo
from mmfusion_jax.data.datasets.mosi_utterances import load_mosi_utterances
from mmfusion_jax.data.datasets.ravdess.features import load_ravdess_features
from mmfusion_jax.data.datasets.sentiment_files import TEXTS, load_sentiment_file
from mmfusion_jax.data.datasets.stress_predict import load_stress_predict
from mmfusion_jax.data.feature_files.importer import import_file
from mmfusion_jax.data.fingerprint import fingerprint
from mmfusion_jax.data.storage.array_record_store import cache_folder
from mmfusion_jax.errors import DataError
from mmfusion_jax.inference.clip_inputs import ClipInput, clips_of_table, expand_clips
from mmfusion_jax.inference.raw_example import RawExample, UnusableInput
from mmfusion_jax.inference.raw_inputs import InputReader
from mmfusion_jax.results.run_identity import RunIdentity
from mmfusion_jax.runner.predictor import predictor_info
from mmfusion_jax.tasks import Classification, Regression

sys.path.append(str(TESTS / "data"))  # for the writers of tiny files


def reader_of(data, label, text="vectors") -> InputReader:
    """A reader for a model of all modalities of a dataset."""
    if label in data.classes:
        task = Classification(label, data.classes[label])
    else:
        task = Regression(label, data.values[label])
    identity = RunIdentity(0, 0, "", "", fingerprint(data))
    info = predictor_info(data, task, identity)
    spec: Any = SimpleNamespace(
        model=SimpleNamespace(modalities=tuple(info.inputs), encoders={}),
        data=SimpleNamespace(dataset=SimpleNamespace(options={"text": text})),
    )
    for name in info.inputs:
        spec.model.encoders[name] = SimpleNamespace(default=lambda *_: 0)
    return InputReader(spec, info, workers=0)


def same(found: RawExample, example) -> None:
    """Checks inputs and masks, bit for bit."""
    for name, values in example["inputs"].items():
        mask = example["masks"][name]
        np.testing.assert_array_equal(found.masks[name], mask)
        assert found.inputs[name].dtype == values.dtype
        # A step that is masked inside of a sequence has any value.
        np.testing.assert_array_equal(found.inputs[name][mask], values[mask])
        assert not np.isnan(found.inputs[name].astype(float)).any()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of clips: videos, one without audio, a sound, segments, transcripts."""
    folder = tmp_path_factory.mktemp("clips of ü")
    rng = np.random.default_rng(0)
    rows = ["file,label,split,text,start,end"]
    for i in range(6):
        frames = list(rng.integers(0, 255, (5, 32, 48, 3), np.uint8))
        write_video(folder / f"{i}.mp4", frames, tone(0.4 + i / 10, 200 + 90 * i))
        split = ("train", "train", "train", "train", "valid", "test")[i]
        words = ("so good", "so bad", "", "Well, good!", "unknown words", "so")[i]
        rows.append(f'{i}.mp4,{"ab"[i % 2]},{split},"{words}",,')
    write_video(
        folder / "silent.mp4", list(rng.integers(0, 255, (25, 32, 32, 3), "u1"))
    )
    write_wav(folder / "sound.wav", tone(1.5))
    rows += [
        "silent.mp4,a,test,good,,",
        "sound.wav,b,test,,0.25,0.75",
        "sound.wav,a,test,bad,0.8,",
    ]
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


VARIANTS = {
    "all": {
        "modalities": ("audio", "image", "text", "video"),
        "rgb": False,
        "standardize_pixels": True,
        "audio_features": "log_mel",
        "min_max": True,
        "deltas": True,
        "image_size": 12,
        "max_tokens": 5,
    },
    "default": {},
    "not standardized": {"standardize": False, "resize_mode": "letterbox"},
    "waveform": {"audio_features": "waveform", "modalities": ("audio", "text")},
    "noise": {"noise_snr_db": 3.0, "duration": 0.6, "pre_emphasis": 0.97},
    "stretch": {
        "resize_mode": "stretch",
        "crop_box": (0.1, 0.2, 0.9, 1.0),
        "silence_db": 30.0,
        "peak_normalize": True,
    },
    "words": {
        "modalities": ("text", "video"),
        "remove_punctuation": True,
        "remove_stop_words": True,
        "lowercase": False,
    },
}


@pytest.mark.parametrize("variant", in_ci(VARIANTS, "all"))
def test_a_clip_is_the_example_of_the_training(clips, tmp_path, monkeypatch, variant):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    options = {"frames": 3, "size": 8, "sample_rate": 16000, "workers": 0}
    # Some clips do not have any of the modalities that are decoded.
    options |= {"max_left_out": 0.3}
    data = load_clips(str(clips), **options, **VARIANTS[variant])
    reader = reader_of(data, "label")
    found = {one.id: one for one in reader.read_clips(expand_clips(clips))}
    count = 0
    for split in data.sources:
        for i, name in enumerate(data.example_id_list(split)):
            one = found[name]
            assert isinstance(one, RawExample)
            same(one, data.source(split)[i])
            count += 1
    unusable = {key for key, one in found.items() if isinstance(one, UnusableInput)}
    assert count + len(unusable) == len(found) == 9
    assert unusable == {*data.facts["skipped"]}
    # One clip by its path, with its transcript, from another folder.
    (one,) = reader.read_clips([ClipInput(str(clips / "0.mp4"), "so good")])
    assert isinstance(one, RawExample)
    same(one, data.source("train")[0])
    for key, absent in (("silent.mp4", "audio"), ("sound.wav@0.25-0.75", "video")):
        segment = found[key]
        assert key in unusable or not segment.masks.get(absent, np.zeros(1)).any()


def test_bad_clips_fail_alone(clips, tmp_path, monkeypatch):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    data = load_clips(str(clips), frames=3, size=8, sample_rate=16000, workers=0)
    reader = reader_of(data, "label")
    (tmp_path / "text.mp4").write_text("not a clip")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "good.mp4").write_bytes((clips / "5.mp4").read_bytes())
    table = tmp_path / "labels.csv"
    names = ["absent.mp4", "good.mp4", "text.mp4", "empty.wav", "Good.mp4", "good.mp4"]
    table.write_text("FILE\n" + "\n".join(names))
    found = [*reader.read_clips(expand_clips(tmp_path))]
    assert [one.id for one in found] == names
    good = [isinstance(one, RawExample) for one in found]
    assert good == [False, True, False, False, False, True]
    errors = [str(one.error) for one in found if isinstance(one, UnusableInput)]
    assert "D30" in errors[0] and "'absent.mp4' does not exist" in errors[0]
    assert "not a clip" not in errors[1] and "text" in errors[1]
    assert "empty" in errors[2] and "did you mean 'good.mp4'?" in errors[3]
    assert [*reader.read_clips(expand_clips(tmp_path / "absent.mp4"))] != []


@pytest.mark.parametrize(
    "text",
    [
        "name\na.mp4",
        "file",
        "file,start\na.mp4,soon",
        "file,start,end\na.mp4,2,1",
        "file,start\n,1",
        "start,file\n1",
        "file;start\na.mp4;1",
        "",
    ],
)
def test_malformed_tables(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match="D41"):
        clips_of_table(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    "arguments",
    [(3,), ("a.mp4", None), ("a.mp4", "", -1), ("a.mp4", "", 2, 1), ("a.mp4", "", "1")],
)
def test_malformed_clips(arguments):
    with pytest.raises(DataError, match="D26"):
        ClipInput(*arguments)


def raw_mmmo(folder, split):
    from test_ict_mmmo import MODALITIES, write

    arrays = write(folder)
    data = load_ict_mmmo(str(folder), clip_quantile=0.1)
    given = {m: arrays.get(f"{split}_{m}") for m in MODALITIES}
    masks = {m: x.any(-1) for m, x in given.items() if x is not None}
    return data, "score", given, masks


def raw_ravdess(folder, split):
    from test_ravdess_features import write

    arrays = write(folder)
    data = load_ravdess_features(str(folder), fold=4)
    rows = np.isin(arrays["actor"], data.facts["actors"][split])
    units = np.concatenate([arrays["au_static"], arrays["au_dynamic"]], axis=1)
    given = {"audio": arrays["mfcc"][rows], "video": units[rows, None]}
    return data, "emotion", given, {}


def raw_mosi(folder, split):
    from test_mosi_utterances import MODALITIES, write

    write(folder)
    data = load_mosi_utterances(str(folder))
    # The context is padded, and its last feature marks the target.
    source = data.source(split)
    masks = np.stack([source[i]["masks"]["text"] for i in range(len(source))])
    scaling = data.preprocessing.scaling
    given = {}
    for m in MODALITIES:
        x = np.stack([source[i]["inputs"][m] for i in range(len(source))])
        a, b = np.array(scaling[m].a), np.array(scaling[m].b)
        given[m] = np.concatenate([x[..., :-1] * b + a, x[..., -1:]], axis=-1)
    return data, "polarity", given, dict.fromkeys(MODALITIES, masks)


def raw_stress(folder, split):
    from test_stress_predict import write

    write(folder)
    options = {"folds": 3, "window": 4, "hop": 2}
    data = load_stress_predict(str(folder), standardize_by="train", **options)
    source = data.source(split)
    given, masks = {}, {}
    for m, scaling in data.preprocessing.scaling.items():
        x = np.stack([source[i]["inputs"][m] for i in range(len(source))])
        given[m] = x * np.array(scaling.b) + np.array(scaling.a)
        masks[m] = np.stack([source[i]["masks"][m] for i in range(len(source))])
    return data, "stress", given, masks


@pytest.mark.parametrize("make", [raw_mmmo, raw_ravdess, raw_mosi, raw_stress])
def test_unscaled_arrays_are_the_examples_of_the_training(make, tmp_path):
    for split in ("train", "test"):
        data, label, given, masks = make(tmp_path, split)
        found = reader_of(data, label).read_arrays(given, masks)
        source = data.source(split)
        assert len(found) == len(source)
        for i, one in enumerate(found):
            for name, values in source[i]["inputs"].items():
                mask = source[i]["masks"][name]
                np.testing.assert_array_equal(one.masks[name], mask)
                # Those that were scaled back here differ by rounding.
                exact = make in (raw_mmmo, raw_ravdess)
                tolerance = 0 if exact else 1e-5
                np.testing.assert_allclose(
                    one.inputs[name][mask], values[mask], rtol=tolerance, atol=tolerance
                )


FILES = {
    "mmsa vectors": ("mosi", feature_files.mmsa(), "vectors"),
    "mmsa bert": ("mosi", feature_files.mmsa(aligned=True), "bert"),
    "mult": ("mosi", feature_files.mult(), "vectors"),
    "npz": ("mosi", feature_files.npz(), "vectors"),
    "mmim words": ("mosi", None, "words"),
    "sims": ("sims", feature_files.mmsa(high=1.0, sims=True), "vectors"),
}


@pytest.mark.parametrize("name", in_ci(FILES, "mmsa vectors"))
def test_a_feature_file_is_read_as_its_import(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    dataset, content, text = FILES[name]
    if content is None:
        path = feature_files.write_mmim(tmp_path / "pickles")
    elif name == "npz":
        path = tmp_path / "features.npz"
        np.savez(path, **content)
    else:
        path = feature_files.write(tmp_path / "features.pkl", content)
    import_file(str(path), dataset, str(cache_folder("imported") / dataset), False)
    data = load_sentiment_file(dataset, text=text, standardize=("audio",))
    reader = reader_of(data, "score", text)
    found = [*reader.read_features(path)]
    for split in data.sources:
        part = [one for one in found if one.split == split]
        source = data.source(split)
        assert len(part) == len(source)
        for i, one in enumerate(part):
            assert isinstance(one, RawExample)
            same(one, source[i])
            assert one.labels["score"] == source[i]["labels"]["score"]
    assert TEXTS[text] and any(one.masks["text"].any() for one in found)


@pytest.mark.ci
def test_a_hostile_pickle_ends_a_process_of_its_own(tmp_path, clips, monkeypatch):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    feature_files.write(tmp_path / "good.pkl", feature_files.mmsa())
    import_file(
        str(tmp_path / "good.pkl"),
        "mosi",
        str(cache_folder("imported") / "mosi"),
        False,
    )
    reader = reader_of(load_sentiment_file("mosi"), "score")
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/x'\ntR.")
    (tmp_path / "cut.pkl").write_bytes((tmp_path / "good.pkl").read_bytes()[:500])
    # 10^10 numbers of a single byte.
    (tmp_path / "huge.pkl").write_bytes(b"\x80\x04]\x94(" + b"h\x00" * 10 + b"e.")
    for name in ("evil.pkl", "cut.pkl", "huge.pkl"):
        with pytest.raises(DataError):
            [*reader.read_features(tmp_path / name)]
    with pytest.raises(DataError, match="D26.*are features"):
        [*reader.read_clips([ClipInput(clips / "0.mp4")])]
