"""Changes of training examples: audio, images, text, features, missing modalities."""
