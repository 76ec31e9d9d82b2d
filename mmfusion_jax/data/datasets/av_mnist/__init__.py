"""AV-MNIST: images of handwritten digits paired with spoken digits."""
