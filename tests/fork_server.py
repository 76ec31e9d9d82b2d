"""Child processes that may be killed: a server imports once and forks for every trial.

Run as a program it is the server; `ForkServer` is its handle in a test. At a fork the
server has one thread and no JAX backend, so that a child starts as a fresh process
does, without the seconds of its imports.
"""

import dataclasses
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of a child.

    Attributes:
        code: Its exit code, or minus the signal that ended it.
        value: What its function returned; None if it did not get that far.
        log: All it wrote to stdout and stderr.
        seconds: From fork to end.
    """

    code: int
    value: Any
    log: str
    seconds: float


class ForkServer:
    """Starts the server; a context manager.

    Args:
        module: A module in this folder, of functions that children call.
        folder: For logs and results.
        cache: Of compiled programs, shared by the children.
        preload: A library that comes before the C library.
    """

    def __init__(
        self, module: str, folder: Path, cache: Path, preload: Path | None = None
    ):
        self._folder = folder
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        if preload is not None:
            environment["LD_PRELOAD"] = str(preload)
        self._server = subprocess.Popen(
            [sys.executable, __file__, module, str(cache)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == "ready"

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._server.stdout.close()

    def run(
        self,
        function: str,
        *args: Any,
        signals: list[tuple[float, int]] | None = None,
        limit: float = 60.0,
    ) -> Outcome:
        """Calls a function in a child.

        Args:
            function: A name in the module.
            *args: JSON values.
            signals: (seconds after the fork, signal) to send.
            limit: A child that lives longer is killed, and the test fails.
        """
        request = {
            "function": function,
            "args": args,
            "signals": signals or [],
            "limit": limit,
            "log": str(self._folder / "child.log"),
            "value": str(self._folder / "child.json"),
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._read()
        assert answer != "hangs", f"{function}{args} hangs: {self._text('child.log')}"
        value = self._text("child.json")
        return Outcome(
            answer["code"],
            json.loads(value) if value else None,
            self._text("child.log"),
            answer["seconds"],
        )

    def _read(self) -> Any:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, "the fork server died"
        return json.loads(line)

    def _text(self, name: str) -> str:
        path = self._folder / name
        return path.read_text(errors="replace") if path.exists() else ""


def serve(module: str, cache: str) -> None:
    """Forks a child for every request on stdin, and writes its outcome to stdout."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    functions = importlib.import_module(module)
    assert threading.active_count() == 1, threading.enumerate()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        for name in ("log", "value"):
            Path(request[name]).unlink(missing_ok=True)
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            _be_child(functions, request)
        print(json.dumps(_watch(child, begun, request)), flush=True)


def _be_child(functions: Any, request: dict[str, Any]) -> None:
    """Calls the function, writes its value to a file, and exits."""
    code = 1
    try:
        log = os.open(request["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        value = getattr(functions, request["function"])(*request["args"])
        Path(request["value"]).write_text(json.dumps(value))
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(child: int, begun: float, request: dict[str, Any]) -> Any:
    """Sends the signals in time and waits for the end of the child."""
    ended = os.pidfd_open(child)
    try:
        for after, number in [*sorted(request["signals"]), (request["limit"], 0)]:
            left = max(begun + after - time.monotonic(), 0.0)
            if select.select([ended], [], [], left)[0]:
                break
            os.kill(child, number or signal.SIGKILL)
            if number == 0:
                os.waitpid(child, 0)
                return "hangs"
        _, status = os.waitpid(child, 0)
    finally:
        os.close(ended)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "seconds": time.monotonic() - begun}


if __name__ == "__main__":
    serve(*sys.argv[1:])
