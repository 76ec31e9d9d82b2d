"""Runs eSpeak NG: requests on stdin, audio on stdout.

eSpeak NG is GPL-3 software, so it runs in a separate process and nothing else in this
package loads it: `text_to_speech.py` starts this file as a script. It uses the standard
library and espeakng_loader only.

    stdin   a JSON list of [text, voice, rate, pitch]
    stdout  a uint32 with the sample rate; then, for each request in order, a uint32
            with the number of bytes and that many bytes of int16 audio (little-endian)
    exit    0; 1 with one line on stderr; 3 if espeakng_loader is not installed

eSpeak NG keeps state from one utterance to the next, some of it even after a new
initialization. Each utterance is therefore spoken in a fork of the fresh process: the
same request gives the same bytes regardless of the previous ones.
"""

import ctypes
import json
import os
import signal
import struct
import sys
from pathlib import Path

# AUDIO_OUTPUT_SYNCHRONOUS, espeakINITIALIZE_DONT_EXIT (without it the library ends the
# process if its data are missing) and espeakCHARS_UTF8, of speak_lib.h.
SYNCHRONOUS, KEEP_RUNNING, UTF8 = 2, 0x8000, 1
RATE, PITCH = 1, 3  # espeak_PARAMETER
SECONDS_PER_UTTERANCE = 10

SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def start() -> tuple[ctypes.CDLL, int]:
    """Initializes the library; returns it and its sample rate."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    # eSpeak NG cuts paths at 160 characters, so it gets a short one.
    os.chdir(Path(espeakng_loader.get_data_path()).parent)
    sample_rate = library.espeak_Initialize(SYNCHRONOUS, 0, b".", KEEP_RUNNING)
    if sample_rate <= 0:
        raise RuntimeError(f"espeak_Initialize returned {sample_rate}")
    return library, sample_rate


def synthesize(
    library: ctypes.CDLL, text: str, voice: str, rate: int, pitch: int
) -> bytes:
    """Synthesizes one utterance as int16 audio."""
    audio = bytearray()

    @SynthCallback
    def collect(samples, count, _events):
        if samples and count > 0:
            audio.extend(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_ng_SetRandSeed(
        ctypes.c_long(1)
    )  # else breath noise depends on the clock
    library.espeak_SetSynthCallback(collect)
    if library.espeak_SetVoiceByName(voice.encode()):
        raise ValueError(f"voice={voice!r} is unknown to eSpeak NG")
    for parameter, value in ((RATE, rate), (PITCH, pitch)):
        if library.espeak_SetParameter(parameter, value, 0):
            raise ValueError(f"rate={rate} or pitch={pitch} was rejected")
    words = text.encode() + b"\0"
    if library.espeak_Synth(words, len(words), 0, 1, 0, UTF8, None, None):
        raise ValueError(f"text={text!r} was rejected")
    library.espeak_Synchronize()
    return bytes(audio)


def in_fork(library: ctypes.CDLL, request: list) -> bytes:
    """Runs `synthesize` in a child process, which the system kills on timeout."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        # Without a handler the signal ends the child, also inside of the library.
        signal.alarm(SECONDS_PER_UTTERANCE)
        status = 1
        try:
            audio = synthesize(library, *request)
            with os.fdopen(sender, "wb") as pipe:
                pipe.write(audio)
            status = 0
        except Exception as error:
            print(error, file=sys.stderr, flush=True)
        finally:
            # Not sys.exit: it would continue in the code of the parent, and write what
            # the parent's stdout has buffered a second time.
            os._exit(status)
    # The end of the pipe is reached when no process has it open for writing. It is read
    # before the wait: a child that fills the pipe does not end until it is read.
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        audio = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        code = os.waitstatus_to_exitcode(status)
        reason = f"signal {-code}" if code < 0 else f"exit status {code}"
        raise RuntimeError(f"eSpeak NG ended with {reason} on {request}")
    return audio


def main() -> int:
    """Answers the requests on stdin."""
    try:
        library, sample_rate = start()
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)
        return 3
    sys.stdout.buffer.write(struct.pack("<I", sample_rate))
    for request in json.load(sys.stdin):
        audio = in_fork(library, request)
        sys.stdout.buffer.write(struct.pack("<I", len(audio)) + audio)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
