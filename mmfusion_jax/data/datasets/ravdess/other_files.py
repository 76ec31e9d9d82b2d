"""Names what a folder contains instead of, or beside, RAVDESS speech."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmfusion_jax.data.datasets.ravdess.filenames import (
    AUDIO_ONLY,
    AUDIO_VIDEO,
    SPEECH,
    FilenameCode,
    parse,
)
from mmfusion_jax.data.media.clip_files import MEDIA_SUFFIXES
from mmfusion_jax.errors import shorten, shown

_ARCHIVES = {".zip", ".tar", ".gz", ".rar", ".7z"}
_CREMA_D = re.compile(r"\d{4}_[A-Z]{3}_(ANG|DIS|FEA|HAP|NEU|SAD)_[A-Z]{1,2}")
_CODE_INSIDE = re.compile(r"\d\d(-\d\d){6}")
_COPY = re.compile(r"\d\d(-\d\d){6} ?(\(\d+\)|- Copy.*|copy.*)", re.IGNORECASE)

SONG = "song recordings of RAVDESS"
VIDEO_ONLY = "video-only recordings of RAVDESS"
ARCHIVES = "archives"
CREMA_D = "clips of CREMA-D"
PREPARED = "files of RAVDESS that other code has prepared"
CONVERTED = "recordings of RAVDESS in another format"
COPIES = "copies made by a browser or a file manager"
OTHERS = "media files with other names"

FIXES = {
    SONG: "download the speech files, Video_Speech_Actor_01.zip to _24.zip",
    VIDEO_ONLY: "download Video_Speech_Actor_01.zip to _24.zip, whose files 01-01-... "
    "have video and audio",
    ARCHIVES: "extract them in this folder",
    CREMA_D: "use --config=configs/cfn_sr.py:clips with a labels.csv; "
    "python -m mmfusion_jax data init FOLDER writes one to fill in",
    PREPARED: "use the original mp4 and wav files: this library crops and decodes them",
    CONVERTED: "use the original mp4 and wav files",
    COPIES: "rename them to the names of the originals",
    OTHERS: "use --config=configs/cfn_sr.py:clips for other clips; "
    "python -m mmfusion_jax data init FOLDER writes a labels.csv to fill in",
}
"""Kind of files -> what to do if there is nothing else."""


def kind_of(path: Path) -> str:
    """Returns the kind of a file that is not read; "" for other files.

    Example:
        >>> from pathlib import Path
        >>> from mmfusion_jax.data.datasets.ravdess.other_files import kind_of
        >>> kind_of(Path("01-02-01-01-01-01-01.mp4")), kind_of(Path("notes.txt"))
        ('song recordings of RAVDESS', '')
    """
    suffix = path.suffix.lower()
    if path.name.startswith("."):  # of the system, such as "._x.wav" of macOS
        return ""
    if code := parse(path):
        return _kind_of_code(code, suffix)
    if suffix in _ARCHIVES:
        return ARCHIVES
    if _CREMA_D.fullmatch(path.stem):
        return CREMA_D
    if _COPY.fullmatch(path.stem):
        return COPIES
    if _CODE_INSIDE.search(path.stem):
        return PREPARED
    return OTHERS if suffix in MEDIA_SUFFIXES else ""


def _kind_of_code(code: FilenameCode, suffix: str) -> str:
    """Returns the kind of a file with a name of RAVDESS; "" for one that is read."""
    if code.channel != SPEECH:
        return SONG
    if (code.modality, suffix) in ((AUDIO_VIDEO, ".mp4"), (AUDIO_ONLY, ".wav")):
        return ""
    if suffix not in MEDIA_SUFFIXES:
        # Such as landmarks, 01-01-01-01-01-01-01.csv.
        return "" if suffix in (".csv", ".txt") else PREPARED
    return VIDEO_ONLY if suffix == ".mp4" else CONVERTED


def describe_others(paths: Iterable[Path]) -> tuple[str, str]:
    """Returns what files are that are not read, and what to do; "" for none.

    Args:
        paths: All files of a folder.
    """
    kinds = {path: kind_of(path) for path in sorted(paths)}
    counts = Counter(kind for kind in kinds.values() if kind)
    if not counts:
        return "", ""
    parts = [
        f"{count} {shorten(kind)}, such as "
        f"{shown(next(p.name for p, k in kinds.items() if k == kind))}"
        for kind, count in counts.most_common()
    ]
    return "; ".join(parts), FIXES[counts.most_common(1)[0][0]]


def remarks(
    paths: Iterable[Path], speech: Iterable[tuple[Path, FilenameCode]]
) -> Iterator[str]:
    """Yields what is unusual about a folder with RAVDESS speech.

    Args:
        paths: All files of the folder.
        speech: Files that can be read, with their code.
    """
    speech = list(speech)
    names = Counter(path.name.lower() for path, _ in speech)
    if twice := sum(count > 1 for count in names.values()):
        yield f"{twice:d} files are in the folder more than once, and are used once"
    wrong = [
        path
        for path, code in speech
        if re.fullmatch(r"actor_\d\d", path.parent.name.lower())
        and int(path.parent.name[-2:]) != code.actor
    ]
    if wrong:
        yield (
            f"{len(wrong)} files are in the folder of another actor, such as "
            f"{shown(wrong[0].name)}; the actor is that of the name"
        )
    unexpected = [path for path in paths if kind_of(path) in (COPIES, CONVERTED)]
    if unexpected:
        what, _ = describe_others(unexpected)
        yield f"not used: {shorten(what)}"
