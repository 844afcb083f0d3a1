"""CAT: a causal audio tokenizer. Waveform to residual codes and back, at any depth, exactly streaming."""

from tokenizer.audio import AudioError, load_audio, save_audio
from tokenizer.config import TokenizerConfig
from tokenizer.model import AudioTokenizer

__all__ = ["AudioError", "AudioTokenizer", "TokenizerConfig", "load_audio", "save_audio"]
