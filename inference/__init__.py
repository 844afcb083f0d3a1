"""Use CAT-TTS: clone a voice from Python or from the command line."""

from inference.request import Request
from inference.synthesizer import Synthesizer
from inference.take import Take, TakeStream
from inference.voice import Voice

__all__ = ["Request", "Synthesizer", "Take", "TakeStream", "Voice"]
