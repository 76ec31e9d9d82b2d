"""State, step, devices, loop, evaluation, checkpoints."""
