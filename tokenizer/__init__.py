"""CAT, a causal audio tokenizer: waveform to residual codes and back, at any depth, exactly streaming."""

from tokenizer.codes.cat_file import read_codes, write_codes
from tokenizer.codes.coded_audio import CodedAudio, CodesError, decode_audio, encode_audio
from tokenizer.config import TokenizerConfig
from tokenizer.io.audio import AudioError, load_audio, save_audio
from tokenizer.model import AudioTokenizer

__all__ = [
    "AudioError",
    "AudioTokenizer",
    "CodedAudio",
    "CodesError",
    "TokenizerConfig",
    "decode_audio",
    "encode_audio",
    "load_audio",
    "read_codes",
    "save_audio",
    "write_codes",
]
