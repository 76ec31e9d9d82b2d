"""Tables of experiments/digits and experiments/av_mnist, from synthetic results."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import sample_results

from mmfusion_jax.results.json_file import write_json
from mmfusion_jax.results.model_result import ModelResult
from mmfusion_jax.results.predictions_file import write_predictions

FOLDER = Path(__file__).parents[1] / "experiments"
STEP_TIME = ("median", "p10", "p90")


CONFIG = {"model": {"encoders": {"image": {}, "audio": {}}}}


@pytest.fixture
def script(monkeypatch):
    """The names that a script defines."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    return lambda name: runpy.run_path(str(FOLDER / name / "table.py"))


def entry(accuracy, step_s=0.1, **more):
    """A trained model whose scores are these."""
    sample = sample_results.entry(accuracy)
    scores = {"accuracy": accuracy, "macro_f1": accuracy / 2, **more}
    return sample | {
        "test": {"scores": scores},
        "last": {"scores": scores},
        "valid": {"scores": {**scores, "accuracy": accuracy + 0.1}},
        "parameters": {"total": 1234, "components": {"head": 1234}},
        "times": sample["times"] | {"step_s": dict.fromkeys(STEP_TIME, step_s)},
    }


def model(accuracy, step_s=0.1, **more) -> ModelResult:
    return msgspec.convert(entry(accuracy, step_s, **more), ModelResult)


def test_a_row_of_av_mnist_is_of_all_seeds(script):
    found = script("av_mnist")
    two = model(0.6, 0.3, mis=0.5), model(0.8, 0.1, mis=0.7)
    configs = dict.fromkeys(("hetero", "image"), CONFIG)
    rows = found["table"](configs, {"hetero": two, "image": [model(0.4)]})
    first, second = found["markdown"](rows).splitlines()[2:]
    assert first == (
        "| Hetero-Fusion-Net | audio, image | 0.700 ± 0.141 | 0.800 ± 0.141 | "
        "0.350 ± 0.071 | 0.600 ± 0.141 | 1,234 | 200 ms | 2 |"
    )
    assert "| 0.400 | 0.500 | 0.200 | not defined |" in second


def test_seeds_count_where_all_rows_are_finished(script, tmp_path):
    found = script("av_mnist")
    rows = list(found["ROWS"])
    assert not any(found["finished"](rows, tmp_path).values())
    for seed, keys in enumerate([rows, ["image"]]):
        for key in keys:
            folder = tmp_path / key / f"seed_{seed}"
            write_json(folder / "run.json", entry(0.5 + seed / 10))
    assert found["finished"](rows, tmp_path) == {key: [model(0.5)] for key in rows}


def test_rows_of_av_mnist_are_trained_briefly(script, monkeypatch):
    monkeypatch.chdir(FOLDER.parent)
    found = script("av_mnist")
    configs = found["configs"](max_train_pairs=20, epochs=2)
    assert list(configs) == list(found["ROWS"])
    for config in configs.values():
        assert (
            config.data.max_train_pairs,
            config.data.cache_in_memory,
            config.train.epochs,
        ) == (
            20,
            True,
            2,
        )


def test_results_of_av_mnist_are_side_by_side(script, tmp_path):
    found = script("av_mnist")
    budgets = [("", 16000, 1, {"mean": 0.5, "std": 0.1}, 3)]
    budgets += [("_3_epochs", 0, 3, {"mean": 0.6, "std": None}, 1)]
    for suffix, pairs, epochs, accuracy, seeds in budgets:
        assert found["budget_suffix"](epochs) == suffix
        row = {"model": "image only", "test_accuracy": accuracy, "seeds": seeds}
        details = {"max_train_pairs": pairs, "epochs": epochs}
        found["write"](tmp_path / f"results{suffix}.json", [row], **details)
    lines = found["side_by_side"](tmp_path).splitlines()
    assert lines[0] == (
        "| model | 1 epoch of 16,000 pairs, 3 seeds | 3 epochs of all pairs, 1 seed |"
    )
    assert lines[2] == "| image only | 0.500 ± 0.100 | 0.600 |"
    assert lines[3] == "| audio only | not defined | not defined |"


def test_three_epochs_of_av_mnist_do_not_replace_500_steps(script, monkeypatch):
    found = script("av_mnist")
    asked = {}
    for words in ([], ["--seeds=1", "--epochs=3"]):
        monkeypatch.setattr(sys, "argv", ["table.py", *words])
        options = found["parse_options"]()
        asked[str(options.runs)] = (
            options.seeds,
            options.epochs,
            options.max_train_pairs,
        )
    assert asked == {
        "runs/av_mnist": (3, 1, 16000),
        "runs/av_mnist_3_epochs": (1, 3, 0),
    }


def score(mean):
    return {"mean": mean, "std": 0.01}


def paper(name, accuracy, late, difference, simple, **alone):
    """A row of the digits."""
    runs = {"model": accuracy, "late fusion": late, **alone}
    sizes = {"parameters": 1234, "wall_s": 60.0, "seeds": [0, 1], "modalities": alone}
    return {
        "model": name,
        "state": "finished",
        "runs": {
            run: {"test": {"accuracy": score(mean)}, "valid": score(mean), **sizes}
            for run, mean in runs.items()
        },
        "best unimodal": max(alone, key=lambda name: alone[name]),
        "simple classifiers": simple,
        "difference": {
            "value": difference,
            "low": difference - 0.01,
            "high": difference + 0.01,
            "p_examples": 0.04,
            "p_seeds": 0.001,
        },
    }


def test_a_model_of_the_digits_is_beside_its_baselines(script):
    found = script("digits")
    better = paper("cfn_sr", 0.9, 0.8, 0.1, 0.805, audio=0.6, video=0.7)
    worse = paper("mea", 0.7, 0.8, -0.1, 0.9125, audio=0.6, text=0.65)
    missing = {**worse, "model": "mcl_mcf", "state": "not run", "difference": None}
    better["product of encoders"] = {"mean": 0.95, "std": 0.02, "n": 2}
    rows = found["adjusted"]([better, worse, missing])
    # Holm: the smaller of two p values is doubled; the rows of the file keep theirs.
    assert rows[0]["difference"]["p_seeds"] == 0.002
    assert rows[0]["difference"]["p_examples"] == 0.08
    assert better["difference"]["p_seeds"] == 0.001
    lines = found["markdown"](rows).splitlines()
    first, second, third = lines[2:5]
    assert first == (
        "| cfn_sr | audio, video | 0.900 ± 0.010 | 0.900 ± 0.010 | 0.800 ± 0.010 | "
        "video: 0.700 ± 0.010 | 0.950 ± 0.020 | 0.805 | +0.100 | +0.090 to +0.110 | "
        "0.080 | 0.002 | not defined | not defined | 1,234 | 1.0 min | 2 |"
    )
    assert "| -0.100 |" in second and "text: 0.650" in second
    assert third.startswith("| mcl_mcf |  | not run | ")
    assert lines[-3:] == [
        "- cfn_sr is below the product of its own encoders, each trained alone, by "
        "0.050.",
        "- mea is below late fusion of its own encoders by 0.100, significant over the "
        "seeds only.",
        "- mea is below the product of simple classifiers by 0.213.",
    ]


def test_a_paper_without_runs_keeps_its_row(script, tmp_path):
    found, path = script("digits"), tmp_path / "results.json"
    old = paper("mea", 0.7, 0.8, -0.1, 0.9125, audio=0.6, text=0.65)
    none = {"model": "mea", "state": "not run", "runs": {}, "difference": None}
    assert found["with_earlier"]([none], path) == [none]
    write_json(path, {"table": [old, none | {"model": "cfn_sr"}], "level": 0.05})
    new = paper("cfn_sr", 0.9, 0.8, 0.1, 0.805, audio=0.6, video=0.7)
    kept = found["with_earlier"]([none, new, none | {"model": "mcl_mcf"}], path)
    assert [row["state"] for row in kept] == ["finished", "finished", "not run"]
    assert kept[0]["runs"] == old["runs"] and kept[1] == new


def test_the_product_of_encoders_multiplies_their_probabilities(script, tmp_path):
    found = script("digits")
    truth, names = np.array([0, 1, 0, 1]), ["a", "b", "c", "d"]
    sure = np.array([[4.0, 0], [0, 1], [4, 0], [1, 0]])
    other = np.array([[0, 3.0], [0, 1], [0, 1], [0, 2]])
    runs = []
    for modality, logits in {"audio": sure, "video": other}.items():
        folder = tmp_path / modality
        folder.mkdir()
        write_predictions(folder, names, truth, logits)
        result = SimpleNamespace(runs=[SimpleNamespace(seed=0, folder=".")])
        runs.append(SimpleNamespace(folder=folder, result=lambda one=result: one))
    product = found["product_of_encoders"](runs)
    assert product == {"mean": 1.0, "std": None, "n": 1}
    (tmp_path / "video" / "predictions.json").unlink()
    assert found["product_of_encoders"](runs) is None


def test_runs_of_the_digits_are_a_model_and_its_own_encoders(script, tmp_path):
    found = script("digits")
    for name in found["PAPERS"]:
        runs = found["paper_runs"](name, tmp_path)
        modalities = runs["model"].modalities
        assert set(runs) == {"model", "late fusion", *modalities}
        assert set(runs["late fusion"].modalities) == set(modalities)
        assert all(runs[m].modalities == (m,) for m in modalities)
        assert len({run.folder for run in runs.values()}) == len(runs)
        row = found["paper_row"](name, runs)
        assert row["state"] == "not run" and row["runs"] == {}
