"""The training of the audio tokenizer: recipes, set-up, batches, model with heads, losses, monitor."""
