# %% [markdown]
# # Your own clips, to a prediction
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/mmfusion_jax/blob/main/notebooks/own_clips.ipynb)
#
# Video clips and a `labels.csv` are all that a training needs. This notebook checks such
# a folder, trains CFN-SR on it, and predicts clips that the training has never seen. It
# makes 90 tiny clips for that, without a download; set `FOLDER` to use your own. What
# a model learns from these clips is of no use elsewhere.

# %%
# build.py puts install_cell.py here.

# %%
import csv
import os
import shlex
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import matplotlib.pyplot as plt
import numpy as np

import mmfusion_jax as mmf

FOLDER = ""  # your folder, such as "/content/drive/MyDrive/clips"; "" makes clips
EPOCHS = 12


def command(words):
    """Prints the output of a command of the library: mmfusion-jax WORDS in a shell."""
    line = [sys.executable, "-m", "mmfusion_jax", *shlex.split(words)]
    # A process of its own, on the CPU: a TPU serves one process, which is this one.
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    print(done.stdout + done.stderr)

# %% [markdown]
# ## Clips
#
# A gesture with a sound: a disk moves up, down or stays, while a tone rises, falls or
# stays, both in noise. Speakers differ in color, pitch and tempo. The three folders are
# the classes.

# %%
CLASSES = {"falling": -1, "rising": 1, "steady": 0}
FPS, FRAMES, SIZE, RATE = 12, 18, 48, 16000


def write_clip(path, direction, speaker, rng, audio=True):
    """Writes a clip of 1.5 s with H.264 video and AAC audio."""
    voice = np.random.default_rng(speaker)
    color, pitch = voice.uniform(90, 255, 3), voice.uniform(300, 420)
    pace = voice.uniform(0.6, 1.0)
    moved = direction * pace * np.linspace(-1, 1, FRAMES) + rng.uniform(-0.2, 0.2)
    y, x = np.mgrid[:SIZE, :SIZE]
    center = SIZE * (0.5 + rng.uniform(-0.15, 0.15))
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=FPS)
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        sound = file.add_stream("aac", rate=RATE, layout="mono") if audio else None
        for height in SIZE * (0.5 - 0.28 * moved):
            disk = (x - center) ** 2 + (y - height) ** 2 < (SIZE / 7) ** 2
            image = disk[..., None] * color + rng.normal(60, 90, (SIZE, SIZE, 3))
            image = np.clip(image, 0, 255).astype(np.uint8)
            file.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(video.encode())
        if audio:
            time = np.arange(RATE * FRAMES // FPS) / RATE
            octaves = direction * pace * np.linspace(-0.8, 0.8, time.size)
            phase = 2 * np.pi * np.cumsum(pitch * 2**octaves) / RATE
            wave = 0.2 * np.sin(phase) + rng.normal(0, 0.2, time.size)
            frame = av.AudioFrame.from_ndarray(
                wave[None].astype(np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
            file.mux(sound.encode(frame))
            file.mux(sound.encode())


clips = Path(FOLDER or "clips").expanduser()
if not FOLDER:
    rng = np.random.default_rng(0)
    for name, direction in CLASSES.items():
        (clips / name).mkdir(parents=True, exist_ok=True)
        for number in range(30):
            speaker, take = divmod(number, 3)
            path = clips / name / f"speaker{speaker}_{take}.mp4"
            write_clip(path, direction, speaker, rng)
    write_clip("new.mp4", CLASSES["rising"], 100, rng)
    write_clip("new_silent.mp4", CLASSES["rising"], 100, rng, audio=False)
print(len([*clips.rglob("*.mp4")]), "clips in", clips)

# %% [markdown]
# ## Labels
#
# `data init` writes a `labels.csv` with a row for each clip. Here the labels are the
# names of the folders; without the flag you fill them in. The column `speaker` is worth
# filling in: with it, no speaker is in two splits. Otherwise the test score measures in
# part how well the model knows the speakers.

# %%
table = clips / "labels.csv"
if not FOLDER:
    table.unlink(missing_ok=True)
command(f"data init {clips} --label_from_folder")

# %%
if not FOLDER:
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["speaker"] = Path(row["file"]).stem.partition("_")[0]
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
print("".join(table.read_text(encoding="utf-8").splitlines(keepends=True)[:4]))

# %% [markdown]
# `data check` decodes every clip and lists what a training would refuse.

# %%
command(f"data check {clips}")

# %% [markdown]
# ## Training
#
# `cfn_sr:clips` decodes the clips once, trains, and selects the checkpoint on the
# validation split. `modality_dropout` hides a modality of some training clips, so that
# the model learns to do without. Short for a demonstration: few and small frames, a small
# network, no training of each encoder alone. Leave that out for clips of yours.

# %%
overrides = {
    "data.data_dir": str(clips),
    "data.val_fraction": 0.2,
    "data.test_fraction": 0.2,
    "data.modality_dropout.audio": 0.2,
    "data.modality_dropout.video": 0.2,
    "train.epochs": EPOCHS,
    "data.frames": 9,
    "data.size": 32,
    "data.sample_rate": 16000,
    "model.encoders.video.blocks": (1, 1),
    "model.encoders.video.base_channels": 8,
    "pretrain_unimodal": (),
}
result = mmf.train("cfn_sr:clips", workdir="runs/mine", overrides=overrides)

# %% [markdown]
# ## Prediction
#
# `mmf.load` needs the folder of the run only, which has the preprocessing too. The two
# clips are of a new speaker, and rising; the second one has no audio, and the model
# predicts from what is there. The probabilities are calibrated on the validation split.
# The set of classes has the true one for about 9 of 10 clips like those of the
# validation split. `without` has the prediction without a modality.

# %%
predictor = mmf.load("runs/mine")
paths = ["new.mp4", "new_silent.mp4"] if not FOLDER else sorted(clips.rglob("*.mp4"))[:2]
predictions = predictor.predict(paths)
for one in predictions:
    print(f"{one.id}: {one.label}, missing: {', '.join(one.missing) or 'nothing'}")
    if one.prediction_set is not None:  # there is a validation split
        names = ", ".join(one.prediction_set)
        print(f"  set of classes with {one.coverage:.0%} coverage: {names}")
    for name, left in one.without.items():
        print(f"  without {name}: {left.label}, change {left.change:.2f}")

# %%
scores, count = predictor.run.scores, result.data.counts["test"]
bars = {"both": scores.score}
bars |= {f"without {name}": score for name, score in scores.without.items()}
bars["majority class"] = result.baseline.scores["accuracy"].mean
figure, axes = plt.subplots(figsize=(6, 2.2), layout="constrained")
axes.bar_label(axes.barh(list(bars), list(bars.values())), fmt="%.2f", padding=3)
axes.set(xlim=(0, 1.15), xlabel=f"accuracy on {count} test clips of other speakers")
axes.invert_yaxis()

# %%
figure, rows = plt.subplots(
    len(paths), 5, figsize=(9, 3.4), layout="constrained", width_ratios=(1, 1, 1, 1, 3)
)
for path, one, (*frames, axes) in zip(paths, predictions, rows):
    with av.open(str(path)) as file:
        images = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    chosen = np.linspace(0, len(images) - 1, len(frames)).round().astype(int)
    for place, number in zip(frames, chosen):
        place.imshow(images[number])
        place.set(xticks=[], yticks=[], title=f"frame {number}")
    frames[0].set_ylabel(Path(path).name)
    bars = axes.barh(list(one.probabilities), list(one.probabilities.values()))
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlim=(0, 1.2), xlabel="probability")
    axes.invert_yaxis()

# %% [markdown]
# The same from a shell, where `--json` and `--csv` print it for other programs:

# %%
command(f"predict --run=runs/mine {' '.join(map(str, paths))}")
