"""Training state, step, loop, parallelism, evaluation and checkpoints."""
