"""Tiny media files for tests: known frames at known times, known audio."""

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 16000


def tone(seconds=1.0, hertz=440.0, rate=RATE):
    """A sine of amplitude .5, (n) float32."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def write_wav(path: Path, audio=None, rate=RATE) -> Path:
    """16 bit; `audio` is (n) or (n channels) in [-1, 1]."""
    audio = np.atleast_2d(tone() if audio is None else audio)
    audio = audio.T if audio.shape[0] < audio.shape[1] else audio
    with wave.open(str(path), "wb") as file:
        file.setnchannels(audio.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((audio * 32767).round().astype("<i2").tobytes())
    return path


def gray_steps(count=25, height=48, width=64):
    """Frame k is gray of value 10 * k, for 25 frames, and then again."""
    return [np.full((height, width, 3), k % 25 * 10, np.uint8) for k in range(count)]


def write_video(
    path: Path, frames=None, audio=None, *, fps=25, codec="mpeg4", rotation=0
) -> Path:
    """Frames (h w 3) at `fps`; `audio` as 16 kHz mono AAC, None for no audio."""
    frames = gray_steps() if frames is None else frames
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=fps)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt, video.bit_rate = "yuv420p", 4_000_000
        if rotation:
            video.set_display_rotation(rotation)
        if audio is not None:
            aac = container.add_stream("aac", rate=RATE, layout="mono")
        for frame in frames:
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(video.encode(image))
        container.mux(video.encode())
        if audio is not None:
            for at in range(0, len(audio), 1024):
                block = np.float32(audio[None, at : at + 1024])
                piece = av.AudioFrame.from_ndarray(block, "fltp", "mono")
                piece.sample_rate, piece.pts = RATE, at
                piece.time_base = Fraction(1, RATE)
                container.mux(aac.encode(piece))
            container.mux(aac.encode())
    return path
