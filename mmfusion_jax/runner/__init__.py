"""One run of one fold and seed, and whole experiments."""
