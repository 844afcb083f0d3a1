"""Use CAT-TTS: clone a voice from Python or from the command line."""

from inference.engine.options import RetryPolicy, SynthesisOptions
from inference.engine.request import Request
from inference.engine.result import SynthesisResult
from inference.longform.stream import SynthesisStream
from inference.synthesis.attempts import SynthesisFailed
from inference.synthesizer import Synthesizer
from inference.voices.voice import Voice

__all__ = [
    "Request",
    "RetryPolicy",
    "SynthesisFailed",
    "SynthesisOptions",
    "SynthesisResult",
    "SynthesisStream",
    "Synthesizer",
    "Voice",
]
