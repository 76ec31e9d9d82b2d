"""Recordings of a browser, which Gradio stores without their end."""

from pathlib import Path

RECORDED = "sample.webm"
"""File name that Gradio gives to a recorded video."""


def complete_recording(path: Path) -> Path:
    """Returns a recorded video without its incomplete last element.

    Gradio stores a recording before the browser has given its last part, so that the
    last element is cut. Other files are returned as they are: a file that is cut is an
    error there.

    Args:
        path: An uploaded or recorded file.
    """
    if path.name != RECORDED:
        return path
    import av
    from av.error import FFmpegError

    copy = path.with_name("recording.mkv")
    try:
        with av.open(str(path)) as source, av.open(str(copy), "w") as target:
            streams = {
                one.index: target.add_stream_from_template(one)
                for one in (*source.streams.video, *source.streams.audio)
            }
            for packet in source.demux():
                if packet.dts is not None and packet.stream.index in streams:
                    packet.stream = streams[packet.stream.index]
                    target.mux(packet)
    except FFmpegError:  # the reader of clips has the better message
        return path
    return copy
