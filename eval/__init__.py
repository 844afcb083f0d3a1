"""Measure it: how well speech survives the tokenizer, and how well the TTS model reads and imitates."""
