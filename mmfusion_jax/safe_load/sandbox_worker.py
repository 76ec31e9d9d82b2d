"""The process inside the cage: it binds itself, works, and leaves an answer.

    python -m mmfusion_jax.safe_load.sandbox_worker FOLDER

FOLDER holds `order.json`; what becomes of it goes to `answer.json`, an object with one
of the keys "result", "mistake" (of the user), "memory" and "bug".
"""

import importlib
import json
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from mmfusion_jax import errors
from mmfusion_jax.safe_load.parent_death import exit_with_parent
from mmfusion_jax.safe_load.sandbox import JSON, REQUEST, RESPONSE

_STATM = Path("/proc/self/statm")  # Linux only


def main(folder: Path) -> None:
    """Does what the order says."""
    order = json.loads((folder / REQUEST).read_text())
    exit_with_parent(order["parent"])
    module, name = order["function"].split(":")
    work = getattr(importlib.import_module(module), name)
    _bind(order["memory"], order["cpu"])
    (folder / RESPONSE).write_text(json.dumps(_answer(work, order["arguments"])))


def _bind(memory: int, cpu: int) -> None:
    """Sets the limits; the libraries are loaded, and take address space, already."""
    used = 0
    if _STATM.exists():
        used = int(_STATM.read_text().split()[0]) * resource.getpagesize()
    # Python ignores this signal; libraries would then report who knows what.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    _lower(resource.RLIMIT_AS, used + memory)
    _lower(resource.RLIMIT_FSIZE, memory)
    spent = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, cpu + int(spent.ru_utime + spent.ru_stime) + 1)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(kind: int, most: int) -> None:
    """Sets a limit unless a lower one holds; a second of grace lets signals differ."""
    _, hard = resource.getrlimit(kind)
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    grace = int(kind == resource.RLIMIT_CPU and soft == most)
    top = soft + grace if hard == resource.RLIM_INFINITY else min(soft + grace, hard)
    resource.setrlimit(kind, (soft, top))


def _answer(
    work: Callable[..., JSON], arguments: Mapping[str, JSON]
) -> Mapping[str, JSON]:
    try:
        return {"result": work(**arguments)}
    except MemoryError:
        return {"memory": True}
    except errors.UserError as error:
        if error.code == "D65":
            return {"memory": True}
        return {"mistake": [_kind(error), error.code, error.args[0], error.fix]}
    except Exception:
        return {"bug": traceback.format_exc()}


def _kind(error: errors.UserError) -> str:
    """The class of an error as `errors.py` knows it."""
    bases = type(error).__mro__
    return next(c.__name__ for c in bases if c.__module__ == errors.__name__)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
