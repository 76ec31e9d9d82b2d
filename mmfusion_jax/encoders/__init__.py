"""One modality: raw array and mask to Tokens."""
