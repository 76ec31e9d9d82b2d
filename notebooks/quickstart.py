# %% [markdown]
# # Quickstart
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/mmfusion_jax/blob/main/notebooks/quickstart.ipynb)
#
# Trains CFN-SR on the embedded `digits` dataset: spoken digits, and videos of moving
# handwritten digits, each too noisy by itself. The same code runs on a CPU, a GPU or a
# TPU, on one device or on eight. A TPU runtime of Colab (v5e) is one chip, so it is one
# device; on a CPU, the first cell makes eight virtual devices. The data are an embedded
# stand-in: no number here is comparable with any paper.

# %%
# build.py puts install_cell.py here.

# %%
import time

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import mmfusion_jax as mmf

STEPS = 350

# %% [markdown]
# ## Data
#
# A batch is a function of the seed and the step number. Masks mark the valid steps; a
# missing modality is a mask that is False everywhere.

# %%
data = mmf.datasets.digits(modalities=("audio", "video"))
pipeline = mmf.data.Pipeline(data, batch_size=16, seed=0)
first = next(pipeline.train(0, 1))
for name, values in first.inputs.items():
    print(f"{name:5} {values.dtype} {values.shape}, mask {first.masks[name].shape}")

figure, rows = plt.subplots(2, 6, figsize=(9, 3), layout="constrained")
for axes, clip, audio, label in zip(
    rows.T, first.inputs["video"], first.inputs["audio"], first.labels["digit"]
):
    axes[0].imshow(clip[8, :, :, 0], cmap="gray")
    axes[0].set_title(data.classes["digit"][label])
    axes[1].imshow(audio.T, aspect="auto", origin="lower")
    for one in axes:
        one.set(xticks=[], yticks=[])
rows[0, 0].set_ylabel("video, frame 8")
rows[1, 0].set_ylabel("audio, MFCC");

# %% [markdown]
# ## Model, loss, step
#
# Encoders map an array and its mask to tokens, the model maps a batch to a prediction,
# the objective maps that to a loss. The step is a pure function; the executor compiles
# it for the devices. Dropout is 0, so that the losses do not depend on the number of
# devices.

# %%
encoders = {
    "audio": mmf.encoders.AudioConv(),
    "video": mmf.encoders.ResNeXt3D(blocks=(1, 1), base_channels=8),
}
model = mmf.models.CFNSR(encoders, head_size=10, dropout=0.0)
objective = mmf.Objective({"task": mmf.WeightedLoss(mmf.losses.CrossEntropy("digit"))})
optimizer = optax.adam(1e-3)


def train(executor, count):
    """Returns the state after `count` steps, and the losses."""
    state = executor.create(
        lambda: mmf.create_state(
            model, optimizer, pipeline.dummy_batch(), jax.random.key(0)
        )
    )
    step = mmf.make_train_step(model, objective, optimizer, steps=STEPS)
    step, losses = executor.compile(step), []
    for batch in pipeline.train(0, count):
        state, metrics = step(state, executor.put(batch, train=True))
        losses.append(metrics["loss"])
    return state, np.array(jax.device_get(losses))


# %% [markdown]
# ## Training on one device

# %%
start = time.perf_counter()
executor = mmf.Executor("jit", devices=1)
state, losses = train(executor, STEPS)
print(f"{sum(x.size for x in jax.tree.leaves(state.params)):,} parameters")
print(f"{STEPS} steps in {time.perf_counter() - start:.0f} s, including compilation")
print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")

# %%
size = min(25, STEPS)
blocks = losses[: STEPS // size * size].reshape(-1, size)
figure, axes = plt.subplots(figsize=(6, 2.5), layout="constrained")
axes.plot(np.arange(1, STEPS + 1), losses, alpha=0.35, label="one step")
centers = np.arange(len(blocks)) * size + (size + 1) / 2
axes.plot(centers, blocks.mean(axis=1), "o-", label=f"mean of {size} steps")
axes.set(xlabel="step", ylabel="loss", ylim=0)
axes.legend();

# %% [markdown]
# ## Evaluation
#
# Compared with the majority class of the training split, and with one modality missing.
# A missing modality does not need recompilation: its mask becomes False.

# %%
task = mmf.tasks.Classification("digit", tuple(data.classes["digit"]))
digit_metrics = task.metrics()
evaluate = executor.compile_eval(mmf.make_eval_step(model, objective, digit_metrics))


def accuracy(missing: str = "") -> float:
    """Returns the accuracy on the test split, without one modality."""
    batches = []
    for batch in pipeline.evaluate("test"):
        masks = {k: v & (k != missing) for k, v in batch.masks.items()}
        batches.append(executor.put(batch.replace(masks=masks), train=False))
    collected, _ = mmf.collect(evaluate, state.variables, batches)
    return digit_metrics.scores(collected)["accuracy"]


test, train_labels = data.label("test", "digit"), data.label("train", "digit")
majority = np.bincount(train_labels).argmax()
print(f"test accuracy, {len(test)} examples")
print(f"  majority class    {np.mean(test == majority):.3f}")
print(f"  without audio     {accuracy('audio'):.3f}")
print(f"  without video     {accuracy('video'):.3f}")
print(f"  both              {accuracy():.3f}")

# %% [markdown]
# The model was never trained with a missing modality; `data.modality_dropout` in a
# config does that.
#
# ## All devices
#
# `mmf.Executor("jit")` splits every batch across all devices; the program is otherwise
# the same, and so are the losses, up to rounding. On one device there is nothing to
# compare.

# %%
count, compared = jax.device_count(), min(5, STEPS)
if count > 1:
    _, split = train(mmf.Executor("jit"), compared)
    for devices, values in ((1, losses), (count, split)):
        numbers_shown = " ".join(f"{x:.4f}" for x in values[:compared])
        print(f"losses on {devices} of {count} devices: {numbers_shown}")
    print(f"largest difference: {np.abs(split - losses[:compared]).max():.1e}")
else:
    print("This machine has one device.")

# %% [markdown]
# A full run with checkpoints, validation, baselines and a report is one command:
# `python -m mmfusion_jax.main --config=configs/cfn_sr.py`.
