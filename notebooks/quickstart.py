# %% [markdown]
# # Quickstart
#
# Trains CFN-SR on the embedded `digits` dataset: spoken digits, and videos of moving
# handwritten digits, each too noisy by itself. The same code runs on a CPU, a GPU or a TPU,
# on one device or on eight. The data are an embedded stand-in: no number here is comparable
# with any paper.

# %%
# Installs the library if it is missing, as on a new Colab runtime. Colab's JAX, Flax and
# NumPy are recent enough and are not replaced, so its TPU and GPU plug-ins still match.
import importlib.util
import subprocess
import sys

ADDRESS = "https://github.com/OWNER/mmfusion_jax"
if importlib.util.find_spec("mmfusion_jax") is None:
    wanted = f"mmfusion_jax[demo] @ git+{ADDRESS}"
    command = [sys.executable, "-m", "pip", "install", "-q", wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    importlib.invalidate_caches()

# %%
import time

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import mmfusion_jax as mmf

STEPS = 450
print(mmf.describe_devices())  # an accelerator that JAX does not use is an error

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
    axes[0].axis("off"), axes[1].axis("off")

# %% [markdown]
# ## Model, loss, step
#
# Encoders map an array and its mask to tokens, the model maps a batch to a prediction,
# the objective maps that to a loss. The step is a pure function; the executor compiles it
# for the devices. Dropout is 0, so that the losses do not depend on the number of
# devices.

# %%
encoders = {
    "audio": mmf.encoders.AudioConv(),
    "video": mmf.encoders.ResNeXt3D(blocks=(1, 1), base_channels=8),
}
model = mmf.models.CFNSR(encoders, head_size=10, dropout=0.0)
objective = mmf.Objective({"task": mmf.WeightedLoss(mmf.losses.CrossEntropy("digit"))})
optimizer = optax.adam(1e-3)
executor = mmf.Executor("jit")
state = executor.create(
    lambda: mmf.create_state(
        model, optimizer, pipeline.dummy_batch(), jax.random.key(0)
    )
)
step = executor.compile(mmf.make_train_step(model, objective, optimizer, steps=STEPS))
print(f"{sum(x.size for x in jax.tree.leaves(state.params)):,} parameters")

# %% [markdown]
# ## Training

# %%
losses, start = [], time.perf_counter()
for batch in pipeline.train(0, STEPS):
    state, metrics = step(state, executor.put(batch, train=True))
    losses.append(metrics["loss"])
losses = np.array(jax.device_get(losses))
print(f"{STEPS} steps in {time.perf_counter() - start:.0f} s, including compilation")
print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")

# %%
figure, axes = plt.subplots(figsize=(6, 2.5), layout="constrained")
axes.plot(losses, alpha=0.35)
window = min(20, STEPS)
mean = np.convolve(losses, np.ones(window) / window, mode="valid")
axes.plot(np.arange(window - 1, STEPS), mean, label=f"mean of the last {window}")
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


test, train = data.label("test", "digit"), data.label("train", "digit")
print(f"majority class    {np.mean(test == np.bincount(train).argmax()):.3f}")
print(f"without audio     {accuracy('audio'):.3f}")
print(f"without video     {accuracy('video'):.3f}")
print(f"both              {accuracy():.3f}")

# %% [markdown]
# The model was never trained with a missing modality; `data.modality_dropout` in a config
# does that. A full run with checkpoints, validation, baselines and a report is one
# command: `python -m mmfusion_jax.main --config=configs/cfn_sr.py`.
