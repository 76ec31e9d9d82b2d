"""The demo of a trained digits run in a headless Chromium.

It needs Chromium, such as that of `apt-get install chromium`, and the extra `app-test`.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from paths import ROOT
from trained_runs import train_on_clips, write_clips

from mmfusion_jax.__main__ import run
from mmfusion_jax.commands.predict import RESPONSIBLE_USE
from mmfusion_jax.data.datasets.digits.dataset import load_digits

pytestmark = pytest.mark.ci

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = ["--no-sandbox", "--disable-dev-shm-usage"]
LOOPBACK = {"127.0.0.1", "localhost"}
WORDS = (
    "--config=hetero_fusion_net --config.model.hidden_dim=16 "
    "--config.model.gate_hidden_dim=8 --config.model.latent_dim=8 "
    "--config.model.num_heads=2 --config.model.encoders.video=None "
    "--config.model.encoders.text=None --config.model.encoders.audio.name=precomputed "
    "--config.optim.learning_rate=0.003 --config.train.epochs=2 "
    "--config.train.diagnosis=False --config.data.num_read_threads=1"
)


@pytest.fixture(scope="module")
def playwright():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    reason = 'pip install "mmfusion_jax[app-test]"'
    pytest.importorskip("gradio", reason=reason)
    sync = pytest.importorskip("playwright.sync_api", reason=reason)
    with sync.sync_playwright() as one:
        yield one


@pytest.fixture(scope="module")
def trained(playwright, tmp_path_factory) -> Path:
    """A run of two epochs."""
    workdir = tmp_path_factory.mktemp("trained") / "mine"
    assert run(["train", *WORDS.split(), f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory) -> Path:
    """A feature file of three test examples, one without audio, and a bad one."""
    folder = tmp_path_factory.mktemp("files")
    source = load_digits(modalities=("image", "audio")).source("test")
    image = np.stack([source[i]["inputs"]["image"] for i in range(3)])
    audio = np.stack([source[i]["inputs"]["audio"] for i in range(3)])
    np.savez(folder / "good.npz", image=image, audio=audio)
    np.savez(folder / "silent.npz", image=image[:1])
    (folder / "bad.npz").write_bytes(b"PK\x03\x04 this archive is truncated")
    return folder


@contextlib.contextmanager
def served(workdir: Path, folder: Path, port: int):
    """The demo in a process of its own; its address."""
    hosts, errors = folder / "hosts.txt", folder / "stderr.txt"
    temporary = folder / "tmp"
    temporary.mkdir()
    script = str(ROOT / "tests" / "subprocess_demo.py")
    words = [str(hosts), f"--run={workdir}", f"--port={port}", "--json"]
    with errors.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, script, *words],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            # What another app may have set must not have an effect.
            env=os.environ
            | {"TMPDIR": str(temporary), "GRADIO_SERVER_NAME": "0.0.0.0"}
            | {"GRADIO_SHARE": "True", "http_proxy": "http://192.0.2.1:9"},
        )
    try:
        shown = ""
        while not shown.endswith("}\n") and (line := process.stdout.readline()):
            shown += line
        assert shown, errors.read_text()
        yield json.loads(shown)["url"], temporary
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, errors.read_text()
    finally:
        process.kill()
        process.communicate()  # closes the pipe
    assert "Traceback" not in errors.read_text()
    assert set(hosts.read_text().split("\n")) - LOOPBACK == {""}


@pytest.fixture(scope="module")
def page(playwright, trained, tmp_path_factory):
    """The page in the browser, with the requests that it makes."""
    folder = tmp_path_factory.mktemp("served")
    with socket.socket() as taken:  # the next port is used
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with served(trained, folder, port) as (url, temporary):
            assert urlsplit(url).hostname == "127.0.0.1"
            assert urlsplit(url).port > port
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
            one = browser.new_page()
            one.set_default_timeout(30_000)
            requests = []
            one.on("request", lambda request: requests.append(request.url))
            one.goto(url)
            one.wait_for_selector("#predict")
            yield one, requests, url, temporary
            browser.close()
        assert list(temporary.iterdir()) == []  # the uploaded files are deleted


def mark_old(page) -> None:
    """Marks what is shown, to be able to wait for something else."""
    page.evaluate("document.querySelector('#result .demo').dataset.old = 'yes'")


def wait_for_new(page) -> None:
    page.wait_for_selector("#result .demo:not([data-old])")


def predict(page) -> str:
    """Clicks on the button; the class of what is then shown."""
    mark_old(page)
    page.click("#predict")
    wait_for_new(page)
    return page.get_attribute("#result .demo", "class")


def upload(page, path: Path) -> None:
    if page.locator("[aria-label='Clear'], [aria-label='Remove']").count():
        page.locator("[aria-label='Clear'], [aria-label='Remove']").first.click()
    page.set_input_files("input[type=file]", str(path))
    page.wait_for_selector(f"text={path.stem}")


def bars(page) -> dict[str, float]:
    found = page.eval_on_selector_all(
        "#result .demo-bar", "all => all.map(x => [x.dataset.name, x.dataset.value])"
    )
    return {name: float(value) for name, value in found}


def test_the_page(page, files):
    one, requests, url, temporary = page
    assert RESPONSIBLE_USE in one.inner_text(".demo-footer")
    assert "n = 400" in one.inner_text(".demo-header")
    assert "mine" in one.inner_text(".demo-header")
    # An example of the test split.
    assert "demo-result" in predict(one)
    every = bars(one)
    assert len(every) == 10 and abs(sum(every.values()) - 1) < 1e-4
    assert "the label of this test example: zero" in one.inner_text("#result")
    # A modality that is turned off, and on again.
    mark_old(one)
    one.get_by_label("audio", exact=True).uncheck()
    wait_for_new(one)
    assert bars(one) != every
    assert "turned off" in one.inner_text("tr[data-modality=audio]")
    mark_old(one)
    one.get_by_label("audio", exact=True).check()
    wait_for_new(one)
    assert bars(one) == every
    # Files: a bad one, one with three examples, one without audio.
    one.get_by_role("tab", name="File").click()
    assert "demo-error" in predict(one)
    assert "error[D26]" in one.inner_text("#result")
    upload(one, files / "bad.npz")
    assert "demo-error" in predict(one)
    message = one.inner_text("#result")
    assert "error[D" in message and "Traceback" not in message
    assert str(temporary) not in message
    upload(one, files / "good.npz")
    assert "demo-result" in predict(one)
    assert one.is_visible("text=Example of the file")
    upload(one, files / "silent.npz")
    assert "demo-result" in predict(one)
    assert "the example does not have audio" in one.inner_text("#result")
    assert any(temporary.rglob("silent.npz"))
    # Always visible, whatever is scrolled.
    one.mouse.wheel(0, 5000)
    assert one.locator(".demo-footer").is_visible()
    box = one.locator(".demo-footer").bounding_box()
    assert box["y"] + box["height"] <= one.viewport_size["height"] + 1
    # Nothing leaves this machine.
    hosts = {urlsplit(address).hostname for address in requests}
    assert hosts - {None} == {"127.0.0.1"}  # None: data: and blob: addresses
    assert all(a.startswith(("http://127.0.0.1:", "data:", "blob:")) for a in requests)


def test_a_recording_of_the_camera(playwright, tmp_path):
    clips, workdir, folder = (tmp_path / x for x in ("clips", "run", "served"))
    clips.mkdir()
    folder.mkdir()
    train_on_clips(write_clips(clips), workdir, tmp_path / "cache")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with served(workdir, folder, port) as (url, _):
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                *OPTIONS,
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        one = browser.new_context(permissions=["camera", "microphone"]).new_page()
        one.set_default_timeout(30_000)
        one.goto(url)
        one.get_by_label("Capture from camera").first.click()
        one.get_by_text("Click to Access Webcam").first.click()
        one.get_by_role("button", name="Record").click()
        one.wait_for_timeout(2000)
        one.get_by_text("Stop", exact=True).click()
        one.wait_for_selector("video[src]")
        one.click("#predict")
        one.wait_for_selector("#result .demo:not(.demo-empty)")
        assert "demo-result" in one.get_attribute("#result .demo", "class")
        shown = one.inner_text("#result")
        assert "recording" in shown and "the example does not have text" in shown
        browser.close()


def test_other_hosts_are_refused(page):
    import urllib.request

    address = page[2]
    ours = urllib.request.Request(address)
    with urllib.request.urlopen(ours, timeout=10) as response:
        assert response.status == 200
    others = urllib.request.Request(address, headers={"Host": "rebound.example"})
    with pytest.raises(urllib.request.HTTPError, match="400"):
        urllib.request.urlopen(others, timeout=10)
    port = urlsplit(address).port
    with socket.socket() as one, pytest.raises(OSError):
        one.settimeout(2)
        # Another address of this machine: the demo only listens at 127.0.0.1.
        one.connect(("127.0.0.2", port))
