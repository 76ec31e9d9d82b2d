"""RAVDESS speech as downloaded: eight emotions, 24 actors, folds by actor."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.augment.crop_and_flip import CropAndFlip
from mmfusion_jax.data.dataset import Dataset, dataset_loader
from mmfusion_jax.data.datasets.prepared_clips import assemble
from mmfusion_jax.data.datasets.ravdess.filenames import (
    ACTORS,
    EMOTIONS,
    FALLBACK_HINT,
    FULL,
    LABEL,
    PER_FOLD,
    SOUND_ONLY,
    SPEECH,
    actor_groups,
    parse,
)
from mmfusion_jax.data.media.clip_spec import ClipSpec, DecodeJob
from mmfusion_jax.data.media.decode import HOP
from mmfusion_jax.data.media.decode_clips import decode_all
from mmfusion_jax.data.media.face_crop import CROPS, FaceCrop
from mmfusion_jax.data.media.resize import FrameTransform, SquareResize
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.splits import cross_validation_split
from mmfusion_jax.errors import ConfigError, DataError, suggest

TITLE = "RAVDESS speech"
COUNT, CLIPS = 1440, 60
"""Clips in all, and of each actor."""

RATE, SECONDS = 44100, 2.45
"""Of the sound that is taken: samples a second, and how long it is."""

EXPECTED_LAYOUT = """\
  ravdess/Actor_01/01-01-01-01-01-01-01.mp4   from Video_Speech_Actor_01.zip
  ravdess/Actor_01/03-01-01-01-01-01-01.wav   from Audio_Speech_Actors_01-24.zip
  ... up to Actor_24; download: https://zenodo.org/records/1188976"""


@dataclasses.dataclass(frozen=True)
class Recording:
    """One recording.

    Attributes:
        name: its code without the modality.
        emotion: 0..7.
        actor: 1..24.
        video: the file with pictures and sound; None if there is none.
        audio: the file with the sound: the wav, else the mp4.
    """

    name: str
    emotion: int
    actor: int
    video: Path | None
    audio: Path | None


def outline(
    *,
    fold: int = 0,
    folds: int = 5,
    protocol: str = "validation",
    size: int = 224,
    frames: int = 30,
    crop: str = "full",
    **_: Any,
) -> Dataset:
    """What `load_ravdess` returns, with zeros for examples; reads nothing."""
    _check_crop(crop)
    actors = cross_validation_split(ACTORS, fold, folds, protocol, PER_FOLD)
    steps = 1 + round(RATE * SECONDS) // HOP
    return outline_dataset(
        "ravdess",
        TITLE,
        {split: CLIPS * len(chosen) for split, chosen in actors.items()},
        {
            "audio": ((steps, 13), "float32"),
            "video": ((frames, size, size, 3), "uint8"),
        },
        classes={LABEL: EMOTIONS},
    )


@dataset_loader(takes=("fold", "folds", "protocol"), outline=outline)
def load_ravdess(
    data_dir: str,
    *,
    fold: int = 0,
    folds: int = 5,
    protocol: str = "validation",
    size: int = 224,
    frames: int = 30,
    frame_sampling: str = "even",
    landmarks_dir: str = "",
    crop: str = "full",
    pad_mode: str = "reflect",
    standardize: bool = False,
    augment: bool = True,
    augment_per_frame: bool = False,
    strict: bool = False,
    workers: int | None = None,
    timeout: float = 120.0,
) -> Dataset:
    """The data of CFN-SR: 30 frames of the face and 2.45 s of sound as 13 MFCC.

    Decoded once for all folds. An example holds "video", (frames size size 3) uint8,
    "audio", (212 13) float32, and the label "emotion".

    Args:
        data_dir: folder with the folders of the actors, at any depth.
        fold: fold f tests actors 4f+1 .. 4f+4.
        folds: 5 as in the paper, which never tests actors 21-24; or 6.
        protocol: "honest" chooses the step on the actors that the next fold tests,
            taken out of training; "fixed" and "paper" train on all others.
        size: side of a frame in pixels.
        frames: per clip.
        frame_sampling: of the frames: "even" in time, or "consecutive", from the
            middle.
        landmarks_dir: folder of the csv files of OpenFace, for the crop of the face; ""
            takes the middle square of the frame instead.
        crop: "full" cuts the face from the frame as it is, "official" squeezes the
            frame first, as the released code does.
        pad_mode: of the edges of the sound; "reflect" as librosa did when the paper
            was written, "constant" as it does today.
        standardize: bring the MFCC to mean 0 and deviation 1; the paper does not.
        augment: random resized crop and flip of the training videos.
        augment_per_frame: draw anew for every frame, as the released code does.
        strict: stop at a file that cannot be decoded instead of leaving it out.
        workers: processes that decode; None takes one for each core.
        timeout: seconds that one file may take.

    Raises:
        ConfigError: fold, protocol or crop is unknown.
        DataError: the folder is not as downloaded, or landmarks are missing.

    Reference:
        CFN-SR, Sec. 3.1-3.2; Livingstone & Russo 2018.
    Deviation:
        Sec. 3.1 takes "30 consecutive images" and does not say which; the released
        code spaces them evenly over the clip, which is the default.
    """
    _check_crop(crop)
    actors = cross_validation_split(ACTORS, fold, folds, protocol, PER_FOLD)
    takes = find_recordings(data_dir)
    looks = _looks(
        takes, landmarks_dir, FaceCrop(Path(), frames, size, crop, frame_sampling)
    )
    recipe = ClipSpec(
        frames=frames,
        frame_sampling=frame_sampling,
        size=size,
        sample_rate=RATE,
        offset=0.5,
        duration=SECONDS,
        pad_mode=pad_mode,
    )
    prepared = decode_all(
        "ravdess",
        [_job(take, looks[take.name]) for take in takes],
        recipe,
        strict=strict,
        workers=workers,
        timeout=timeout,
    )
    takes = [take for take in takes if take.name in prepared.index]
    parts = {
        split: [take for take in takes if take.actor in chosen]
        for split, chosen in actors.items()
    }
    _check_parts(data_dir, parts, actors)
    seen = Counter(take.actor for take in takes)
    face = f"face by landmarks, crop={crop!r}" if landmarks_dir else "middle square"
    return assemble(
        "ravdess",
        TITLE,
        prepared,
        {split: [take.name for take in part] for split, part in parts.items()},
        {
            split: {LABEL: np.array([take.emotion for take in part])}
            for split, part in parts.items()
        },
        classes={LABEL: EMOTIONS},
        standardize=standardize,
        augment=CropAndFlip(per_frame=augment_per_frame) if augment else None,
        groups={split: actor_groups(chosen) for split, chosen in actors.items()},
        facts={
            "licence": "CC BY-NC-SA 4.0",
            "crop": face,
            "actors": {split: list(chosen) for split, chosen in actors.items()},
            "clips_by_actor": {str(actor): seen[actor] for actor in ACTORS},
        },
        warnings=_warnings(len(takes), seen, bool(landmarks_dir)),
    )


def _check_crop(crop: str) -> None:
    """Raises ConfigError for an unknown crop."""
    if crop not in CROPS:
        raise ConfigError("C03", f"crop={crop!r} is unknown; {suggest(crop, CROPS)}")


def find_recordings(dir: str) -> list[Recording]:
    """The recordings of speech below a folder, in the order of their names.

    Files that hold pictures alone (first field 02) are left out: the full files have
    the same pictures.

    Raises:
        DataError: there is no such folder, or no such file in it.
    """
    folder = Path(dir).expanduser()
    if not dir or not folder.is_dir():
        what = f"{dir!r} is not a folder." if dir else "RAVDESS was not found."
        raise DataError(
            "D40",
            f"config.data.dir: {what} It looks like\n{EXPECTED_LAYOUT}",
            FALLBACK_HINT,
        )
    full, sound = {}, {}
    for path in sorted(folder.rglob("*")):
        code = parse(path)
        if code is None or code.channel != SPEECH:
            continue
        if code.modality == FULL and path.suffix.lower() == ".mp4":
            full.setdefault(code.take, (path, code))
        if code.modality == SOUND_ONLY and path.suffix.lower() == ".wav":
            sound.setdefault(code.take, (path, code))
    takes = []
    for name in sorted({**full, **sound}, key=lambda name: (name[-2:], name)):
        _, code = full.get(name) or sound[name]
        video = full[name][0] if name in full else None
        audio = sound[name][0] if name in sound else video
        takes.append(Recording(name, code.emotion, code.actor, video, audio))
    if not takes:
        raise DataError(
            "D40",
            f"config.data.dir={dir!r} holds no recording of RAVDESS. It looks like\n"
            f"{EXPECTED_LAYOUT}",
            FALLBACK_HINT,
        )
    return takes


def _looks(
    takes: Sequence[Recording], landmarks: str, face: FaceCrop
) -> dict[str, FrameTransform]:
    """Name of a take -> how its frames are cropped.

    Args:
        takes: all of them.
        landmarks: the folder; "" for none.
        face: how to crop, but for the file.
    """
    if not landmarks:
        return {take.name: SquareResize(face.size) for take in takes}
    folder = Path(landmarks).expanduser()
    files = {}
    for path in sorted(folder.rglob("*.csv")):
        if code := parse(path):
            files.setdefault(code.take, path)
    seen = [take.name for take in takes if take.video]
    if missing := [name for name in seen if name not in files]:
        raise DataError(
            "D51",
            f"{len(missing)} of {len(seen)} clips have no file of landmarks in "
            f"{folder}, such as 01-{missing[0]}.csv.",
            "download FacialTracking_Actors_01-24.zip from the same page, or leave "
            "landmarks empty to take the middle of the frame",
        )
    return {
        take.name: dataclasses.replace(face, path=files[take.name])
        if take.video
        else SquareResize(face.size)
        for take in takes
    }


def _job(take: Recording, look: FrameTransform) -> DecodeJob:
    extra = (look.path,) if isinstance(look, FaceCrop) else ()
    return DecodeJob(take.name, take.video, take.audio, look, extra=extra)


def _check_parts(
    dir: str,
    parts: Mapping[str, Sequence[Recording]],
    actors: Mapping[str, Sequence[int]],
) -> None:
    for split, part in parts.items():
        if not part:
            names = ", ".join(map(str, actors[split]))
            raise DataError(
                "D45",
                f"split {split!r} wants actors {names}, but {dir} has no clip of them.",
                "add their folders, or choose another fold",
            )


def _warnings(count: int, seen: Mapping[int, int], landmarks: bool) -> list[str]:
    """Where this is not the data of the paper."""
    warnings = []
    if count != COUNT:
        absent = [str(actor) for actor in ACTORS if not seen.get(actor)]
        tail = f"; no clip of actors {', '.join(absent)}" if absent else ""
        warnings.append(
            f"{count} of the {COUNT} clips of RAVDESS speech are here{tail}"
        )
    if not landmarks:
        warnings.append(
            "no landmarks: the middle square of each frame is used where the paper "
            "cuts out the face"
        )
    return warnings
