"""Parses the names of RAVDESS files."""

import dataclasses
import re
from pathlib import Path

EMOTIONS = (
    "neutral",
    "calm",
    "happy",
    "sad",
    "angry",
    "fearful",
    "disgust",
    "surprised",
)
LABEL = "emotion"
FALLBACK_HINT = (
    "python -m mmfusion_jax.main --config=configs/cfn_sr.py runs on embedded data, "
    "without RAVDESS"
)
ACTORS = tuple(range(1, 25))
AUDIO_VIDEO, AUDIO_ONLY = "01", "03"
"""First field of files with audio and video, and of files with audio only."""

SPEECH = "01"
"""Second field of speech."""

PER_FOLD = 4
"""Number of test actors of a fold (CFN-SR)."""

_CODE = re.compile(r"\d\d(-\d\d){6}")  # seven fields of two digits


@dataclasses.dataclass(frozen=True)
class FilenameCode:
    """Fields of a file name such as 01-01-06-01-02-01-12.

    Attributes:
        modality: "01" audio and video, "02" video only, "03" audio only.
        channel: "01" speech, "02" song.
        emotion: Index in `EMOTIONS`, 0..7.
        actor: Number of the actor, 1..24.
        recording: All fields but the modality; files of a recording have the same.
    """

    modality: str
    channel: str
    emotion: int
    actor: int
    recording: str


def parse(path: Path) -> FilenameCode | None:
    """Returns the code in the name of a file; None for other names."""
    if not _CODE.fullmatch(path.stem):
        return None
    modality, channel, emotion, *_, actor = path.stem.split("-")
    if not 1 <= int(emotion) <= len(EMOTIONS) or int(actor) not in ACTORS:
        return None
    recording = path.stem.partition("-")[2]
    return FilenameCode(modality, channel, int(emotion) - 1, int(actor), recording)


def actor_groups(actors: tuple[int, ...]) -> list[str]:
    """Returns the names of actors for the leakage check."""
    return [f"actor {actor:02d}" for actor in actors]
