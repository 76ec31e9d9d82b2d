"""Shows the predictions of a trained run on a web page of this machine.

python -m mmfusion_jax demo --run=runs/mine
python -m mmfusion_jax demo --run=runs/mine --port=8000
"""

import contextlib
import dataclasses
import errno
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion_jax.cli.command import Command
from mmfusion_jax.cli.flags import Flag, ParsedCommand
from mmfusion_jax.commands.predict import RESPONSIBLE_USE, words
from mmfusion_jax.errors import ConfigError, MissingDependencyError, printable, shorten

if TYPE_CHECKING:  # slow to import, and needed only once the flags are valid
    from mmfusion_jax.commands.demo_model import DemoModel

HOST = "127.0.0.1"
PORTS = 20
"""Number of ports that are tried, beginning with that of --port."""

MAX_PORT = 65535
STOP = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals that end the demo; Ctrl-C is SIGINT."""


@dataclasses.dataclass(frozen=True)
class DemoAddress:
    """What the command prints with --json, once the page is there.

    Attributes:
        run: Folder of the run.
        url: Address of the page.
    """

    run: str
    url: str


def demo_command(command: ParsedCommand) -> None:
    """Serves the page until Ctrl-C."""
    flags = command.flags
    port = flags["port"]
    if not flags["run"]:
        raise ConfigError("C01", "--run is missing.", "--run=runs/NAME")
    if not 0 < port <= MAX_PORT:
        raise ConfigError("C10", f"--port={port:d} is not a port.", "1 to 65535")
    from mmfusion_jax.commands.demo_page import import_gradio
    from mmfusion_jax.results.json_file import dumps

    with uploads() as folder, contextlib.ExitStack() as stack:
        if flags["json"]:  # stdout has the result alone
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        set_environment(folder)
        gradio = import_gradio()
        model = _load(command, folder)
        stop = threading.Event()
        with stopped_by_signals(stop):
            blocks, address = serve(model, gradio, port)
            try:
                if flags["json"]:
                    stack.close()
                    shown = DemoAddress(str(model.predictor.run.folder), address)
                    print(dumps(shown), flush=True)
                else:
                    _announce(model, address, port)
                # With a timeout, since a wait without one delays signals on Windows.
                while not stop.wait(1.0):
                    pass
            finally:
                blocks.close(verbose=False)
    print("the demo has ended; the uploaded files are deleted", file=sys.stderr)


def _load(command: ParsedCommand, folder: Path) -> "DemoModel":
    """Returns the model with what the page offers."""
    from mmfusion_jax.commands.demo_model import DemoModel
    from mmfusion_jax.inference.predictor import load
    from mmfusion_jax.runner.runtime import initialize_one_process

    initialize_one_process()
    packages = words(command.flags["packages"])
    predictor = load(command.flags["run"], batch_size=1, packages=packages)
    model = DemoModel(predictor, folder)
    model.warm_up()
    return model


def _announce(model: "DemoModel", address: str, port: int) -> None:
    """Prints where the page is."""
    lines = [f"open {shorten(address)} in a browser; Ctrl-C ends the demo"]
    if not address.rstrip("/").endswith(f":{port}"):
        lines.insert(0, f"port {port:d} is in use")
    if model.remark:
        lines.append(shorten(model.remark))
    print(printable("\n".join([*lines, RESPONSIBLE_USE])), flush=True)


@contextlib.contextmanager
def uploads() -> Iterator[Path]:
    """Makes the folder of the uploaded files, which is deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mmfusion_jax_demo_")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def set_environment(folder: Path) -> None:
    """Sets what Gradio reads when it is imported: no analytics, and where files are.

    Args:
        folder: Folder of the uploaded files.
    """
    # Such as GRADIO_SHARE, GRADIO_SERVER_NAME or GRADIO_ALLOWED_PATHS of another app.
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Gradio asks itself whether it is there, which a proxy cannot answer.
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [*filter(None, [os.environ.get(name)]), HOST, "localhost"]
        os.environ[name] = ",".join(hosts)


def serve(model: "DemoModel", gradio: Any, port: int) -> tuple[Any, str]:
    """Serves the page on the first free port and returns the page and its address.

    Args:
        model: The model.
        gradio: The module.
        port: The first port that is tried.

    Raises:
        MissingDependencyError: All ports are in use.
    """
    from mmfusion_jax.commands.demo_page import build_page, launch

    blocks = build_page(model, gradio)
    last = min(port + PORTS - 1, MAX_PORT)
    for number in range(port, last + 1):
        if is_free(number):
            # Another program can take it before Gradio does.
            with contextlib.suppress(OSError):
                return blocks, launch(blocks, gradio, number)
    raise MissingDependencyError(
        "E09",
        f"the ports {port:d} to {last:d} of {HOST} are in use.",
        "end the other programs, or choose another one, such as --port=9000",
    )


def is_free(port: int) -> bool:
    """Returns whether a port of the loopback interface can be used.

    Args:
        port: 1 to 65535.

    Raises:
        PermissionError: The user may not use this port.
    """
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((HOST, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True


@contextlib.contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Sets an event at a signal that ends programs; the second one interrupts the rest.

    Args:
        stop: The event.
    """
    before = {}

    def handle(*_: Any) -> None:
        stop.set()
        for number in before:
            signal.signal(number, signal.default_int_handler)

    for name in STOP:
        if (number := getattr(signal, name, None)) is not None:
            before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


COMMAND = Command(
    "mmfusion_jax demo",
    f"Shows the predictions of a trained run on a web page. {RESPONSIBLE_USE}",
    demo_command,
    (
        Flag("run", "", "workdir of the training, or an exported folder"),
        Flag("port", 7860, "port on 127.0.0.1; the next free one if it is in use"),
        Flag("packages", "", "packages whose parts the config of the run may name"),
    ),
    needs_config=False,
)
