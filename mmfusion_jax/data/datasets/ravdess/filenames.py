"""What the names of RAVDESS files say."""

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
FULL, SOUND_ONLY = "01", "03"
SPEECH = "01"
PER_FOLD = 4
"""Actors that a fold tests."""

_CODE = re.compile(r"\d\d(-\d\d){6}")


@dataclasses.dataclass(frozen=True)
class FilenameCode:
    """A name such as 01-01-06-01-02-01-12, field by field.

    Attributes:
        modality: "01" full, "02" pictures only, "03" sound only.
        channel: "01" speech, "02" song.
        emotion: 0..7, a place in `EMOTIONS`.
        actor: 1..24.
        take: everything but the modality; files with the same take belong together.
    """

    modality: str
    channel: str
    emotion: int
    actor: int
    take: str


def parse(path: Path) -> FilenameCode | None:
    """The code in the name of a file; None if it is not a name of this data set."""
    if not _CODE.fullmatch(path.stem):
        return None
    modality, channel, emotion, *_, actor = path.stem.split("-")
    if not 1 <= int(emotion) <= len(EMOTIONS) or int(actor) not in ACTORS:
        return None
    take = path.stem.partition("-")[2]
    return FilenameCode(modality, channel, int(emotion) - 1, int(actor), take)


def actor_groups(actors: tuple[int, ...]) -> list[str]:
    """How the leak check names actors."""
    return [f"actor {actor:02d}" for actor in actors]
