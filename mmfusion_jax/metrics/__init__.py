"""Metrics: each formula with its name, unit, direction and definition."""

from typing import TYPE_CHECKING

from mmfusion_jax.lazy import attach, by_name

METRIC_FAMILIES = {
    "classification": "mmfusion_jax.metrics.classification:ClassificationMetrics",
    "integration": "mmfusion_jax.metrics.integration_score:IntegrationMetrics",
    "multilabel": "mmfusion_jax.metrics.multilabel:MultilabelMetrics",
    "plain": "mmfusion_jax.metrics.regression:RegressionMetrics",
    "sentiment": "mmfusion_jax.metrics.sentiment:SentimentMetrics",
    "sims": "mmfusion_jax.metrics.sims:SimsMetrics",
}
"""Short name -> import path of the metrics of a label."""

METRICS = {
    "macro_f1_all_classes": "mmfusion_jax.metrics.as_published:MACRO_F1_ALL_CLASSES",
    "macro_precision_all_classes": (
        "mmfusion_jax.metrics.as_published:MACRO_PRECISION_ALL_CLASSES"
    ),
    "macro_recall_all_classes": (
        "mmfusion_jax.metrics.as_published:MACRO_RECALL_ALL_CLASSES"
    ),
    "rmse": "mmfusion_jax.metrics.regression:RMSE",
}
"""Short name -> import path of a metric that a config can add to those of its label."""

PUBLIC = by_name(
    (
        *METRIC_FAMILIES.values(),
        *METRICS.values(),
        "mmfusion_jax.metrics.calibration:conformal_threshold",
        "mmfusion_jax.metrics.calibration:expected_calibration_error",
        "mmfusion_jax.metrics.calibration:fit_temperature",
        "mmfusion_jax.metrics.calibration:reliability",
        "mmfusion_jax.metrics.score_info:ScoreInfo",
        "mmfusion_jax.metrics.integration_score:IntegrationScoreSpec",
        "mmfusion_jax.metrics.integration_score:mis",
        "mmfusion_jax.metrics.functional:accuracy",
        "mmfusion_jax.metrics.functional:corr",
        "mmfusion_jax.metrics.functional:mae",
        "mmfusion_jax.metrics.functional:rmse",
        "mmfusion_jax.metrics.functional:weighted_accuracy",
        "mmfusion_jax.metrics.functional:weighted_f1",
        "mmfusion_jax.metrics.statistics:bootstrap_interval",
        "mmfusion_jax.metrics.statistics:paired_test",
    )
)
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax.metrics.as_published import (
        MACRO_F1_ALL_CLASSES as MACRO_F1_ALL_CLASSES,
    )
    from mmfusion_jax.metrics.as_published import (
        MACRO_PRECISION_ALL_CLASSES as MACRO_PRECISION_ALL_CLASSES,
    )
    from mmfusion_jax.metrics.as_published import (
        MACRO_RECALL_ALL_CLASSES as MACRO_RECALL_ALL_CLASSES,
    )
    from mmfusion_jax.metrics.calibration import (
        conformal_threshold as conformal_threshold,
    )
    from mmfusion_jax.metrics.calibration import (
        expected_calibration_error as expected_calibration_error,
    )
    from mmfusion_jax.metrics.calibration import (
        fit_temperature as fit_temperature,
    )
    from mmfusion_jax.metrics.calibration import (
        reliability as reliability,
    )
    from mmfusion_jax.metrics.classification import (
        ClassificationMetrics as ClassificationMetrics,
    )
    from mmfusion_jax.metrics.functional import accuracy as accuracy
    from mmfusion_jax.metrics.functional import corr as corr
    from mmfusion_jax.metrics.functional import mae as mae
    from mmfusion_jax.metrics.functional import rmse as rmse
    from mmfusion_jax.metrics.functional import weighted_accuracy as weighted_accuracy
    from mmfusion_jax.metrics.functional import weighted_f1 as weighted_f1
    from mmfusion_jax.metrics.integration_score import (
        IntegrationMetrics as IntegrationMetrics,
    )
    from mmfusion_jax.metrics.integration_score import (
        IntegrationScoreSpec as IntegrationScoreSpec,
    )
    from mmfusion_jax.metrics.integration_score import mis as mis
    from mmfusion_jax.metrics.multilabel import MultilabelMetrics as MultilabelMetrics
    from mmfusion_jax.metrics.regression import RMSE as RMSE
    from mmfusion_jax.metrics.regression import RegressionMetrics as RegressionMetrics
    from mmfusion_jax.metrics.score_info import ScoreInfo as ScoreInfo
    from mmfusion_jax.metrics.sentiment import SentimentMetrics as SentimentMetrics
    from mmfusion_jax.metrics.sims import SimsMetrics as SimsMetrics
    from mmfusion_jax.metrics.statistics import bootstrap_interval as bootstrap_interval
    from mmfusion_jax.metrics.statistics import paired_test as paired_test
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
