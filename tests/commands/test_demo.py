"""The demo without a browser: what the page shows, the server, the environment."""

import dataclasses
import importlib
import importlib.metadata
import os
import re
import signal
import socket
import threading

import demo_run
import numpy as np
import pytest
import small_configs

from mmfusion_jax.__main__ import run
from mmfusion_jax.commands import demo, demo_model, demo_page
from mmfusion_jax.commands.demo_model import DemoModel, Selection
from mmfusion_jax.commands.demo_recording import complete_recording
from mmfusion_jax.commands.predict import RESPONSIBLE_USE
from mmfusion_jax.data.media.truncation import check_complete
from mmfusion_jax.errors import DataError, MissingDependencyError

ALL = sorted(small_configs.SHAPES)


@pytest.fixture(autouse=True)
def made_up_digits(monkeypatch):
    make = lambda spec, fold: small_configs.digits()
    monkeypatch.setattr(demo_model, "build_dataset", make)


@pytest.fixture
def model(tmp_path) -> DemoModel:
    return DemoModel(demo_run.predictor(tmp_path / "runs" / "mine"), tmp_path)


def upload(folder, name="good.npz", count=1, **changes):
    """A file as Gradio stores it: in a folder whose name is a hash."""
    rng = np.random.default_rng(3)
    shapes = {m: (count, *s) for m, s in small_configs.SHAPES.items() if m != "text"}
    arrays = {m: rng.normal(size=s).astype(np.float32) for m, s in shapes.items()}
    arrays["text"] = np.full((count, 5), 2)
    path = folder / "0123abc" / name
    path.parent.mkdir(exist_ok=True)
    left = {k: v for k, v in (arrays | changes).items() if v is not None}
    np.savez(path, **left)
    return str(path)


def bars(html: str) -> dict[str, float]:
    found = re.findall(r'data-name="([^"]*)" data-value="([^"]*)"', html)
    return {name: float(value) for name, value in found}


def state(html: str, modality: str) -> str:
    return re.search(rf'class="demo-(\w+)" data-modality="{modality}"', html)[1]


def test_a_prediction_has_its_probabilities_its_set_and_its_modalities(model, tmp_path):
    html = model.show(Selection(upload(tmp_path)), ALL, 0.9)
    assert sum(bars(html).values()) == pytest.approx(1, abs=1e-5)
    assert "good.npz" in html and str(tmp_path) not in html
    found = model.predict(Selection(upload(tmp_path)), ALL, 0.9)[1]
    assert bars(html) == found.probabilities
    assert f"<strong>{', '.join(found.prediction_set)}</strong>" in html
    assert html.count("●") == len(found.prediction_set) + 1
    assert [state(html, m) for m in ALL] == ["used"] * 4
    for name, one in found.without.items():
        row = html.split(f'data-modality="{name}"')[1].split("</tr>")[0]
        assert f"{one.change:+.2f}" in row and one.label in row and "0.25" in row
    assert html.count('src="data:image/png;base64,') == 5  # audio, image, 3 frames
    assert "one one one one one" in html  # the id 2 of the vocabulary


def test_a_modality_that_is_off_or_missing_is_not_used(model, tmp_path):
    every = model.show(Selection(upload(tmp_path)), ALL, 0.9)
    off = model.show(Selection(upload(tmp_path)), ["image", "text", "video"], 0.9)
    silent = upload(tmp_path, "silent.npz", audio=None)
    missing = model.show(Selection(silent), ALL, 0.9)
    assert bars(off) != bars(every) and bars(off) == bars(missing)
    assert state(off, "audio") == "off" and state(missing, "audio") == "missing"
    assert "the example does not have audio" in missing
    assert "the example does not have audio" not in off
    for html in (off, missing):
        assert "accuracy without audio is 0.5, and 0.75 with all" in html
    none = model.show(Selection(upload(tmp_path)), [], 0.9)
    assert set(bars(none).values()) == {0.333333}
    assert "no modality is left" in none


def test_a_bad_file_is_one_line_with_its_code(model, tmp_path):
    bad = upload(tmp_path, "bad.npz", audio=np.zeros((1, 16, 9)))
    garbage = tmp_path / "0123abc" / "garbage.npz"
    garbage.write_bytes(b"not a zip")
    for path in (bad, str(garbage), str(tmp_path / "gone.npz"), "clip.mp4"):
        html = model.show(Selection(path), ALL, 0.9)
        assert re.search(r"<strong>error\[D\d\d\]</strong>", html), html
        assert str(tmp_path) not in html and "Traceback" not in html
        assert html.count("<p>") == 1 and len(bars(html)) == 0
    assert bars(model.show(Selection(upload(tmp_path)), ALL, 0.9))
    assert "error[D26]" in model.show(Selection(upload(tmp_path), index=7), ALL, 0.9)


def test_a_bug_is_one_line_and_its_traceback_is_in_the_terminal(model, capfd):
    def fail(*_, **__):
        raise ZeroDivisionError("by <zero>")

    model.predictor.predict = fail
    html = model.show(Selection(), ALL, 0.9)
    assert "error[B00]" in html and "by &lt;zero&gt;" in html
    assert "Traceback" not in html and "Traceback" in capfd.readouterr().err


def test_the_examples_of_the_test_split_have_their_labels(model):
    assert model.ids(Selection()) == ["test/0", "test/1", "test/2"]
    html = model.show(Selection(index=2), ALL, 0.9)
    assert "the label of this test example: high" in html


def test_data_that_are_not_there_are_not_offered(tmp_path, monkeypatch):
    def absent(spec, fold):
        raise DataError("D40", "no data.", "import them")

    monkeypatch.setattr(demo_model, "build_dataset", absent)
    one = DemoModel(demo_run.predictor(tmp_path), tmp_path)
    assert one.examples == [] and "error[D40]" in one.remark


def test_data_that_have_changed_are_not_offered(tmp_path, monkeypatch):
    make = lambda spec, fold: small_configs.digits(count=9)
    monkeypatch.setattr(demo_model, "build_dataset", make)
    one = DemoModel(demo_run.predictor(tmp_path), tmp_path)
    assert one.examples == []
    assert "split 'train': 12 examples, now 9" in one.remark


def test_names_of_the_data_are_text(tmp_path):
    predictor = demo_run.predictor(tmp_path)
    task = dataclasses.replace(
        predictor.run.info.task, classes=["<b>x</b>", "middle", "high"]
    )
    info = dataclasses.replace(predictor.run.info, task=task)
    predictor.run = dataclasses.replace(predictor.run, info=info)
    html = DemoModel(predictor, tmp_path).show(Selection(), ALL, 0.9)
    assert "<b>x" not in html and "&lt;b&gt;x" in html


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_other_labels(tmp_path, kind):
    one = DemoModel(demo_run.predictor(tmp_path, kind), tmp_path / "none")
    path = upload(tmp_path)
    html = one.show(Selection(path), ALL, 0.8)
    found = one.predict(Selection(path), ALL, 0.8)[1]
    if kind == "regression":
        low, high = found.interval
        assert f"<strong>{low:.3g} to {high:.3g}</strong>" in html
        assert "demo-marker" in html and not bars(html)
    else:
        assert bars(html) == found.probabilities
        assert "set with coverage 0.80" in html


def test_without_calibration_nothing_is_claimed(tmp_path):
    one = DemoModel(demo_run.predictor(tmp_path, calibration=None), tmp_path)
    html = one.show(Selection(), ALL, 0.9)
    assert "not calibrated" in html and "●" not in html and "coverage" not in html


def test_header_and_footer(model):
    header = model.header()
    assert "mine" in header and "small digits (made up)" in header
    assert "test accuracy 75.0 %, n = 6" in header
    assert RESPONSIBLE_USE in model.footer()


def test_handlers(model, tmp_path):
    page = demo_page.DemoPage(model, demo_run.components())
    settings = ("", ALL, 0.9)
    html, selection, rows = page.predict("examples", 1, None, None, None, *settings)
    assert selection == Selection(index=1) and rows == {"visible": False}
    html, selection, rows = page.predict("file", 0, None, None, None, *settings)
    assert "error[D26]" in html and selection is None
    assert page.again(None, ALL, 0.9) == "skipped"
    several = upload(tmp_path, "several.npz", 3, id=np.array(["a", "b", "c"]))
    html, selection, rows = page.predict("file", 0, several, None, None, *settings)
    assert rows["choices"] == [("a", 0), ("b", 1), ("c", 2)] and rows["visible"]
    other, selection = page.row(selection, 2, ALL, 0.9)
    assert selection == Selection(several, "", 2) and bars(other) != bars(html)
    assert page.again(selection, ALL, 0.9) == other
    bad = upload(tmp_path, "bad.npz", audio=np.zeros((1, 16, 9)))
    html, _, rows = page.predict("file", 0, bad, None, None, *settings)
    assert "error[D26]" in html and rows == {"visible": False}


def test_the_next_free_port_is_taken(model, monkeypatch):
    monkeypatch.setattr(demo_page, "build_page", lambda *_: "page")
    monkeypatch.setattr(demo_page, "launch", lambda page, gradio, port: port)
    with socket.socket() as taken:
        taken.bind((demo.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not demo.is_free(port)
        monkeypatch.setattr(demo, "PORTS", 1)
        with pytest.raises(MissingDependencyError, match="in use") as error:
            demo.serve(model, None, port)
        assert error.value.code == "E09"
        monkeypatch.setattr(demo, "is_free", lambda number: number > port + 2)
        monkeypatch.setattr(demo, "PORTS", 20)
        assert demo.serve(model, None, port) == ("page", port + 3)


def test_the_environment_of_another_app_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.update(GRADIO_SHARE="True", GRADIO_SERVER_NAME="0.0.0.0")
    os.environ.update(GRADIO_ALLOWED_PATHS="/", no_proxy="intranet")
    demo.set_environment(tmp_path)
    left = {k: v for k, v in os.environ.items() if k.startswith("GRADIO_")}
    assert left == {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(tmp_path),
    }
    assert os.environ["no_proxy"] == "intranet,127.0.0.1,localhost"


def test_a_recording_that_the_browser_has_cut_is_completed(tmp_path):
    av = pytest.importorskip("av")
    path, other = tmp_path / "sample.webm", tmp_path / "other.webm"
    with av.open(str(path), "w", format="matroska") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for shade in range(5):
            pixels = np.full((32, 32, 3), 50 * shade, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            file.mux(stream.encode(frame.reformat(format="yuv420p")))
        file.mux(stream.encode(None))
    cut = path.read_bytes()[:-100]
    path.write_bytes(cut)
    other.write_bytes(cut)
    with pytest.raises(DataError):
        check_complete(path)
    copy = complete_recording(path)
    check_complete(copy)
    with av.open(str(copy)) as file:
        assert sum(1 for _ in file.decode(video=0)) >= 3
    assert complete_recording(other) == other  # an upload that is cut is an error
    path.write_bytes(b"text")
    assert complete_recording(path) == path


def test_uploaded_files_are_deleted():
    with pytest.raises(KeyboardInterrupt), demo.uploads() as folder:
        (folder / "face.mp4").write_bytes(b"x")
        assert folder.stat().st_mode & 0o077 == 0
        raise KeyboardInterrupt
    assert not folder.exists()


@pytest.mark.parametrize("name", demo.STOP)
def test_signals_end_the_demo(name):
    stop, number = threading.Event(), getattr(signal, name)
    before = signal.getsignal(number)
    with demo.stopped_by_signals(stop):
        signal.raise_signal(number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):  # the second one does not wait
            signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_without_gradio_the_command_that_installs_it_is_shown(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(MissingDependencyError, match="requires gradio") as error:
        demo_page.import_gradio()
    assert (error.value.code, error.value.fix) == ("E01", demo_page.INSTALL)


def test_another_version_of_gradio_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "5.49.1")
    with pytest.raises(MissingDependencyError, match="gradio 6, but '5.49.1'"):
        demo_page.import_gradio()


def test_gradio_that_does_not_start_is_one_error(monkeypatch):
    def fail(name):
        raise ImportError("cannot import name 'X'")

    monkeypatch.setattr(importlib.metadata, "version", lambda name: "6.31.0")
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(MissingDependencyError, match="cannot import name 'X'"):
        demo_page.import_gradio()


@pytest.mark.parametrize(
    "words", [[], ["--run=x", "--port=0"], ["--run=x", "--host=0.0.0.0"], ["--share"]]
)
def test_mistakes(words, capfd):
    assert run(["demo", *words]) == 2
    assert re.match(r"error\[C\d\d\] ", capfd.readouterr().err)
