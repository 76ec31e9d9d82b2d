"""Tiny media files for tests: known pictures at known times, known sound."""

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 16000


def tone(seconds=1.0, hertz=440.0, rate=RATE):
    """A sine of amplitude .5, (n) float32."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def write_wav(path: Path, sound=None, rate=RATE) -> Path:
    """16 bit; `sound` is (n) or (n channels) in [-1, 1]."""
    sound = np.atleast_2d(tone() if sound is None else sound)
    sound = sound.T if sound.shape[0] < sound.shape[1] else sound
    with wave.open(str(path), "wb") as file:
        file.setnchannels(sound.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((sound * 32767).round().astype("<i2").tobytes())
    return path


def grey_steps(count=25, height=48, width=64):
    """Frame k is grey of value 10 * k, for 25 frames, and then again."""
    return [np.full((height, width, 3), k % 25 * 10, np.uint8) for k in range(count)]


def write_video(
    path: Path, frames=None, sound=None, *, fps=25, codec="mpeg4", rotation=0
) -> Path:
    """Frames (h w 3) at `fps`; `sound` as 16 kHz mono AAC, None for a silent film."""
    frames = grey_steps() if frames is None else frames
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=fps)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt, video.bit_rate = "yuv420p", 4_000_000
        if rotation:
            video.set_display_rotation(rotation)
        if sound is not None:
            audio = container.add_stream("aac", rate=RATE, layout="mono")
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode())
        if sound is not None:
            for at in range(0, len(sound), 1024):
                block = np.float32(sound[None, at : at + 1024])
                piece = av.AudioFrame.from_ndarray(block, "fltp", "mono")
                piece.sample_rate, piece.pts = RATE, at
                piece.time_base = Fraction(1, RATE)
                container.mux(audio.encode(piece))
            container.mux(audio.encode())
    return path
