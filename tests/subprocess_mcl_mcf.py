"""MCL-MCF's loss and gradient on 1 and 2 devices; prints what differs.

Also prints how many rows of the images of level 3 a device of two has at once.
"""

import json
import re

import device_runs  # first: it decides what JAX is
import jax
import jax.numpy as jnp
import numpy as np
from loaded_tables import LOSSES

from mmfusion_jax.encoders.precomputed import Precomputed
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.models.mcl_mcf import MCLMCF
from mmfusion_jax.types import Batch

ROWS, CHUNK = 32, 16
WIDTHS = {"text": 3, "audio": 2, "video": 3}
MODEL = MCLMCF(
    {m: Precomputed() for m in WIDTHS},
    1,
    mixture_dim=4,
    projection_dim=9,
    hidden_dim=4,
    contrastive_dim=5,
    channels=(2, 1),
    chunk=CHUNK,
    dropout=0.0,
)
PAIRS = (
    "level1/text_audio",
    "level2/audio_text_video_audio",
    "level3/text_video_text_audio",
    "level3/text_audio_video_audio",
)
OBJECTIVE = Objective(
    {
        "task": WeightedLoss(LOSSES["l1"]("score")),
        "contrast": WeightedLoss(LOSSES["info_nce"](PAIRS), 0.5),
    }
)


def batch() -> Batch:
    """Missing modalities and padding rows, unevenly spread over the devices."""
    rng = np.random.default_rng(0)
    inputs = {m: rng.normal(size=(ROWS, 2, f)) for m, f in WIDTHS.items()}
    masks = {m: np.ones((ROWS, 2), bool) for m in WIDTHS}
    masks["audio"][[3, 9]], masks["text"][4], masks["video"][5:, 1] = (False,) * 3
    weight = np.ones(ROWS)
    weight[-3:] = 0
    return Batch(inputs, masks, {"score": rng.normal(size=ROWS)}, weight)


def value_and_gradient(params, batch, axis=None):
    def loss(params):
        outputs = MODEL.apply({"params": params}, batch, train=True)
        return OBJECTIVE(outputs, batch, jnp.array(0), axis)

    return jax.value_and_grad(loss, has_aux=True)(params)


def rows_of_images(program: str) -> int:
    """Maximum number of rows of any image (rows c h w) in a program."""
    shapes = re.findall(r"f64\[([\d,]+)\]", program)
    sizes = [tuple(map(int, shape.split(","))) for shape in shapes]
    sides = range(5, 8)  # of images between vectors of 9 and the flat result
    images = [s for s in sizes if len(s) == 4 and s[2] in sides and s[3] in sides]
    return max(s[0] for s in images)


def first_params(batch: Batch):
    """Random weights of the right shapes."""
    rng = np.random.default_rng(1)
    init = lambda: MODEL.init(jax.random.key(0), batch, train=True)["params"]
    return jax.tree.map(lambda x: rng.normal(size=x.shape), jax.eval_shape(init))


if __name__ == "__main__":
    small = batch()
    params = first_params(small)
    found, program = device_runs.differences(value_and_gradient, params, small, (2,))
    print(json.dumps({"differences": found, "rows": rows_of_images(program)}))
