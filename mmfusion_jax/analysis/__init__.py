"""Looking inside: parameter counts, costs, gradients of single terms."""
