"""Progress on a terminal, in a file and in a notebook."""

import io
import sys
from types import ModuleType

import pytest

from mmfusion_jax.data.storage.progress import progress_console
from mmfusion_jax.training.metrics_log import MetricsLogger


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def notebook(monkeypatch):
    """What rich and others take for a notebook, whose kernel sets FORCE_COLOR."""
    shell = type("ZMQInteractiveShell", (), {"__module__": "ipykernel.zmqshell"})
    monkeypatch.setattr("builtins.get_ipython", shell, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    display = ModuleType("IPython.display")
    display.display = lambda *_: pytest.fail("shown as HTML")  # type: ignore
    monkeypatch.setitem(sys.modules, "IPython.display", display)


def test_a_notebook_gets_plain_lines(notebook):
    out = io.StringIO()
    with MetricsLogger(None, "[run]", out=out) as logger:
        logger.start(0, 10)
        logger.progress(5, "loss 1.0")
        logger.log("epoch 1: [valid] accuracy 0.5")
    assert out.getvalue() == "epoch 1: [valid] accuracy 0.5\n"


def test_a_terminal_gets_a_bar():
    assert progress_console(Terminal()).is_terminal
    assert not progress_console(io.StringIO()).is_terminal
