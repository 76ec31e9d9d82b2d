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
# @title Install the library, and check the device { display-mode: "form" }
# Generated from install_cell.py, and the same in all notebooks. Packages that are
# recent enough are kept: Colab's JAX matches the plug-in of Colab's accelerator.
import importlib.util
import os
import re
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path

ADDRESS = "https://github.com/OWNER/mmfusion_jax"
# Virtual devices on a machine without an accelerator.
CPU_DEVICES = 8
# Extra -> a module that it installs.
MODULES = {"demo": "espeakng_loader"}
# Package -> the oldest version that the library supports.
OLDEST = {
    "jax": "0.7.2",
    "flax": "0.11.2",
    "optax": "0.2.8",
    "orbax-checkpoint": "0.12.4",
    "chex": "0.1.90",
    "numpy": "2.1.3",
}
# Accelerator -> package with a plug-in for it -> extra that installs this package.
PLUGINS = {
    "TPU": {"libtpu": "tpu"},
    "GPU": {"jax-cuda12-plugin": "cuda12", "jax-cuda13-plugin": "cuda13"},
}


def read(path):
    """Returns the text of a system file; "" if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def find_accelerator(root=Path("/"), environment=os.environ):
    """Returns "TPU", "GPU" or "", by the devices and variables of the system."""
    names = ("TPU_ACCELERATOR_TYPE", "COLAB_TPU_1VM", "COLAB_TPU_ADDR")
    nodes = [*root.glob("dev/accel[0-9]*")]
    vendors = [read(path).strip() for path in root.glob("sys/bus/pci/devices/*/vendor")]
    if "0x1ae0" in vendors:  # Google
        nodes += root.glob("dev/vfio/[0-9]*")
    if nodes or any(environment.get(name) for name in names):
        return "TPU"
    hidden = environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles")
    return "GPU" if any(root.glob("dev/nvidia[0-9]*")) and not hidden else ""


def installed_versions():
    """Returns package -> version."""
    found = ((one.metadata["Name"], one.version) for one in metadata.distributions())
    return {re.sub("[-_.]+", "-", name).lower(): x for name, x in found if name}


def numbers(version):
    """Returns the first three numbers of a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def plugin_extra(accelerator, versions, root=Path("/")):
    """Returns the extra for an accelerator: of the plug-in found, or of the driver."""
    for plugin, extra in PLUGINS[accelerator].items():
        if plugin in versions:
            return extra
    if accelerator == "TPU":
        return "tpu"
    driver = re.search(r" (\d+)\.\d+", read(root / "proc/driver/nvidia/version"))
    return "cuda12" if driver and int(driver[1]) < 580 else "cuda13"


def choose_extras(accelerator, versions, root=Path("/")):
    """Returns the extras to install, such as "demo" or "demo,tpu"."""
    extras = [*MODULES]
    if accelerator:
        plugins = [name for name in PLUGINS[accelerator] if name in versions]
        serves = bool(plugins) and all(
            name in versions and numbers(versions[name]) >= numbers(oldest)
            for name, oldest in OLDEST.items()
        )
        if serves and accelerator == "GPU":  # libtpu has version numbers of its own
            jaxlib = versions.get("jaxlib", "")
            serves = numbers(versions[plugins[0]]) == numbers(jaxlib)
        if not serves:
            extras.append(plugin_extra(accelerator, versions, root))
    return ",".join(extras)


def replaced_in_use(before, after, modules=sys.modules):
    """Returns the packages that were replaced after this kernel had imported them."""
    packages = metadata.packages_distributions()
    used = {
        re.sub("[-_.]+", "-", package).lower()
        for module in {name.partition(".")[0] for name in [*modules]}
        for package in packages.get(module, ())
    }
    return [
        f"{name} {version} by {after.get(name, 'nothing')}"
        for name, version in sorted(before.items())
        if name in used and after.get(name) != version
    ]


def install(extras):
    """Installs the library; an error if this kernel has to be restarted."""
    before = installed_versions()
    wanted = f"mmfusion_jax[{extras}] @ git+{ADDRESS}"
    command = [sys.executable, "-m", "pip", "install", "-q", wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pip could not install {wanted}:\n{done.stderr}")
    importlib.invalidate_caches()
    if replaced := replaced_in_use(before, installed_versions()):
        raise RuntimeError(
            f"Restart needed: pip replaced {', '.join(replaced)}, and this kernel has "
            "the old version in memory. Choose Runtime > Restart session (Jupyter: "
            "Kernel > Restart), then run all cells again."
        )


def check_device(accelerator, versions):
    """Prints the devices; an error if JAX does not use the accelerator."""
    import jax

    with warnings.catch_warnings():  # what JAX only warns of is an error below
        warnings.simplefilter("ignore")
        try:
            devices = jax.devices()
            problem = "JAX uses the CPU"
        except RuntimeError as error:
            devices = []
            problem = f"JAX does not start: {str(error).splitlines()[0]}"
    on_purpose = os.environ.get("JAX_PLATFORMS", "").startswith("cpu")
    if devices and (devices[0].platform != "cpu" or not accelerator or on_purpose):
        print(f"{len(devices)} x {devices[0].device_kind}")
        return
    kept = ("jax", "jaxlib", *PLUGINS.get(accelerator, ()))
    found = ", ".join(f"{name} {versions[name]}" for name in kept if name in versions)
    extras = [*MODULES]
    if accelerator:
        extras.append(plugin_extra(accelerator, versions))
    raise RuntimeError(
        f"{f'This machine has a {accelerator}, but ' if accelerator else ''}{problem} "
        f"(installed: {found}). Run this in a new cell:\n\n"
        f'    %pip install "mmfusion_jax[{",".join(extras)}] @ git+{ADDRESS}"\n\n'
        "then choose Runtime > Restart session (Jupyter: Kernel > Restart), and run "
        "all cells again. To use the CPU: set JAX_PLATFORMS=cpu before Python starts."
    )


if CPU_DEVICES > 1 and "host_platform_device" not in os.environ.get("XLA_FLAGS", ""):
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(CPU_DEVICES))
accelerator = find_accelerator()
if any(not importlib.util.find_spec(x) for x in ("mmfusion_jax", *MODULES.values())):
    install(choose_extras(accelerator, installed_versions()))
check_device(accelerator, installed_versions())

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
