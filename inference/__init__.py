"""Use CAT-TTS: clone a voice from Python or from the command line."""

from inference.synthesizer import Synthesizer, Take

__all__ = ["Synthesizer", "Take"]
