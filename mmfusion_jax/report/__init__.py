"""The report of an experiment: one file that needs nothing else."""

from mmfusion_jax.report.page import write_report

__all__ = ["write_report"]
