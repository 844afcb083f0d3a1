"""What is to be synthesized, and the token sequence that asks a model for it."""

from dataclasses import dataclass, replace

from jaxtyping import Int
from torch import Tensor

from cat_tts import SamplingOptions, TTSConfig
from cat_tts.generation.continuation import Continuation
from cat_tts.sequences.formats import PromptSequence, build_prompt
from cat_tts.text.tokenizers import TextTokenizer
from inference.engine.options import Mode, SynthesisOptions, in_one_line
from inference.voices.voice import Voice


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that determines a result, validated for a model."""

    text: str
    voice: Voice
    options: SynthesisOptions
    """With a depth and sampling options."""
    min_frames: int
    """The model may not stop before this many frames."""
    max_frames: int
    forced_codes: Int[Tensor, "t k"] | None = None
    """Codes of the first codebooks that are already decided."""

    @property
    def depth(self) -> int:
        """Number of codebooks."""
        assert self.options.depth is not None
        return self.options.depth

    @property
    def seed(self) -> int:
        """Determines the sampling noise."""
        return self.options.seed

    @property
    def sampling(self) -> SamplingOptions:
        """How codes are drawn."""
        assert self.options.sampling is not None
        return self.options.sampling

    def changed(self, **options: object) -> "Request":
        """Return this request with other options, such as another seed."""
        return replace(self, options=replace(self.options, **options))


def request_prompt(config: TTSConfig, text_tokenizer: TextTokenizer, request: Request) -> PromptSequence:
    """Build the sequence before the first new frame.

    Args:
        config: Configuration of the TTS model.
        text_tokenizer: Tokenizer of the model's text.
        request: What is to be synthesized.

    Returns:
        Rows [n, c] with text, prompt and special tokens, in the format of the request's mode, and their
        positions [n], where text advances at the speaking rate of the prompt.
    """
    return build_prompt(
        config,
        text_tokenizer,
        request.text,
        request.voice.codes,
        prompt_text=request.voice.text,
        reference=request.options.mode == "reference",
    )


def continuation(config: TTSConfig, text_tokenizer: TextTokenizer, request: Request) -> Continuation:
    """Convert a request to the input of the frame decoder.

    Args:
        config: Configuration of the TTS model.
        text_tokenizer: Tokenizer of the model's text.
        request: What is to be synthesized.

    Returns:
        The rows with their positions, where text advances at the speaking rate of the prompt, and the limits
        and sampling options of the request.
    """
    prompt = request_prompt(config, text_tokenizer, request)
    return Continuation(
        rows=prompt.rows,
        positions=prompt.positions,
        depth=request.depth,
        seed=request.seed,
        options=request.sampling,
        min_frames=request.min_frames,
        max_frames=request.max_frames,
        forced=request.forced_codes,
    )


def check_texts(text: str, prompt_text: str, mode: Mode = "continuation") -> None:
    """Refuse texts that no model can synthesize.

    Args:
        text: What is to be spoken.
        prompt_text: Transcript of the prompt; only the continuation mode needs it.
        mode: How the model uses the prompt.

    Raises:
        ValueError: `text` has no letter or digit, or the prompt text is missing.
    """
    for name, value in (("text", text), ("prompt text", prompt_text)):
        if not isinstance(value, str):
            raise ValueError(f"the {name} is {in_one_line(value)}: give a string")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"the {name} {value!r} is no Unicode text: half of a character stands alone")
    if not text.strip():
        raise ValueError("the text is empty: write what shall be spoken")
    if not any(character.isalnum() for character in text):
        raise ValueError(f"the text {text!r} has no letter or digit: there is nothing to speak")
    if mode == "continuation" and not prompt_text.strip():
        raise ValueError("the prompt text is empty: write what the prompt says")
