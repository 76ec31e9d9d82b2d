"""Files of a work folder: their dataclasses, one reader and one writer."""

from typing import TYPE_CHECKING

from mmfusion_jax.lazy import attach, by_name

PUBLIC = by_name(
    (
        "mmfusion_jax.results.calibration_file:Calibration",
        "mmfusion_jax.results.calibration_file:read_calibration",
        "mmfusion_jax.results.experiment_result:ExperimentResult",
        "mmfusion_jax.results.experiment_result:MeanStd",
        "mmfusion_jax.results.experiment_result:RunResult",
        "mmfusion_jax.results.experiment_result:read_result",
        "mmfusion_jax.results.model_result:Evaluation",
        "mmfusion_jax.results.model_result:ModelResult",
        "mmfusion_jax.results.model_result:read_run",
        "mmfusion_jax.results.predictor_file:PredictorInfo",
        "mmfusion_jax.results.predictor_file:Preprocessing",
        "mmfusion_jax.results.data_evaluation:DataEvaluation",
        "mmfusion_jax.results.data_evaluation:ScoreInterval",
        "mmfusion_jax.results.predictor_file:Clipping",
        "mmfusion_jax.results.predictor_file:Scaling",
        "mmfusion_jax.results.predictor_file:read_predictor",
        "mmfusion_jax.results.run_identity:RunIdentity",
        "mmfusion_jax.results.metrics_file:MetricsLine",
        "mmfusion_jax.results.metrics_file:read_metrics",
        "mmfusion_jax.results.predictions_file:Predictions",
        "mmfusion_jax.results.predictions_file:read_predictions",
    )
)
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax.results.calibration_file import Calibration as Calibration
    from mmfusion_jax.results.calibration_file import (
        read_calibration as read_calibration,
    )
    from mmfusion_jax.results.data_evaluation import DataEvaluation as DataEvaluation
    from mmfusion_jax.results.data_evaluation import ScoreInterval as ScoreInterval
    from mmfusion_jax.results.experiment_result import (
        ExperimentResult as ExperimentResult,
    )
    from mmfusion_jax.results.experiment_result import MeanStd as MeanStd
    from mmfusion_jax.results.experiment_result import RunResult as RunResult
    from mmfusion_jax.results.experiment_result import read_result as read_result
    from mmfusion_jax.results.metrics_file import MetricsLine as MetricsLine
    from mmfusion_jax.results.metrics_file import read_metrics as read_metrics
    from mmfusion_jax.results.model_result import Evaluation as Evaluation
    from mmfusion_jax.results.model_result import ModelResult as ModelResult
    from mmfusion_jax.results.model_result import read_run as read_run
    from mmfusion_jax.results.predictions_file import Predictions as Predictions
    from mmfusion_jax.results.predictions_file import (
        read_predictions as read_predictions,
    )
    from mmfusion_jax.results.predictor_file import Clipping as Clipping
    from mmfusion_jax.results.predictor_file import PredictorInfo as PredictorInfo
    from mmfusion_jax.results.predictor_file import Preprocessing as Preprocessing
    from mmfusion_jax.results.predictor_file import Scaling as Scaling
    from mmfusion_jax.results.predictor_file import read_predictor as read_predictor
    from mmfusion_jax.results.run_identity import RunIdentity as RunIdentity
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
