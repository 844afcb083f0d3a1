"""CAT-TTS: text and the codes of a prompt in, the codes of new speech out. Never touches a waveform."""

from cat_tts.config import TTSConfig
from cat_tts.decoder import Continuation, FrameDecoder
from cat_tts.generate import generate
from cat_tts.model import CatTTS
from cat_tts.sampling import SamplingOptions

__all__ = ["CatTTS", "Continuation", "FrameDecoder", "SamplingOptions", "TTSConfig", "generate"]
