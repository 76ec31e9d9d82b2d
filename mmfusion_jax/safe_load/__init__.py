"""Reading of untrusted files: pickles, PyTorch files, npz, and a sandbox process."""
