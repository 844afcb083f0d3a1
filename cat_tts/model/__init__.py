"""CAT-TTS: its two Transformers, code tables that begin with what codes mean, and published checkpoints."""
