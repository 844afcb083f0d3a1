"""The training of a TTS model: recipes, set-up, batches, initialization, LoRA, samples, monitor."""
