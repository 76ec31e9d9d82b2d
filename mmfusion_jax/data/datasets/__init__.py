"""Loaders, one module or package for each data set."""
