"""BERT against the golden arrays and transformers, masks, counts, and its weights."""

import functools
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from golden_msa import load as load_golden
from golden_msa import weights as golden_weights
from loaded_tables import WEIGHT_MAPPINGS

from mmfusion_jax.encoders.bert import Bert
from mmfusion_jax.errors import ConfigError, WeightsError
from mmfusion_jax.weights.convert import load
from mmfusion_jax.weights.torch_checkpoint import InvalidTensorFile, read_torch

SMALL = {"hidden_dim": 24, "num_layers": 2, "num_heads": 4, "mlp_dim": 40}
SMALL |= {"vocab_size": 50, "max_position_embeddings": 16, "dropout": 0.0}
PREFIX = "text_enc.bertmodel."


def inputs(b=3, t=7):
    ids = jax.random.randint(jax.random.key(0), (b, t), 0, 50)
    return ids, jnp.arange(t) < jnp.array([7, 4, 5])[:b, None]


def shapes(model, t=7):
    ids, mask = inputs(1, t)
    init = functools.partial(model.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), ids, mask)


def theirs(golden):
    every = golden_weights(load_golden(golden), "mcl_small")
    return {k.removeprefix(PREFIX): v for k, v in every.items() if k.startswith(PREFIX)}


@pytest.mark.parametrize(
    ("pooled", "count"), [(True, 109_482_240), (False, 108_891_648)]
)
def test_count_of_bert_base(pooled, count):
    tree = shapes(Bert(pooled=pooled))
    assert sum(leaf.size for leaf in jax.tree.leaves(tree)) == count


def test_follows_the_golden_arrays(golden, tmp_path):
    arrays = load_golden(golden)
    file = tmp_path / "bert.safetensors"
    safetensors.numpy.save_file(theirs(golden), file)
    model = Bert(**SMALL)
    loaded = load(WEIGHT_MAPPINGS["bert"], file, shapes(model))
    assert loaded.unused == ("pooler.dense.bias", "pooler.dense.weight")
    ids = arrays["mcl_small/in.ids"]
    assert not arrays["mcl_small/in.types"].any()
    mask = arrays["mcl_small/in.mask"] > 0
    run = jax.jit(functools.partial(model.apply, train=False))
    got = run(loaded.variables, ids, mask).values
    want = np.where(mask[..., None], arrays["mcl_small/act.text_enc"], 0)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.ci
@pytest.mark.parametrize("pooled", [True, False])
def test_agrees_with_transformers(tmp_path, pooled):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=SMALL["vocab_size"],
        hidden_size=SMALL["hidden_dim"],
        num_hidden_layers=SMALL["num_layers"],
        num_attention_heads=SMALL["num_heads"],
        intermediate_size=SMALL["mlp_dim"],
        max_position_embeddings=SMALL["max_position_embeddings"],
    )
    reference, file = transformers.BertModel(config).eval(), tmp_path / "bert.pt"
    torch.save(reference.state_dict(), file)
    model = Bert(**SMALL, pooled=pooled)
    variables = load(WEIGHT_MAPPINGS["bert"], file, shapes(model)).variables
    ids, mask = inputs()
    with torch.no_grad():
        out = reference(
            torch.tensor(np.asarray(ids)), torch.tensor(np.asarray(mask, np.int64))
        )
    got = np.asarray(model.apply(variables, ids, mask, train=False).values)
    want = out.pooler_output[:, None] if pooled else out.last_hidden_state
    want = want.numpy() if pooled else np.where(mask[..., None], want.numpy(), 0)
    assert np.max(np.abs(got - want)) <= 2e-6 * np.max(np.abs(want))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (jnp.zeros((1, 3, 8)), "expects token ids"),
        (jnp.zeros((1, 3, 2), int), "expects token ids"),
        (jnp.zeros((1, 17), int), "17 tokens.*max_position_embeddings=16"),
    ],
)
def test_says_what_it_reads(ids, message):
    with pytest.raises(ConfigError, match=message):
        Bert(**SMALL).init(
            jax.random.key(0), ids, jnp.ones(ids.shape[:2], bool), train=False
        )


# --- Files of weights ----------------------------------------------------------------


def broken(golden, tmp_path, change):
    arrays = dict(theirs(golden))
    change(arrays)
    file = tmp_path / "bert.safetensors"
    safetensors.numpy.save_file(arrays, file)
    return file


def test_a_missing_file_is_an_error_with_the_command(tmp_path):
    with pytest.raises(WeightsError, match=r"(?s)W01.*absent.*save_pretrained"):
        load(
            WEIGHT_MAPPINGS["bert"],
            tmp_path / "absent.safetensors",
            shapes(Bert(**SMALL)),
        )


def test_a_missing_name_is_named(golden, tmp_path):
    name = "encoder.layer.1.attention.self.query.weight"
    file = broken(golden, tmp_path, lambda arrays: arrays.pop(name))
    with pytest.raises(WeightsError, match=rf"W03.*{name}.*layer_1/attention/query"):
        load(WEIGHT_MAPPINGS["bert"], file, shapes(Bert(**SMALL)))


def test_a_wrong_shape_is_named(golden, tmp_path):
    file = broken(golden, tmp_path, lambda arrays: None)
    model = Bert(**{**SMALL, "vocab_size": 51})
    with pytest.raises(WeightsError, match=r"W04.*word_embeddings.*50, 24.*51, 24"):
        load(WEIGHT_MAPPINGS["bert"], file, shapes(model))


def test_older_names_and_prefixes_are_known(golden, tmp_path):
    def older(arrays):
        for name in list(arrays):
            gamma = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            arrays[f"bert.{gamma}"] = arrays.pop(name)

    file = broken(golden, tmp_path, older)
    tree = load(WEIGHT_MAPPINGS["bert"], file, shapes(Bert(**SMALL))).variables
    want = theirs(golden)["encoder.layer.0.output.dense.weight"].T
    got = tree["params"]["layer_0"]["shrink"]["kernel"]
    np.testing.assert_array_equal(got, want)


def test_reads_what_torch_saves(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(12.0).reshape(3, 4)
    held = {
        "plain": base,
        "turned": base.T,
        "part": base[1:, 1:3],
        "half": base.half(),
        "brain": base.bfloat16(),
        "none": torch.zeros(0, 2),
        "number": torch.tensor(3),
        "parameter": torch.nn.Parameter(base),
    }
    file = tmp_path / "held.pt"
    torch.save({"epoch": 3, "state_dict": held}, file)
    got = read_torch(file)
    assert got.keys() == held.keys()
    for name, tensor in held.items():
        want = tensor.detach()
        want = want.float() if want.dtype == torch.bfloat16 else want
        np.testing.assert_array_equal(got[name], want.numpy())


def zipped(tmp_path, stream):
    file = tmp_path / "bad.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("bad/data.pkl", stream)
    return file


@pytest.mark.parametrize(
    "stream",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"Nr\x00\xa3\xe1\x11.",
        b"N.N.",
        b"}.",
        b"",
    ],
)
def test_refuses_what_is_no_tensor(tmp_path, stream):
    with pytest.raises(InvalidTensorFile):
        read_torch(zipped(tmp_path, stream))


def test_a_damaged_file_is_one_error(tmp_path):
    for name, content in ("a.pt", b"PK\x03\x04"), ("a.safetensors", b"\x01\x02"):
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(WeightsError, match="W02"):
            load(WEIGHT_MAPPINGS["bert"], file, shapes(Bert(**SMALL)))


def test_a_file_of_old_pytorch_is_told_apart(tmp_path):
    torch = pytest.importorskip("torch")
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(2)}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"W02.*before 1\.6.*torch\.load\(FILE"):
        load(WEIGHT_MAPPINGS["bert"], file, shapes(Bert(**SMALL)))
