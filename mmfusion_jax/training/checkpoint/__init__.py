"""Saves and restores checkpoints and verifies their checksums."""
