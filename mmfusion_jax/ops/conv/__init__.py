"""Convolutions and pooling with CPU implementations."""
