"""Multimodal fusion in JAX and Flax."""
