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


def write_flash_and_beep(
    path: Path,
    *,
    seconds=2.0,
    flash=1.0,
    fps=10,
    times=None,
    video_start=0.0,
    audio_seconds=None,
    audio_start=0.0,
    hole=(0.0, 0.0),
    video="mpeg4",
    audio="pcm_s16le",
    size=(32, 32),
    format=None,
    options=None,
    video_options=None,
) -> Path:
    """A red video with sound; at `flash` for 0.2 s it is green and a beep is played.

    Args:
        path: File; its name decides the container, unless `format` does.
        seconds: End of the video.
        flash: Time of the flash and the beep.
        fps: Frames per second.
        times: Times of the frames in seconds, for a variable frame rate.
        video_start: Time of the first frame.
        audio_seconds: End of the audio; None is that of the video.
        audio_start: Time of the first sample.
        hole: Start and end of the audio that is left out.
        video: Codec of the video; "" for none.
        audio: Codec of the audio; "" for none.
        size: Height and width of the frames.
        format: Container.
        options: Options of the container.
        video_options: Options of the codec.
    """
    with av.open(str(path), "w", format=format, options=options or {}) as container:
        streams = []
        if video:
            unit = 1000 if times else fps
            stream = container.add_stream(video, rate=unit, options=video_options or {})
            stream.height, stream.width = size
            stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(video, "yuv420p")
            streams.append(_frames_at(stream, times, unit, video_start, seconds, flash))
        if audio:
            stream = container.add_stream(audio, rate=RATE, layout="mono")
            end = seconds if audio_seconds is None else audio_seconds
            streams.append(_blocks_at(stream, audio_start, end, flash, hole))
        packets = [packet for made in streams for packet in made]
        # In the order of their times, as a recorder writes them.
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            container.mux(packet)
    return path


def _frames_at(stream, times, unit, start, end, flash):
    """Yields packets of frames, which are green during the flash."""
    ticks = [round(t * unit) for t in times or np.arange(start, end - 1e-9, 1 / unit)]
    for tick in ticks:
        green = flash - 1e-6 <= tick / unit < flash + 0.2 - 1e-6
        pixels = np.zeros((stream.height, stream.width, 3), np.uint8)
        pixels[..., 1 if green else 0] = 200
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(
            format=stream.pix_fmt
        )
        frame.pts, frame.time_base = tick, Fraction(1, unit)
        yield from stream.encode(frame)
    yield from stream.encode()


def _blocks_at(stream, start, end, flash, hole):
    """Yields packets of audio: a faint hum, and a beep of 1 kHz during the flash."""
    at = np.arange(round(start * RATE), round(end * RATE))
    sound = 0.05 * np.sin(2 * np.pi * 200 * at / RATE)
    beep = (at >= flash * RATE) & (at < (flash + 0.2) * RATE)
    sound[beep] = 0.5 * np.sin(2 * np.pi * 1000 * at[beep] / RATE)
    codec = stream.codec_context
    if stream.name.startswith("wma"):
        codec.bit_rate = 32000
    codec.open()
    step = codec.frame_size or 800
    kind = codec.format.name
    for first in range(0, len(sound), step):
        tick = int(at[first])
        if hole[0] <= tick / RATE < hole[1]:
            continue
        block = sound[None, first : first + step]
        if kind.startswith("s16"):
            block = (block * 32767).astype(np.int16)
        elif kind.startswith("s32"):
            block = (block * (2**31 - 1)).astype(np.int32)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(block, block.dtype if kind[0] == "s" else np.float32),
            kind,
            "mono",
        )
        frame.sample_rate, frame.pts, frame.time_base = RATE, tick, Fraction(1, RATE)
        yield from stream.encode(frame)
    yield from stream.encode()


def flash_time(frames, seconds):
    """Start of the first green frame, if they are spread over `seconds`."""
    green = (frames[..., 1] > 120) & (frames[..., 0] < 100)
    shown = np.flatnonzero(green.mean(axis=(1, 2)) > 0.5)
    return shown[0] * seconds / len(frames) if len(shown) else None


def beep_time(waveform, rate=RATE):
    """Start of the first 10 ms in which 1 kHz is louder than half of the beep."""
    step = rate // 100
    parts = waveform[: len(waveform) // step * step].reshape(-1, step)
    wave = np.exp(-2j * np.pi * 1000 * np.arange(step) / rate)
    loud = np.flatnonzero(np.abs(parts @ wave) * 2 / step > 0.25)
    return loud[0] / 100 if len(loud) else None
