"""Clips with the extractors of Hetero-Fusion-Net, and preprocessed for OF-CMAER-CAT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict
from media_files import tone, write_video
from outlines import same_kinds
from test_offered import request

from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.registry import load_part
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.errors import WeightsError
from mmfusion_jax.runner.experiment import train
from mmfusion_jax.weights.convert import kernel, load

MODALITIES = ("audio", "image", "text", "video")
RAW = {m: f"--config.model.encoders.{m}.weights" for m in MODALITIES}


def test_weights_are_required_or_random_by_name(tmp_path):
    spec = resolve(request("hetero_fusion_net", "raw_clips").config)
    said = r"W01.*audio\.weights is required.*encoder 'wav2vec2'.*\s.*weights=random"
    with pytest.raises(WeightsError, match=said):
        build.pretrained_weights(spec)
    flags = [f"{flag}=random" for m, flag in RAW.items() if m != "text"]
    flags.append(f"{RAW['text']}={tmp_path}/model.safetensors")
    asked = request("hetero_fusion_net", "raw_clips", *flags)
    found = build.pretrained_weights(resolve(asked.config))
    assert {m: path.name for m, (_, path) in found.items()} == {
        "text": "model.safetensors"
    }
    notices = build.random_encoders(resolve(asked.config))
    assert len(notices) == 3 and all("weights=random" in line for line in notices)


def test_the_vocabulary_follows_the_weights():
    flag = f"{RAW['text']}=bert/model.safetensors"
    data = request("hetero_fusion_net", "raw_clips", flag).config.data
    assert data.vocabulary == "bert/model.safetensors" == _augmentation(data)
    own = "--config.data.vocabulary=words.txt"
    config = request("hetero_fusion_net", "raw_clips", flag, own).config
    assert config.data.vocabulary == "words.txt" == _augmentation(config.data)
    assert config.model.encoders.text.weights == "bert/model.safetensors"


def _augmentation(data):
    return data.augmentations.text.vocabulary


EXTRACTORS = {  # Sec. 5.2: the widths of the vectors
    "audio": (768, jnp.zeros((1, 16000))),
    "image": (2048, jnp.zeros((1, 1, 224, 224, 3), jnp.uint8)),
    "text": (768, jnp.zeros((1, 64), int)),
    "video": (512, jnp.zeros((1, 16, 112, 112, 3), jnp.uint8)),
}


@pytest.mark.ci
@pytest.mark.parametrize("modality", EXTRACTORS)
def test_the_vectors_have_the_widths_of_the_paper(modality):
    width, values = EXTRACTORS[modality]
    spec = resolve(request("hetero_fusion_net", "raw_clips").config)
    encoder = spec.model.encoders[modality].build()
    mask = jnp.ones(values.shape[:2], bool)
    init = lambda key: encoder.init_with_output(key, values, mask, train=False)
    tokens, _ = jax.eval_shape(init, jax.random.key(0))
    assert tokens.values.shape[-1] == width


def generated(path, name, encoder, values):
    """Writes random weights of an encoder as its library does; returns them."""
    mask = jnp.ones(values.shape[:2], bool)
    init = lambda key: encoder.init(key, values, mask, train=False)
    template = jax.eval_shape(init, jax.random.key(0))
    mapping = load_part("encoder with pretrained weights", name, "test")
    rng, arrays = np.random.default_rng(0), {}
    for key, leaf in flatten_dict(template).items():
        target = "/".join(key[1:])
        rule = next(rule for rule in mapping.rules if rule.names(target))
        x = rng.random(leaf.shape, np.float32) * 0.1  # a variance is positive
        if rule.layout is kernel:
            x = np.moveaxis(x, (-1, -2), (0, 1))
        arrays[rule.names(target)[0]] = np.ascontiguousarray(x)
    safetensors.numpy.save_file(arrays, path)
    load(mapping, path, template)  # has every array, in its shape
    return path


def write_clips(folder, words):
    """Writes eight clips of a second, and labels.csv with a word of each."""
    splits = ("train", "train", "train", "train", "valid", "valid", "test", "test")
    lines = ["file,label,split,text"]
    for i, split in enumerate(splits):
        frames = [np.full((32, 32, 3), 20 * i, np.uint8)] * 5
        write_video(folder / f"{i}.mp4", frames, tone(1, 200 + 100 * i))
        label = ("no", "yes")[i % 2]
        lines.append(f"{i}.mp4,{label},{split},big {words[i % 4]}")
    (folder / "labels.csv").write_text("\n".join(lines))


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "word", "off"),
    [
        ("hetero_fusion_net", "raw_clips_small", ()),
        ("of_cmaer_cat", "clips", ("face_crop", "lemmatize")),
    ],
)
def test_clips_are_those_of_the_outline(name, word, off, tmp_path, monkeypatch):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nbig\nlarge\n")
    write_clips(tmp_path, ("dog", "cat", "bird", "fish"))
    flags = [f"--config.data.{option}=False" for option in off]
    if word == "raw_clips_small":
        flags.append(f"--config.data.vocabulary={tmp_path}")
    outline = build_data.describe_dataset(resolve(request(name, word).config), 0)
    folder = f"--config.data.data_dir={tmp_path}"
    spec = resolve(request(name, word, folder, *flags).config)
    real = build_data.build_dataset(spec, 0)
    same_kinds(real, outline)
    shapes = lambda data: {
        m: x.shape for m, x in data.source("train")[0]["inputs"].items()
    }
    assert shapes(real) == shapes(outline)
    assert shapes(real).keys() == spec.model.encoders.keys()
    example = next(build_data.build_pipeline(spec, real, 0).train(0, 1))
    for values in example.inputs.values():  # augmented
        assert np.isfinite(np.asarray(values, float)).all()


@pytest.mark.slow
def test_trains_from_weights_files_on_four_modalities(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "big", "large", "huge", "dog")
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    write_clips(tmp_path, words[4:])
    small = request("hetero_fusion_net", "raw_clips_small").config.model.encoders
    sizes = ("data.frames=4", "train.epochs=1", "data.batch_size=4")
    flags = [f"--config.{flag}" for flag in sizes]
    flags += [f"--config.data.data_dir={tmp_path}", "--config.data.max_tokens=8"]
    flags.append(f"--config.data.vocabulary={tmp_path}")
    spec = resolve(request("hetero_fusion_net", "raw_clips_small", *flags).config)
    for modality, (_, values) in EXTRACTORS.items():
        name = small[modality].name
        encoder = spec.model.encoders[modality].build()
        path = generated(tmp_path / f"{modality}.safetensors", name, encoder, values)
        flags.append(f"{RAW[modality]}={path}")
    spec = resolve(request("hetero_fusion_net", "raw_clips_small", *flags).config)
    result = train(spec, tmp_path / "run", "a test")
    shown = capsys.readouterr()
    for modality in MODALITIES:
        assert f"{modality}: loaded weights from {tmp_path}" in shown.out + shown.err
    assert "macro_f1_all_classes" in result.runs[0].test.scores
    assert 0 <= result.runs[0].test.scores["mis"] <= 1
