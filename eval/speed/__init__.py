"""Speed of generation, of the codec and of training steps, against reference implementations."""
