"""MCL-MCF beside the reference values of the released model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from golden_msa import fill, load, weights
from loaded_tables import LOSSES, WEIGHT_MAPPINGS
from mcl_mcf_models import objective, small

from mmfusion_jax.layers.projection_heads import ProjectionHeads
from mmfusion_jax.ops.contrastive import info_nce
from mmfusion_jax.types import Batch

close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
CLIPS = {
    "level1/text_audio": "ta_clip",
    "level1/text_video": "tv_clip",
    "level1/video_audio": "av_clip",
    "level2/text_video_audio": "mass_t_clip",
    "level2/video_text_audio": "mass_v_clip",
    "level2/audio_text_video": "mass_a_clip",
    "level2/audio_text_video_audio": "mass_tav_clip",
    "level3/text_video_text_audio": "tfn_tv",
    "level3/text_video_video_audio": "tfn_ta",
    "level3/text_audio_video_audio": "tfn_av",
}
LINEARS = {
    "mix_text_video": "conv_tv",
    "mix_video_audio": "conv_av",
    "mix_text_audio": "conv_vt",
    "mix_text_video_audio": "conv_tav",
    "lift_text": "getresNet.0.0",
    "lift_video": "getresNet2.0.0",
    "lift_audio": "getresNet3.0.0",
    "mix": "getresNet4.0.0",
    "fuse": "conv_res",
    "hidden_0": "fusion_prj.linear_1",
    "hidden_1": "fusion_prj.linear_2",
    "head": "fusion_prj.linear_3",
    "encoders_video/out": "visual_enc.linear_1",
    "encoders_audio/out": "acoustic_enc.linear_1",
}
LINEARS |= {
    f"{pair.replace('/', '_')}/{side}": f"{name}.{side}_learn_weight"
    for pair, name in CLIPS.items()
    for side in "xy"
}
IMAGES = {
    "tcf_text_video": "conv_tfn_t",
    "tcf_text_audio": "conv_tfn_v",
    "tcf_video_audio": "conv_tfn_a",
}
LSTMS = {"encoders_video/lstm": "visual_enc", "encoders_audio/lstm": "acoustic_enc"}


def swapped(x):
    """Reorders the rows of a golden kernel from t', v', a', q to t', a', v', q."""
    t, v, a, q = np.split(x[..., 0].T, 4)
    return np.concatenate([t, a, v, q])


def origin(path):
    """The golden weights of a parameter, and the function that converts them."""
    parent, leaf = path.rsplit("/", 1)
    if path.startswith("encoders_text/"):
        ours = path.removeprefix("encoders_text/")
        (rule,) = (rule for rule in WEIGHT_MAPPINGS["bert"].rules if rule.names(ours))
        return [f"text_enc.bertmodel.{n}" for n in rule.names(ours)], rule.layout
    if parent in LSTMS:
        base = f"{LSTMS[parent]}.rnn"
        if leaf == "bias":
            both = [f"{base}.bias_ih_l0", f"{base}.bias_hh_l0"]
            return both, lambda a, b: (a + b)[None]
        place = {"input_kernel": "ih", "recurrent_kernel": "hh"}[leaf]
        return [f"{base}.weight_{place}_l0"], lambda x: x.T[None]
    if parent in IMAGES:
        kind, i = leaf.split("_")
        name = f"{IMAGES[parent]}.{2 * int(i)}."
        if kind == "bias":
            return [f"{name}bias"], lambda x: x
        return [f"{name}weight"], lambda x: x.transpose(2, 3, 1, 0)
    if leaf == "bias":
        return [f"{LINEARS[parent]}.bias"], lambda x: x
    if parent == "fuse":
        return ["conv_res.weight"], swapped
    return [f"{LINEARS[parent]}.weight"], lambda x: x.reshape(x.shape[:2]).T


@pytest.fixture(scope="module")
def arrays(golden):
    return load(golden)


@pytest.fixture(scope="module")
def batch(arrays):
    get = lambda name: arrays[f"mcl_small/in.{name}"]
    assert not get("types").any()
    inputs = {"text": get("ids").astype(np.int32)}
    masks = {"text": get("mask") > 0}
    for name, theirs, size in (("audio", "acoustic", "a"), ("video", "visual", "v")):
        inputs[name] = get(theirs).swapaxes(0, 1).astype(np.float32)
        masks[name] = np.arange(inputs[name].shape[1]) < get(f"{size}_len")[:, None]
    label = {"label": get("y")[:, 0].astype(np.float32)}
    return Batch(inputs, masks, label, np.ones(6, np.float32))


@pytest.fixture(scope="module")
def params(arrays, batch):
    torch = weights(arrays, "mcl_small")
    init = functools.partial(small(variant="released_code").init, train=True)
    tree = flatten_dict(jax.eval_shape(init, jax.random.key(0), batch)["params"])
    filled = {}
    for path, leaf in tree.items():
        names, layout = origin("/".join(path))
        filled[path] = np.asarray(layout(*(torch[name] for name in names)))
        assert filled[path].shape == leaf.shape, path
    return unflatten_dict(filled)


def test_golden_model(arrays, batch, params):
    model, goal = small(variant="released_code"), objective(float(np.log(1 / 0.07)))
    rngs = {"dropout": jax.random.key(0)}

    @functools.partial(jax.value_and_grad, has_aux=True)
    def total(params):
        outputs = model.apply({"params": params}, batch, train=True, rngs=rngs)
        value, terms = goal(outputs, batch, 0)
        return value, (outputs, terms)

    (value, (outputs, terms)), grads = jax.jit(total)(params)
    get = lambda name: arrays[f"mcl_small/{name}"]
    aux = outputs.aux
    close(aux["text"], get("act.text_enc")[:, 0])
    close(aux["fused"], get("act.conv_res")[..., 0])
    close(outputs.prediction, get("out.preds")[:, 0])
    for pair, name in CLIPS.items():
        term = LOSSES["info_nce"]((pair,), float(np.log(1 / 0.07)))
        close(jnp.mean(term(outputs, batch)), get(f"act.{name}"))
    for i in "123":
        close(terms[f"level{i}"], get(f"out.nce{i}"))
    close(terms["task"], get("out.l1"))
    close(value, get("out.total"))
    names, norms = get("params.names"), get("grad.params.l2")
    norm = dict(zip((str(n) for n in names), norms, strict=True))
    for path, grad in flatten_dict(grads).items():
        for name in origin("/".join(path))[0]:
            want = norm[name]
            np.testing.assert_allclose(
                np.linalg.norm(grad), want, rtol=1e-4, atol=2e-6, err_msg=name
            )


@pytest.mark.ci
def test_prediction_needs_no_modules_of_the_losses(arrays, batch, params):
    model = small(variant="released_code")
    run = functools.partial(model.init, train=False)
    unneeded = ("level", "mix_", "tcf_")
    lean = {k: v for k, v in params.items() if not k.startswith(unneeded)}
    got = model.apply({"params": lean}, batch, train=False)
    close(got.prediction, arrays["mcl_small/out.preds"][:, 0])
    assert run(jax.random.key(0), batch)["params"].keys() == params.keys()


@pytest.mark.parametrize(
    ("case", "variant", "scale"),
    [
        ("alg1_proj", "paper", 1 / 0.07),
        ("official_clip", "released_code", np.log(1 / 0.07)),
    ],
)
def test_golden_projection(arrays, case, variant, scale):
    x, y = (jnp.asarray(arrays[f"alg1_proj/in.{n}"], jnp.float32) for n in "xy")

    def weight(side, width):
        base = f"alg1.{side}_proj"
        kernel = fill(f"{base}.weight", (5, width)).T.astype(np.float32)
        return {"kernel": kernel, "bias": fill(f"{base}.bias", (5,)).astype(np.float32)}

    tree = {"params": {"x": weight("x", 9), "y": weight("y", 4)}}

    def loss(x, y):
        views = ProjectionHeads(5, variant).apply(tree, x, y)
        return jnp.mean(info_nce(*views, jnp.ones(6, bool), scale=float(scale)))

    value, (dx, dy) = jax.value_and_grad(loss, (0, 1))(x, y)
    close(value, arrays[f"{case}/out"])
    close(dx, arrays[f"{case}/grad.x"])
    close(dy, arrays[f"{case}/grad.y"])
