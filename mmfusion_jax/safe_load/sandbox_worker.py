"""The sandboxed process: sets its limits, calls a function and writes a response.

    python -m mmfusion_jax.safe_load.sandbox_worker FOLDER

FOLDER contains `request.json`. The response, a `sandbox.Response`, is written to
`response.json`.
"""

import importlib
import json
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mmfusion_jax import errors
from mmfusion_jax.safe_load.parent_death import exit_with_parent
from mmfusion_jax.safe_load.sandbox import (
    JSON,
    REQUEST,
    RESPONSE,
    ErrorResponse,
    Response,
)

_STATM = Path("/proc/self/statm")  # Linux only


def main(folder: Path) -> None:
    """Handles the request in a folder."""
    request = json.loads((folder / REQUEST).read_text())
    exit_with_parent(request["parent"])
    module, name = request["function"].split(":")
    function = getattr(importlib.import_module(module), name)
    _set_limits(request["memory"], request["cpu"])
    response = _call(function, request["arguments"])
    # Written last: without a response the parent reports how the process ended.
    (folder / RESPONSE).write_text(json.dumps(msgspec.to_builtins(response)))


def _set_limits(memory: int, cpu: int) -> None:
    """Sets the resource limits of this process.

    Their order matters. The process is first tied to its parent, so that none is left
    behind however the parent ends. The function is then imported without limits: its
    libraries reserve gigabytes of addresses and start threads, which differs between
    machines and is not due to the file, so what they use is added to the limits of
    memory and CPU time. The signal for too large files must have its default action
    before the limit that sends it exists. Only then is the function called, which is
    the first to see the file. Nothing in this process can raise the limits again, and
    they also hold while the response is written.
    """
    used = 0
    if _STATM.exists():
        used = int(_STATM.read_text().split()[0]) * resource.getpagesize()
    # Python ignores this signal, and libraries would then report arbitrary errors.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    _lower_limit(resource.RLIMIT_AS, used + memory)
    _lower_limit(resource.RLIMIT_FSIZE, memory)
    spent = resource.getrusage(resource.RUSAGE_SELF)
    _lower_limit(resource.RLIMIT_CPU, cpu + int(spent.ru_utime + spent.ru_stime) + 1)
    # A crash would otherwise write the memory, which may be gigabytes, to the disk.
    _lower_limit(resource.RLIMIT_CORE, 0)


def _lower_limit(kind: int, maximum: int) -> None:
    """Sets a limit, unless the system has set a lower one.

    The hard limit of the CPU time is one second later, so that the soft limit ends the
    process with its own signal.
    """
    _, hard = resource.getrlimit(kind)
    soft = maximum if hard == resource.RLIM_INFINITY else min(maximum, hard)
    grace = int(kind == resource.RLIMIT_CPU and soft == maximum)
    top = soft + grace if hard == resource.RLIM_INFINITY else min(soft + grace, hard)
    resource.setrlimit(kind, (soft, top))


def _call(function: Callable[..., Any], arguments: Mapping[str, JSON]) -> Response:
    """Returns the response: the result of the function, or its exception."""
    try:
        return Response(result=msgspec.to_builtins(function(**arguments)))
    except MemoryError:
        return Response(out_of_memory=True)
    except errors.UserError as error:
        # Readers report a MemoryError as D65; the message of the parent has the limit.
        if error.code == "D65":
            return Response(out_of_memory=True)
        name, message = _name(error), str(error.args[0])
        return Response(user_error=ErrorResponse(name, error.code, message, error.fix))
    except Exception:
        return Response(bug=traceback.format_exc())


def _name(error: errors.UserError) -> str:
    """Returns the name of the class in `errors.py` that an error belongs to."""
    bases = type(error).__mro__
    return next(c.__name__ for c in bases if c.__module__ == errors.__name__)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
