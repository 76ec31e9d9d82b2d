"""RAVDESS speech videos: eight emotions, 24 actors, folds by actor."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmfusion_jax.data.augment.crop_and_flip import CropAndFlip
from mmfusion_jax.data.dataset import Dataset, dataset_loader
from mmfusion_jax.data.datasets.prepared_clips import assemble
from mmfusion_jax.data.datasets.ravdess.filenames import (
    ACTORS,
    AUDIO_ONLY,
    AUDIO_VIDEO,
    EMOTIONS,
    FALLBACK_HINT,
    LABEL,
    PER_FOLD,
    SPEECH,
    actor_groups,
    parse,
)
from mmfusion_jax.data.datasets.ravdess.other_files import describe_others
from mmfusion_jax.data.datasets.ravdess.other_files import remarks as folder_remarks
from mmfusion_jax.data.media.clip_spec import ClipSpec, DecodeJob
from mmfusion_jax.data.media.decode import HOP
from mmfusion_jax.data.media.decode_clips import check_left_out, decode_all
from mmfusion_jax.data.media.face_crop import CROPS, FaceCrop
from mmfusion_jax.data.media.resize import FrameTransform, SquareResize
from mmfusion_jax.data.option_checks import check_choice, data_folder, missing_files
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.splits import cross_validation_split
from mmfusion_jax.errors import DataError, join_names, shown, shown_name, shown_path
from mmfusion_jax.option_types import Fraction, NonNegativeInt, PositiveFloat, Size
from mmfusion_jax.paths import local_path

TITLE = "RAVDESS speech"
COUNT, CLIPS = 1440, 60
"""Total number of clips, and clips per actor."""

RATE, SECONDS = 44100, 2.45
"""Sample rate of the audio in Hz, and its duration in seconds (CFN-SR)."""

FEW_ACTORS = (
    "for few actors use --config=configs/cfn_sr.py:clips, with the labels.csv that "
    "python -m mmfusion_jax data init FOLDER writes"
)
EXPECTED_LAYOUT = """\
  ravdess/Actor_01/01-01-01-01-01-01-01.mp4   from Video_Speech_Actor_01.zip
  ravdess/Actor_01/03-01-01-01-01-01-01.wav   from Audio_Speech_Actors_01-24.zip
  ... up to Actor_24; download: https://zenodo.org/records/1188976"""


@dataclasses.dataclass(frozen=True)
class Recording:
    """One recording.

    Attributes:
        name: Its code without the modality.
        emotion: Index of the emotion, 0..7.
        actor: Number of the actor, 1..24.
        video: File with video and audio; None if there is none.
        audio: File with the audio: the wav, else the mp4.
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
    size: Size = 224,
    frames: Size = 30,
    crop: Literal["full", "released_code"] = "full",
    **_: Any,
) -> Dataset:
    """Returns the outline of `load_ravdess`; reads nothing."""
    check_choice("crop", crop, CROPS)
    actors = cross_validation_split(ACTORS, fold, folds, protocol, PER_FOLD)
    steps = 1 + round(RATE * SECONDS) // HOP  # frames are centered at 0, HOP, ..
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
    size: Size = 224,
    frames: Size = 30,
    frame_sampling: Literal["uniform", "consecutive"] = "uniform",
    landmarks_dir: str = "",
    crop: Literal["full", "released_code"] = "full",
    pad_mode: Literal["reflect", "constant"] = "reflect",
    standardize: bool = False,
    augment: bool = True,
    augment_per_frame: bool = False,
    max_left_out: Fraction = 0.0,
    workers: NonNegativeInt | None = None,
    timeout: PositiveFloat = 120.0,
) -> Dataset:
    """Loads the data of CFN-SR: 30 frames of the face and 13 MFCC of 2.45 s of audio.

    Decoded once for all folds. An example has "video", (frames size size 3) uint8,
    "audio", (212 13) float32, and the label "emotion".

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     mmf.datasets.ravdess("no_such_folder")
        ... except mmf.UserError as error:
        ...     print(error.code)
        D40

    Args:
        data_dir: Folder with the folders of the actors, at any depth.
        fold: Index of the fold; fold f tests actors 4f+1 .. 4f+4.
        folds: Number of folds: 5 as in the paper, which never tests actors 21-24; or 6.
        protocol: "validation" selects the checkpoint on the test actors of the next
            fold, which are held out from training; "fixed_epochs" and "as_published"
            train on all others.
        size: Side length of a frame in pixels.
        frames: Number of frames per clip.
        frame_sampling: "uniform" over the clip, or "consecutive" frames from its
            middle.
        landmarks_dir: Folder of the CSV files of OpenFace, to crop the face; "" uses
            the central square of the frame instead.
        crop: "full" crops the face from the original frame, "released_code" resizes the
            frame first, as the released code does.
        pad_mode: Padding of the ends of the audio; "reflect" as librosa did when the
            paper was written, "constant" as it does today.
        standardize: Standardize the MFCC; the paper does not.
        augment: Random resized crop and flip of the training videos.
        augment_per_frame: Augment every frame independently, as the released code does.
        max_left_out: Fraction of the clips that may be damaged; these are left out and
            listed. More of them are an error.
        workers: Number of decoding processes; None uses one per core.
        timeout: Time limit of one file in seconds.

    Raises:
        ConfigError: Fold, protocol or crop is unknown.
        DataError: Files or landmarks are missing.

    Reference:
        CFN-SR, Sec. 3.1-3.2; Livingstone & Russo 2018.
    Deviation:
        Sec. 3.2 uses "30 consecutive images" and does not say which; the released code
        samples them uniformly over the clip, which is the default.
    """
    check_choice("crop", crop, CROPS)
    actors = cross_validation_split(ACTORS, fold, folds, protocol, PER_FOLD)
    recordings, remarks = find_with_remarks(data_dir)
    # A template without the path of landmarks, which differs between recordings.
    face_crop = FaceCrop(Path(), frames, size, crop, frame_sampling)
    transforms = _transforms(recordings, landmarks_dir, face_crop)
    spec = ClipSpec(
        frames=frames,
        frame_sampling=frame_sampling,
        size=size,
        sample_rate=RATE,
        offset=0.5,  # "usually do not contain sound", Sec. 3.2
        duration=SECONDS,
        pad_mode=pad_mode,
    )
    # All recordings, also those of actors that this fold does not use: the store is the
    # same for every fold.
    decoded = decode_all(
        "ravdess",
        [_job(one, transforms[one.name]) for one in recordings],
        spec,
        source=local_path("data_dir", data_dir),
        workers=workers,
        timeout=timeout,
    )
    check_left_out(decoded.skipped, len(recordings), max_left_out)
    recordings = [one for one in recordings if one.name in decoded.index]
    splits = {
        split: [one for one in recordings if one.actor in chosen]
        for split, chosen in actors.items()
    }
    _check_splits(data_dir, splits, actors)
    counts = Counter(one.actor for one in recordings)
    face = (
        f"face by landmarks, crop={shown(crop)}" if landmarks_dir else "central square"
    )
    return assemble(
        "ravdess",
        TITLE,
        decoded,
        {split: [one.name for one in part] for split, part in splits.items()},
        {
            split: {LABEL: np.array([one.emotion for one in part])}
            for split, part in splits.items()
        },
        classes={LABEL: EMOTIONS},
        standardize=standardize,
        augment=CropAndFlip(per_frame=augment_per_frame) if augment else None,
        groups={split: actor_groups(chosen) for split, chosen in actors.items()},
        facts={
            "license": "CC BY-NC-SA 4.0",
            "crop": face,
            "actors": {split: list(chosen) for split, chosen in actors.items()},
            "clips_by_actor": {str(actor): counts[actor] for actor in ACTORS},
        },
        warnings=[
            *_warnings(recordings, bool(landmarks_dir)),
            *_few_actors(splits),
            *remarks,
        ],
        crop=_stored_crop(crop) if landmarks_dir else {"mode": "center_crop"},
    )


def _stored_crop(crop: str) -> dict[str, Any]:
    """Returns how frames were cropped by landmarks, for the use of a trained model.

    Args:
        crop: Option of `FaceCrop`.
    """
    # A new clip has no landmarks, unless OpenFace is run on it. Its face is then
    # smaller in the frame than those that the model was trained on.
    return {
        "mode": "landmarks",
        "crop": crop,
        "box": "bounding box of the 68 landmarks of OpenFace of each frame, no margin",
        "without_landmarks": "center_crop",
        "note": "a clip without a CSV file of landmarks is cropped to its central "
        "square, in which the face is smaller than in the frames of the training: "
        "predictions may be worse than the test score",
    }


def find_recordings(data_dir: str) -> list[Recording]:
    """Returns the speech recordings below a folder, in the order of their names.

    Video-only files (first field 02) are ignored: the files with audio and video have
    the same frames.

    Raises:
        DataError: The folder does not exist, or has no such file.
    """
    return find_with_remarks(data_dir)[0]


def find_with_remarks(data_dir: str) -> tuple[list[Recording], list[str]]:
    """Returns the recordings as `find_recordings` does, and what is unusual."""
    folder = data_folder(data_dir, EXPECTED_LAYOUT, FALLBACK_HINT)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    video_files, audio_files, speech = {}, {}, []
    for path in paths:
        code = parse(path)
        if code is None or code.channel != SPEECH:
            continue
        # `setdefault`: of several copies of a file, below different folders, the first
        # in the order of paths is used.
        if code.modality == AUDIO_VIDEO and path.suffix.lower() == ".mp4":
            video_files.setdefault(code.recording, (path, code))
            speech.append((path, code))
        if code.modality == AUDIO_ONLY and path.suffix.lower() == ".wav":
            audio_files.setdefault(code.recording, (path, code))
            speech.append((path, code))
    recordings = []
    names = {**video_files, **audio_files}
    # By actor, which is the last field, and then by name.
    for name in sorted(names, key=lambda name: (name[-2:], name)):
        _, code = video_files.get(name) or audio_files[name]
        video = video_files[name][0] if name in video_files else None
        # The wav if there is one, since the audio of the mp4 is compressed with loss.
        audio = audio_files[name][0] if name in audio_files else video
        recordings.append(Recording(name, code.emotion, code.actor, video, audio))
    if not recordings:
        what, fix = describe_others(paths)
        suffix = f", but {what}" if what else ""
        problem = f"contains no speech recording of RAVDESS{suffix}"
        raise missing_files(data_dir, problem, EXPECTED_LAYOUT, fix or FALLBACK_HINT)
    return recordings, list(folder_remarks(paths, speech))


def _transforms(
    recordings: Sequence[Recording], landmarks_dir: str, face_crop: FaceCrop
) -> dict[str, FrameTransform]:
    """Returns name of a recording -> how its frames are cropped.

    Args:
        recordings: All recordings.
        landmarks_dir: Folder of the landmarks; "" for none.
        face_crop: The crop of every recording, except its path.
    """
    if not landmarks_dir:
        return {one.name: SquareResize(face_crop.size) for one in recordings}
    folder = local_path("landmarks_dir", landmarks_dir)
    files = {}
    for path in sorted(folder.rglob("*.csv")):
        if code := parse(path):
            files.setdefault(code.recording, path)
    with_video = [one.name for one in recordings if one.video]
    if missing := [name for name in with_video if name not in files]:
        raise DataError(
            "D51",
            f"{len(missing)} of {len(with_video)} clips have no landmarks file in "
            f"{folder}, such as 01-{shown_name(missing[0])}.csv.",
            "download FacialTracking_Actors_01-24.zip from the same page, or set "
            "--config.data.landmarks_dir= to use the center of the frame",
        )
    # A recording without video has no frames, so its transform is never applied.
    return {
        one.name: dataclasses.replace(face_crop, path=files[one.name])
        if one.video
        else SquareResize(face_crop.size)
        for one in recordings
    }


def _job(recording: Recording, transform: FrameTransform) -> DecodeJob:
    """Returns the job that decodes a recording."""
    # Landmarks are input files: a store that was prepared with others is not used.
    extra = (transform.path,) if isinstance(transform, FaceCrop) else ()
    return DecodeJob(
        recording.name, recording.video, recording.audio, transform, extra=extra
    )


def _check_splits(
    data_dir: str,
    splits: Mapping[str, Sequence[Recording]],
    actors: Mapping[str, Sequence[int]],
) -> None:
    """Raises DataError for a split without clips."""
    for split, part in splits.items():
        if not part:
            raise DataError(
                "D45",
                f"split {shown(split)} is empty: {shown_path(data_dir)} has no clip "
                f"of actors {join_names(actors[split])}.",
                f"add their folders, or choose another fold; {FEW_ACTORS}",
            )


def _few_actors(splits: Mapping[str, Sequence[Recording]]) -> list[str]:
    """Returns a warning if few actors are trained on or tested."""
    counts = {split: len({one.actor for one in part}) for split, part in splits.items()}
    if counts["train"] >= PER_FOLD and min(counts.values()) > 1:
        return []
    listed = join_names(f"{count} in {split}" for split, count in counts.items())
    return [f"few actors: {listed}; {FEW_ACTORS}"]


def _warnings(recordings: Sequence[Recording], landmarks: bool) -> list[str]:
    """Returns the differences from the data of the paper."""
    warnings = []
    count, counts = len(recordings), Counter(one.actor for one in recordings)
    there = {one.emotion for one in recordings}
    if absent := [name for i, name in enumerate(EMOTIONS) if i not in there]:
        warnings.append(f"no clip of the emotions {join_names(absent)}")
    if count != COUNT:
        missing = [str(actor) for actor in ACTORS if not counts.get(actor)]
        suffix = f"; no clip of actors {join_names(missing)}" if missing else ""
        warnings.append(f"only {count} of {COUNT} clips of RAVDESS speech{suffix}")
    if not landmarks:
        warnings.append(
            "no landmarks: uses the central square of each frame; the paper crops the "
            "face"
        )
    return warnings
