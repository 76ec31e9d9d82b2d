"""Loaders, one module or package for each dataset."""
