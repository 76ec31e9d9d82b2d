"""Parameter counts, computational cost, gradients of single loss terms."""
