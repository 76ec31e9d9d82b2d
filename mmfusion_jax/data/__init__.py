"""Data sets: from files to padded, masked examples addressed by the step number."""

DATASETS = {}
