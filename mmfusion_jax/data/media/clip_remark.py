"""Findings about a clip that is used."""

import dataclasses

REMARK_KINDS: dict[str, str] = {
    "silent": "silent audio",
    "black": "black frames",
    "audio_masked": "audio that cannot be used, which is masked",
    "audio_from_video": "audio of the video file instead of the audio file",
    "frames_masked": "frames outside of the video stream, which are masked",
    "audio_gap": "gaps in the audio, which are silence",
    "channels": "audio of more than two channels, or with empty ones",
}
"""Kind of a remark -> what such clips have, for a summary such as "3 clips: ..."."""


@dataclasses.dataclass(frozen=True)
class ClipRemark:
    """A finding about a clip that is used, such as silent audio.

    Attributes:
        kind: Key of `REMARK_KINDS`.
        text: The finding, in one line, without the name of the clip.
    """

    kind: str
    text: str
