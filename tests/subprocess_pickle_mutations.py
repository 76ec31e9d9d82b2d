"""Reads corrupted pickles: python subprocess_pickle_mutations.py FOLDER SEED COUNT.

The last file stays in FOLDER. Anything other than a value or a RejectedPickleFile ends
the process: another exception, a signal, or the alarm after LIMIT seconds.
"""

import collections
import json
import pickletools
import random
import resource
import signal
import sys
from pathlib import Path

import numpy as np
from pickle_kinds import PYTHON2_LINES, originals

from mmfusion_jax.safe_load.safe_pickle import RejectedPickleFile, read_pickle

LIMIT = 3
EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
CODES = [op.code.encode("latin1") for op in pickletools.opcodes]


def pieces(content: bytes) -> list[bytes]:
    """Splits a pickle into opcodes, or into lines."""
    if content == PYTHON2_LINES:
        return content.splitlines(keepends=True)
    starts = [at for _, _, at in pickletools.genops(content)]
    return [content[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]


def delete(rng: random.Random, program: list[bytes], at: int) -> None:
    del program[at]


def swap(rng: random.Random, program: list[bytes], at: int) -> None:
    other = rng.randrange(len(program))
    program[at], program[other] = program[other], program[at]


def rename(rng: random.Random, program: list[bytes], at: int) -> None:
    program[at] = rng.choice(CODES) + program[at][1:]


def exaggerate(rng: random.Random, program: list[bytes], at: int) -> None:
    size = rng.choice([1, 2, 4, 8])
    edge = rng.choice(EDGES) % (1 << 8 * size)
    program[at] = program[at][:1] + edge.to_bytes(size, "little")


def flip(rng: random.Random, program: list[bytes], at: int) -> None:
    piece = bytearray(program[at])
    if piece:
        piece[rng.randrange(len(piece))] ^= 1 << rng.randrange(8)
    program[at] = bytes(piece)


def cut(rng: random.Random, program: list[bytes], at: int) -> None:
    program[at] = program[at][: rng.randrange(len(program[at]) + 1)]


def splice(rng: random.Random, program: list[bytes], at: int) -> None:
    other = rng.choice(PROGRAMS)
    start = rng.randrange(len(other))
    program[at:at] = other[start : start + rng.choice([1, 1, 5, 30])]


PROGRAMS = [pieces(content) for content in originals()]
CHANGES = (delete, swap, rename, exaggerate, flip, cut, splice)


def mutate(rng: random.Random) -> bytes:
    """Returns one of the programs with one to four mutations."""
    program = list(rng.choice(PROGRAMS))
    for _ in range(rng.randint(1, 4)):
        rng.choice(CHANGES)(rng, program, rng.randrange(len(program)))
    return b"".join(program)


def touch(value) -> None:
    """Uses every array, because an invalid one crashes only then."""
    if isinstance(value, np.ndarray):
        value.tobytes() if value.dtype == object else value.copy().tolist()
    elif isinstance(value, dict):
        for part in (*value, *value.values()):
            touch(part)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            touch(part)


def main(folder: Path, seed: int, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    rng = random.Random(seed)
    file = folder / f"{seed}.pkl"
    ends = collections.Counter()
    for _ in range(count):
        file.write_bytes(mutate(rng))
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        try:
            touch(read_pickle(file))
            ends["read"] += 1
        except RejectedPickleFile as rejection:
            ends[rejection.code] += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
    print(json.dumps(ends))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
