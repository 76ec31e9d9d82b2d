"""Parametric pieces used in several rooms."""
