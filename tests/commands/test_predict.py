"""The commands predict and evaluate, with a run that was trained on clips."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from media_files import tone, write_wav
from trained_runs import table, train_on_clips, write_clips

import mmfusion_jax as mmf
from mmfusion_jax.__main__ import run as run_words
from mmfusion_jax.inference.clip_reader import ClipReader

pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Twelve clips of two classes and two speakers, with transcripts."""
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def run(clips, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "a run"
    return train_on_clips(clips, workdir, tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def decode_here(request, monkeypatch):
    """Decodes in this process, as starting others takes seconds; but in one test."""
    if "in_processes" not in request.node.name:
        monkeypatch.setattr(ClipReader, "_count", lambda *_: 0)


@pytest.fixture
def command(run, tmp_path, capsys):
    """Runs a command on the run: exit code, stdout and stderr."""

    def call(name, *words):
        code = run_words([name, f"--run={run}", *words, f"--workdir={tmp_path}/log"])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def test_clips_in_processes_have_the_predictions_of_the_run(
    run, clips, command, monkeypatch
):
    code, out, err = command("predict", str(clips), "--csv")
    assert code == 0, err
    rows = {row["id"]: row for row in csv.DictReader(io.StringIO(out))}
    assert [*rows] == [f"{i}.mp4" for i in range(12)]
    for split in ("valid", "test"):
        for want in table(run, split):
            row = rows[want["id"]]
            assert row["prediction"] == want["prediction"] and row["error"] == ""
            for name in ("p_a", "p_b"):
                assert float(row[name]) == pytest.approx(float(want[name]), abs=2e-6)
    monkeypatch.setattr(ClipReader, "_count", lambda *_: 0)
    code, out, _ = command("predict", str(clips / "labels.csv"), "--json")
    found = json.loads(out)
    assert code == 0 and len(found["predictions"]) == 12
    assert set(found["predictions"][0]["without"]) == {"audio", "text", "video"}


def test_one_clip_from_another_folder(run, clips, command, monkeypatch):
    monkeypatch.chdir(clips)
    code, out, _ = command("predict", "9.mp4", "--text=bad day")
    assert code == 0 and "9.mp4" in out and "calibrated on the 3 validation" in out
    assert "AI Act" in out
    code, out, _ = command("predict", "9.mp4", "--leave_out=text,video", "--json")
    found = json.loads(out)
    (one,) = found["predictions"]
    assert one["missing"] == ["text", "video"] and one["without"] == {}
    assert "warning: 3 validation examples are too few" in found["remarks"][-1]
    predictor = mmf.load(run, workers=0)
    whole = predictor.predict("9.mp4")[0]
    assert whole.missing == ["text"]
    assert predictor.predict(Path("9.mp4"), leave_out="video")[0].probabilities == (
        pytest.approx(one["probabilities"], abs=1e-6)
    )


def test_a_bad_file_does_not_lose_the_others(clips, command, tmp_path):
    shutil.copy(clips / "3.mp4", tmp_path / "good.mp4")
    (tmp_path / "bad.mp4").write_text("<html>not found</html>")
    write_wav(tmp_path / "sound.wav", tone(0.5))
    (tmp_path / "labels.csv").write_text(
        "file\ngood.mp4\nbad.mp4\nnone.mp4\nsound.wav\n"
    )
    code, out, err = command("predict", str(tmp_path), "--csv")
    rows = [*csv.DictReader(io.StringIO(out))]
    assert code == 1
    assert [row["id"] for row in rows] == [
        "good.mp4",
        "bad.mp4",
        "none.mp4",
        "sound.wav",
    ]
    assert [bool(row["prediction"]) for row in rows] == [True, False, False, True]
    assert "does not exist" in rows[2]["error"] and rows[3]["missing"] == "text;video"
    assert "2 of 4 examples cannot be predicted" in err and "bad.mp4" in err
    code, out, _ = command("predict", str(tmp_path), "--json")
    errors = [one["error"] for one in json.loads(out)["predictions"]]
    assert code == 1 and [bool(one) for one in errors] == [False, True, True, False]
    code, out, _ = command("predict", str(tmp_path))
    assert code == 1 and "2 of 4 examples cannot be predicted" in out
    (tmp_path / "empty").mkdir()
    for words in (["none.mp4"], ["none.mp4", "bad.mp4"], [str(tmp_path / "empty")]):
        code, out, err = command("predict", *words)
        assert code not in (0, 1) and out == "" and "error[D" in err, err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["9.mp4", "--csv", "--json"],
        ["9.mp4", "--coverage=1"],
        ["9.mp4", "--leave_out=smell"],
        ["clips", "--text=a"],
        ["x.npz"],
        ["x.pkl"],
    ],
)
def test_wrong_words_are_one_clear_error(clips, command, monkeypatch, words):
    monkeypatch.chdir(clips.parent)
    link = clips.parent / "clips"
    if not link.exists():
        link.symlink_to(clips)
    code, out, err = command("predict", *words)
    assert code not in (0, 1) and out == "", err
    lines = err.splitlines()
    assert lines[lines[0].startswith("device: ")].startswith("error["), err


def test_new_labeled_clips_are_scored(run, clips, command):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    code, out, _ = command("evaluate", f"--data={clips}", "--json")
    found = json.loads(out)
    assert code == 0 and found["count"] == 3  # the test split of the table
    assert [one["name"] for one in found["speakers"]] == ["test 3"]
    assert "split 'test' of labels.csv" in found["remarks"]
    result = mmf.read_result(run)
    assert result is not None
    accuracy = found["scores"]["accuracy"]
    assert accuracy["value"] == pytest.approx(accuracy["test"])
    code, out, _ = command("evaluate", f"--data={clips}", "--split=train", "--json")
    warnings = json.loads(out)["warnings"]
    assert warnings[0].startswith("6 of 6 examples have the id of a training example")
    code, out, _ = command("evaluate", f"--data={clips}", "--split=valid")
    assert "id of a validation example" in out and "speaker" in out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("file,label\n9.mp4,c\n8.mp4,a\n", "D07"),
        ("file,label\n9.mp4,\n8.mp4,a\n", "D07"),
        ("file,name\n9.mp4,a\n", "D41"),
        ("file,label,split\n9.mp4,a,train\n", "C10"),
        ("file,label\nnone.mp4,a\n", "D43"),
    ],
)
def test_other_labels_are_one_clear_error(clips, command, tmp_path, labels, reason):
    for name in ("8.mp4", "9.mp4"):
        shutil.copy(clips / name, tmp_path)
    (tmp_path / "labels.csv").write_text(labels)
    words = ["--split=test"] if "split" in labels else []
    code, out, err = command("evaluate", f"--data={tmp_path}", *words)
    assert code not in (0, 1) and f"error[{reason}]" in err and out == "", err


def test_evaluate_requires_data(command):
    code, _, err = command("evaluate")
    assert code not in (0, 1) and "--data is missing" in err
