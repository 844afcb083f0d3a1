"""The training of CAT-ASR: recipe, set-up, batches, monitor."""
