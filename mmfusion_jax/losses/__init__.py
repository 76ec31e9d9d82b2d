"""Loss terms, and the objective that weighs and adds them."""
