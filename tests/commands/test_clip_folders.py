"""`data check FOLDER` and `data init FOLDER`."""

import json

import pytest
from media_files import tone, write_video, write_wav

from mmfusion_jax.cli.command import run_command
from mmfusion_jax.commands.data_files import COMMANDS
from mmfusion_jax.data.media import labels_csv


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve clips of two classes and four speakers, and four that are unusual."""
    clips = tmp_path_factory.mktemp("talks")
    for i in range(12):
        write_wav(clips / f"{i}.wav", tone(0.5 + i / 10, 300 + 50 * i))
    write_video(clips / "video.mp4", audio=tone(1.0, 250))
    write_wav(clips / "silent.wav", 0 * tone(0.5))
    write_wav(clips / "unnamed.wav", tone(0.5, 2000))
    (clips / "broken.wav").write_text("<html>Please log in</html>")
    return clips


def labels(folder, *more):
    rows = [f"{i}.wav,{'ab'[i % 2]},s{i // 2 % 4}" for i in range(12)]
    text = "\n".join(["file,label,speaker", *rows, *more])
    (folder / "labels.csv").write_text(text)


def check(folder, capsys, *words):
    code = run_command(COMMANDS["check"], [str(folder), "--workers=0", *words])
    return code, capsys.readouterr()


def test_a_report_of_a_good_folder(folder, capsys):
    labels(folder, "video.mp4,a,s0", "silent.wav,b,s0")
    code, out = check(folder, capsys)
    assert code == 0, out
    lines = out.out.splitlines()
    assert lines[0].endswith("talks0: 14 rows in labels.csv, 14 files can be used")
    assert lines[1] == (
        "clips by class: train, valid, test; splits at random by speaker or file, "
        "split_seed 0"
    )
    assert "speakers: 4: s0 (6), s1 (4), s2 (2), s3 (2)" in lines
    assert "lengths: 0.50 to 1.60 s, median 1.00 s, 14 s in all" in lines
    assert "audio: 14 clips (14 with 1 channel); video: 1" in lines
    assert "remark: 1 clips have silent audio: silent.wav" in lines
    assert "remark: 2 media files have no row: broken.wav, unnamed.wav" in lines


def test_absent_and_damaged_clips_are_problems(folder, capsys):
    labels(folder, "broken.wav,a,s0", "gone.wav,b,s0")
    code, out = check(folder, capsys, "--json")
    report = json.loads(out.out)
    assert code == 1 and report["problems"] == ["2 of 14 clips cannot be used"]
    assert report["left_out"] == {
        "gone.wav": "does not exist",
        "broken.wav": "got an HTML page instead of a media file.",
    }
    assert report["lengths"]["maximum"] == pytest.approx(1.6, abs=0.01)


def test_splits_that_a_training_refuses_are_problems(folder, capsys):
    text = "file,label,speaker,split\n0.wav,a,x,train\n1.wav,b,y,train\n2.wav,a,x,test"
    (folder / "labels.csv").write_text(text)
    code, out = check(folder, capsys)
    assert code == 1 and "problem: D10 'x' is in splits" in out.out
    rows = [f"{i}.wav,a,{'train' if i < 6 else 'test'}" for i in range(11)]
    (folder / "labels.csv").write_text("\n".join(["file,label,split", *rows, "11.wav,b,"
                                                  "train"]))  # fmt: skip
    code, out = check(folder, capsys)
    assert code == 0 and "remark: test: all 5 examples have the class 'a'" in out.out


def test_init_writes_a_table_to_fill_in_and_never_overwrites(folder, capsys):
    (folder / "labels.csv").unlink()
    code, out = check(folder, capsys)
    assert code == 3 and "labels.csv does not exist" in out.err
    assert "data init FOLDER" in out.err
    assert run_command(COMMANDS["init"], [str(folder)]) == 0
    fill, check_command = capsys.readouterr().out.splitlines()[1:]
    assert fill.startswith("fill in the empty cells of the column label")
    assert check_command.startswith("then check:  python -m mmfusion_jax data check")
    written = (folder / "labels.csv").read_text()
    assert written.splitlines()[:2] == ["file,label,speaker", "0.wav,,"]
    assert len(written.splitlines()) == 17
    code, out = check(folder, capsys)
    assert code == 3 and "line 2: 'label' and 'speaker' are empty" in out.err
    assert run_command(COMMANDS["init"], [str(folder)]) == 3
    assert "D48" in capsys.readouterr().err
    assert (folder / "labels.csv").read_text() == written


def test_init_fills_in_what_is_known(tmp_path, capsys):
    for name in ("happy/a.wav", "sad/b.wav"):
        (tmp_path / "own" / name).parent.mkdir(parents=True)
        write_wav(tmp_path / "own" / name)
    words = [str(tmp_path / "own"), "--label_from_folder"]
    assert run_command(COMMANDS["init"], words) == 0
    lines = (tmp_path / "own" / "labels.csv").read_text().splitlines()
    assert lines[1:] == ["happy/a.wav,happy,", "sad/b.wav,sad,"]
    root = tmp_path / "ravdess"
    root.mkdir()
    for code in ("01-01-03-01-01-01-02.mp4", "02-01-03-01-01-01-02.mp4",
                 "03-01-03-01-01-01-02.wav", "03-01-04-01-01-01-02.wav",
                 "03-02-04-01-01-01-02.wav"):  # fmt: skip
        (root / code).write_bytes(b"")
    assert run_command(COMMANDS["init"], [str(root)]) == 0
    rows = (root / "labels.csv").read_text().splitlines()[1:]
    assert rows == [
        "01-01-03-01-01-01-02.mp4,happy,actor 02",
        "03-01-04-01-01-01-02.wav,sad,actor 02",
    ]
    found = labels_csv.read_labels(root / "labels.csv", root)
    assert [row.speaker for row in found.rows] == ["actor 02"] * 2
