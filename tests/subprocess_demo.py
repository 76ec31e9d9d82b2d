"""Runs the demo and lists the hosts that it connects to: `subprocess_demo.py LOG ...`.

LOG gets a line for every address or name that a socket of this process asks for.
"""

import sys
from pathlib import Path

LOG = Path(sys.argv[1])


def write(host: object) -> None:
    with LOG.open("a") as log:
        log.write(f"{host}\n")


def record(event: str, values: tuple) -> None:
    if event == "socket.connect":
        address = values[1]
        host = address[0] if isinstance(address, tuple) else "a local socket"
        write(host)
    elif event == "socket.getaddrinfo":
        write(values[0])


sys.addaudithook(record)

from mmfusion_jax.__main__ import run  # noqa: E402

sys.exit(run(["demo", *sys.argv[2:]]))
