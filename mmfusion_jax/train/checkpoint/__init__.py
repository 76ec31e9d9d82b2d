"""Checkpoints: saving, restoring, checksums."""
