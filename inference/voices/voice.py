"""A voice is an encoded prompt; the costly parts of its preparation are cached for later requests."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cat_tts import TTSConfig
from inference.device import thread_count, threads
from inference.voices.decoder_adaptation import adapt_decoder as adapt_decoder_to
from inference.voices.decoder_adaptation import adaptation_shape
from inference.voices.prompt_audio import Preparation, PromptRecording, prepare
from inference.voices.recent_cache import RecentCache
from tokenizer import AudioTokenizer
from tokenizer.codes.coded_audio import fingerprint
from tokenizer.discriminators import Discriminators
from tokenizer.layers.streaming import StreamCache

MAX_CACHED_PROMPTS = 256
"""Prompts whose codes are cached."""
SILENT_FRAMES = 25
MAX_CONTEXT_BYTES = 2**28
"""Size of the cached audio decoder states after prompts."""


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A prompt as the model reads it: a plain value for requests of every depth."""

    codes: Int[Tensor, "t k"]
    """All codebooks of the model, on the CPU."""
    text: str = ""
    """The transcript; only the reference mode works without."""
    decoder_adaptation: Float[Tensor, "o d"] | None = field(default=None, repr=False, compare=False)
    """What this voice adds to the audio decoder's last projection; None decodes without."""

    @cached_property
    def key(self) -> str:
        """The hash of the codes, which names them."""
        return content_key(self.codes)

    @cached_property
    def adaptation_key(self) -> str | None:
        """The hash of the decoder adaptation."""
        return None if self.decoder_adaptation is None else content_key(self.decoder_adaptation)

    def unadapted(self) -> "Voice":
        """Return the voice without its decoder adaptation."""
        return replace(self, decoder_adaptation=None)


def content_key(tensor: Tensor) -> str:
    """Return a hash that is equal for two tensors if and only if their types, shapes and values are equal."""
    head = f"{tensor.dtype} {tuple(tensor.shape)} "
    return hashlib.sha256(head.encode() + tensor.contiguous().numpy().tobytes()).hexdigest()


class Voices:
    """Encodes prompts to voices, and caches their codes, decoder adaptations and decoder states."""

    def __init__(
        self,
        tokenizer: AudioTokenizer,
        config: TTSConfig,
        preparation: Preparation,
        load_encoder: Callable[[], AudioTokenizer] | None = None,
        discriminators: Discriminators | None = None,
    ) -> None:
        """Create empty caches.

        Args:
            tokenizer: The audio tokenizer.
            config: Configuration of the TTS model.
            preparation: How the model expects its prompts.
            load_encoder: Loads the encoder for each new prompt, where `tokenizer` has none.
            discriminators: Used when the decoder is adapted to a voice.
        """
        self.discriminators = discriminators
        self.load_encoder = load_encoder or (lambda: tokenizer)
        self.tokenizer, self.config, self.preparation = tokenizer, config, preparation
        self.threads = thread_count(tokenizer)
        self.max_seconds = config.max_prompt_frames / tokenizer.config.frame_rate
        self.prompts: RecentCache[Int[Tensor, "t k"]] = RecentCache(MAX_CACHED_PROMPTS, lambda codes: 1)
        self.adaptations: RecentCache[Float[Tensor, "o d"]] = RecentCache(
            MAX_CACHED_PROMPTS, lambda adaptation: 1
        )
        self.contexts: RecentCache[StreamCache] = RecentCache(MAX_CONTEXT_BYTES, lambda cache: cache.nbytes)

    def encode(self, recording: PromptRecording, text: str, *, adapt_decoder: bool = True) -> Voice:
        """Encode a prompt, or find it in the cache by its content.

        Args:
            recording: The prompt.
            text: Its transcript.
            adapt_decoder: Whether a decoder that ends in a vocoder is adapted to the recording, which takes
                about a second for a new one.

        Returns:
            The voice.

        Raises:
            AudioError: the recording cannot be used as a prompt.
        """
        with threads(self.threads):
            return self._encode(recording, text, adapt_decoder)

    def _encode(self, recording: PromptRecording, text: str, adapt_decoder: bool) -> Voice:
        audio = prepare(recording, self.tokenizer.config.sample_rate, self.preparation, self.max_seconds)
        audio_key = content_key(audio)

        def encode() -> Int[Tensor, "t k"]:
            encoder = self.load_encoder()
            return encoder.encode(self._on_device(audio[None]), self.config.num_codebooks)[0].cpu()

        codes = self.prompts.get(audio_key, encode)
        adaptation = None
        if adapt_decoder and adaptation_shape(self.tokenizer) is not None:
            adaptation = self.adaptations.get(
                audio_key, lambda: adapt_decoder_to(self.tokenizer, codes, audio, self.discriminators)
            )
        return Voice(codes=codes, text=text, decoder_adaptation=adaptation)

    def validate(self, voice: Voice) -> Voice:
        """Return the voice if it fits the model.

        Raises:
            ValueError: the voice was encoded for another model.
        """
        codes = voice.codes
        if not isinstance(codes, Tensor) or codes.ndim != 2 or codes.is_floating_point():
            raise ValueError("a voice needs whole numbers [t, k] as its codes: load_voice makes them")
        frames, codebooks = codes.shape
        max_frames, size = self.config.max_prompt_frames, self.config.codebook_size
        if not 1 <= frames <= max_frames or codebooks != self.config.num_codebooks:
            raise ValueError(
                f"a voice of {frames} frames with {codebooks} codes: this model takes 1 to {max_frames} with "
                f"{self.config.num_codebooks}; make it of its prompt with this model"
            )
        if not 0 <= int(codes.min()) <= int(codes.max()) < size:
            raise ValueError(f"a voice with codes beyond {size - 1}: make it of its prompt with this model")
        if voice.decoder_adaptation is not None and tuple(voice.decoder_adaptation.shape) != adaptation_shape(
            self.tokenizer
        ):
            raise ValueError("a voice adapted to another decoder: make it of its prompt again")
        return voice

    def context(self, voice: Voice, depth: int) -> StreamCache:
        """Return the state of the audio decoder after the prompt, where new frames continue without a seam.

        Args:
            voice: A voice of this model.
            depth: Number of codebooks of the prompt that are decoded.

        Returns:
            A snapshot for one signal.
        """

        def decode() -> StreamCache:
            cache = self.tokenizer.decoder_cache(1)
            if voice.decoder_adaptation is not None:
                cache.set_adaptation(0, self._on_device(voice.decoder_adaptation))
            with threads(self.threads):
                self.tokenizer.decode(self._on_device(voice.codes[None, :, :depth]), cache)
            return cache.snapshot()

        return self.contexts.get((voice.key, voice.adaptation_key, depth), decode)

    @cached_property
    def silence(self) -> Int[Tensor, "t k"]:
        """Codes of digital silence; a longer one repeats the last frame."""
        encoder = self.load_encoder()
        audio = torch.zeros(1, SILENT_FRAMES * encoder.config.frame_size)
        return encoder.encode(self._on_device(audio), self.config.num_codebooks)[0].cpu()

    @cached_property
    def fingerprint(self) -> bytes:
        """Tells which tokenizer gives codes their meaning."""
        return fingerprint(self.tokenizer)

    @cached_property
    def decoder_hash(self) -> bytes:
        """Eight bytes that distinguish decoders by the projection that adaptations are added to."""
        weight = self.tokenizer.decoder[-1].project_out.get_parameter("weight")
        return hashlib.sha256(weight.detach().float().cpu().contiguous().numpy().tobytes()).digest()[:8]

    def _on_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(next(self.tokenizer.parameters()).device)
