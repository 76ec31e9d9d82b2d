"""Fusion blocks: streams in, streams out."""
