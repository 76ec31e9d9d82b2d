"""Layers that several encoders, fusion blocks or models use."""
