"""CAT-TTS: text and the codes of a prompt in, the codes of new speech out. Never touches a waveform."""

from cat_tts.config import TTSConfig
from cat_tts.generation.continuation import Continuation
from cat_tts.generation.frame_decoder import FrameDecoder
from cat_tts.generation.generate import generate
from cat_tts.generation.sampling import SamplingOptions
from cat_tts.model.tts import CatTTS

__all__ = ["CatTTS", "Continuation", "FrameDecoder", "SamplingOptions", "TTSConfig", "generate"]
