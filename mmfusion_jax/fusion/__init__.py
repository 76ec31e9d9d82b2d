"""Fusion blocks, which map streams to streams."""
