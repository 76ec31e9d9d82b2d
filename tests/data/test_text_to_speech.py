"""eSpeak NG in a separate process: deterministic audio, and errors of the worker."""

import subprocess
import sys
import time

import numpy as np
import pytest

from mmfusion_jax.data.datasets.digits import text_to_speech
from mmfusion_jax.data.datasets.digits.text_to_speech import Utterance, speak
from mmfusion_jax.errors import MissingDependencyError

SEVEN = Utterance("seven", "en-us+f2", 150, 50)
NINE = Utterance("nine", "en+m3", 200, 30)


@pytest.fixture
def worker(monkeypatch, tmp_path):
    """Replaces the worker by a script."""

    def replace(script: str) -> None:
        path = tmp_path / "worker.py"
        path.write_text(script)
        monkeypatch.setattr(text_to_speech, "WORKER", path)

    return replace


def test_neither_time_nor_previous_utterances_change_the_audio():
    pytest.importorskip("espeakng_loader")
    (rate, alone), *_ = speak([SEVEN])
    time.sleep(1.1)  # by default the clock seeds the breath noise of this voice
    *_, (_, after) = speak([NINE, NINE, SEVEN])
    assert rate == 22050
    assert alone.dtype == np.int16 and len(alone) > rate / 5
    np.testing.assert_array_equal(alone, after)


def test_order_is_kept_over_several_processes(monkeypatch):
    pytest.importorskip("espeakng_loader")
    monkeypatch.setattr(text_to_speech, "CHUNK", 2)
    lengths = [len(audio) for _, audio in speak([SEVEN, NINE, SEVEN, NINE, NINE])]
    seven, nine = lengths[:2]
    assert seven != nine
    assert lengths == [seven, nine, seven, nine, nine]


def test_an_unknown_voice_is_named():
    pytest.importorskip("espeakng_loader")
    with pytest.raises(
        MissingDependencyError, match="voice='xx-none' is unknown"
    ) as caught:
        list(speak([Utterance("one", "xx-none", 150, 50)]))
    assert caught.value.code == "E02"


@pytest.mark.parametrize(
    ("script", "code", "message"),
    [
        ("import os; os.abort()", "E02", "exit status -6"),
        ("raise OSError('no such library')", "E02", "no such library"),
        ("print('hello')", "E02", "invalid response of 6 bytes"),
        ("import sys; sys.exit(3)", "E01", "espeakng_loader, which is not installed"),
        ("import time; time.sleep(60)", "E02", "exceeded 0.5 s"),
    ],
)
def test_a_failing_worker_gives_an_error(worker, script, code, message):
    worker(script)
    with pytest.raises(MissingDependencyError, match=message) as caught:
        list(speak([SEVEN], timeout=0.5 if "sleep" in script else 60))
    assert caught.value.code == code


def test_an_utterance_that_hangs_is_killed():
    script = f"""
import runpy, time
worker = runpy.run_path({str(text_to_speech.WORKER)!r})
scope = worker["in_fork"].__globals__
scope["synthesize"] = lambda library, *request: time.sleep(60)
scope["SECONDS_PER_UTTERANCE"] = 1
worker["in_fork"](None, ["seven"])
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert run.returncode == 1
    assert "ended with signal 14 on ['seven']" in run.stderr
