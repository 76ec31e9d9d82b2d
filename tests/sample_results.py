"""JSON values of results, as files of a work folder have them."""

from mmfusion_jax.metrics.classification import ClassificationMetrics
from mmfusion_jax.metrics.score_info import with_loss
from mmfusion_jax.results.json_file import to_json
from mmfusion_jax.results.run_identity import config_sha256

INFOS = with_loss(ClassificationMetrics.infos)
SCORES = {**dict.fromkeys(INFOS, 0.5), "accuracy": 0.75, "loss": 0.25}


def spread(mean: float, n: int = 1) -> dict:
    return {"mean": mean, "std": 0.0 if n == 1 else 0.02, "n": n}


def spreads(evaluation: dict) -> dict:
    return {name: spread(value) for name, value in evaluation["scores"].items()}


CONFIG = {"seed": 7, "model": {"hidden_dim": 64, "blocks": [1, 2]}}


def identity(stage: str = "") -> dict:
    """Data, config, fold and seed of a run."""
    part = {"ids": "a1", "labels": {"digit": "b2"}, "content": "c3"}
    counts = {"train": 1200, "test": 400}
    data = {
        "dataset": "digits",
        "splits": {k: {"count": n, "hashed": n, **part} for k, n in counts.items()},
        "classes": {"digit": ["no", "yes"]},
        "ranges": {},
        "inputs": {"audio": "float32 (63, 13)", "video": "uint8 (16, 32, 32, 1)"},
        "scaling": {"audio": "d4"},
        "vocabulary": "",
    }
    sha256 = config_sha256(CONFIG)
    run = {"fold": 0, "seed": 7, "stage": stage}
    return {**run, "config_sha256": sha256, "data": data}


def predictor() -> dict:
    """What a model needs besides its weights, as `predictor.json` has it."""
    return {
        "title": "digits (embedded)",
        "task": {"label": "digit", "kind": "classification", "classes": ["no", "yes"]},
        "inputs": {
            "audio": {"shape": [63, 13], "dtype": "float32"},
            "video": {"shape": [16, 32, 32, 1], "dtype": "uint8"},
        },
        "labels": {"digit": {"shape": [], "dtype": "int32"}},
        "targets": {},
        "prior": [-0.5, -1.0],
        "preprocessing": {},
        "identity": identity(),
    }


def calibration() -> dict:
    """Calibration of a run, as `calibration.json` has it."""
    rows = [[0.1, 0.2, 0.7]]
    return {"count": 3, "temperature": 1.5, "nonconformity": rows, "test": None}


def entry(accuracy: float, stage: str = "") -> dict:
    """A trained model, as `run.json` has it."""
    step = {"median": 0.07, "p10": 0.06, "p90": 0.08}
    return {
        "model": "cfn_sr",
        "parameters": {"total": 30, "components": {"audio": 10, "head": 20}},
        "step": 40,
        "epoch": 2.0,
        "steps": 80,
        "ended": "early",
        "baseline": {"description": "majority class", "scores": {"accuracy": 0.5}},
        "valid": {"scores": {**SCORES, "accuracy": accuracy + 0.01}},
        "test": {"scores": {**SCORES, "accuracy": accuracy}},
        "last": {"scores": {**SCORES, "accuracy": accuracy - 0.05}},
        "best_test": {"score": accuracy + 0.1, "step": 60, "rank": 0.9},
        "plot_data": {"confusion": [[3, 1], [0, 0]]},
        "skipped_steps": 0,
        "times": {
            "compile_s": 9.5, "step_s": step, "data_stall_fraction": 0.013,
            "evaluate_s": 1.0, "save_s": 1.0, "total_s": 71.0,
        },
        "identity": identity(stage),
        "devices": [{"step": 0, "kind": "cpu", "count": 2}],
    }  # fmt: skip


def result() -> dict:
    """A finished experiment, as `result.json` has it."""
    stages = {"audio": entry(0.5, "audio"), "video": entry(0.6, "video")}
    run = {"fold": 0, "seed": 7, "folder": ".", **entry(0.75), "stages": stages}
    return {
        "command": "python -m mmfusion_jax.main --config=configs/cfn_sr.py",
        "config": CONFIG,
        "config_sha256": config_sha256(CONFIG),
        "data": {
            "name": "digits",
            "title": "digits (embedded)",
            "facts": {"license": "CC0", "warnings": ["made by a machine"]},
            "counts": {"train": 1200, "test": 400},
        },
        "model": {"name": "cfn_sr", "parameters": entry(0)["parameters"]},
        "protocol": "validation",
        "task": {"label": "digit", "kind": "classification", "classes": ["no", "yes"]},
        "selection_metric": "accuracy",
        "metrics": to_json({name: info.shown for name, info in INFOS.items()}),
        "baseline": {
            "description": "majority class: “no”",
            "scores": {"accuracy": spread(0.5)},
        },
        "runs": [run],
        "summary": {
            "test": spreads(run["test"]),
            "last": spreads(run["last"]),
            "best_test": spread(0.85),
            "modality_weights": {},
            "stages": {
                name: {"test": spreads(stage["test"])} for name, stage in stages.items()
            },
        },
        "versions": {"jax": "0.10.2"},
        "git": "58ed261",
        "device": {"kind": "cpu", "platform": "cpu", "count": 2},
        "created": "2026-11-21T10:00:00+00:00",
    }
