"""Use CAT-TTS: clone a voice from Python or from the command line."""

from inference.engine.request import Request
from inference.engine.result import SynthesisResult, SynthesisStream
from inference.synthesis.synthesizer import Synthesizer
from inference.voices.voice import Voice

__all__ = ["Request", "SynthesisResult", "SynthesisStream", "Synthesizer", "Voice"]
