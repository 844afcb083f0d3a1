"""Layers of the tokenizer: attention, Transformer stages, the quantizer, stream caches and the vocoder."""
