"""A voice is an encoded prompt; the costly parts of its preparation are cached for later requests."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from jaxtyping import Float, Int
from torch import Tensor

from cat_tts import TTSConfig
from inference.voices.decoder_adaptation import adapt_decoder, adaptation_shape
from inference.voices.prompt_audio import Preparation, PromptAudio, load_prompt
from tokenizer import AudioTokenizer
from tokenizer.discriminators import Discriminators
from tokenizer.layers.streaming import StreamCache

Value = TypeVar("Value")
MAX_CACHED_PROMPTS = 256
"""Prompts whose codes are cached."""
MAX_CONTEXT_BYTES = 2**28
"""Size of the cached audio decoder states after prompts."""


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A prompt as the model reads it: a plain value for requests of every depth."""

    codes: Int[Tensor, "t k"]
    """All codebooks of the model, on the CPU."""
    text: str = ""
    """The transcript; only the reference mode works without."""
    audio: Float[Tensor, " s"] | None = field(default=None, repr=False, compare=False)
    """The recording that was encoded, at the tokenizer's sample rate; None where only codes are known. It is
    used only to adapt the audio decoder, which otherwise decodes without adaptation."""
    decoder_adaptation: Float[Tensor, "o d"] | None = field(default=None, repr=False, compare=False)
    """What this voice adds to the decoder's last projection, where that is known without a recording."""

    @property
    def key(self) -> str:
        """The hash of the codes, which names them."""
        return content_key(self.codes)


def content_key(tensor: Tensor) -> str:
    """Return a hash that is equal for two tensors if and only if their types, shapes and values are equal."""
    head = f"{tensor.dtype} {tuple(tensor.shape)} "
    return hashlib.sha256(head.encode() + tensor.contiguous().numpy().tobytes()).hexdigest()


@dataclass
class _Entry(Generic[Value]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Value | None = None
    size: int = 0


class RecentCache(Generic[Value]):
    """A thread-safe cache of values that are costly to create, which evicts the least recently used.

    Threads that request the same value at once wait for one of them to create it; others are not delayed.
    The newest value is kept even where it alone exceeds the limit.
    """

    def __init__(
        self, limit: int, size: Callable[[Value], int], release: Callable[[Value], object] | None = None
    ) -> None:
        """Create an empty cache.

        Args:
            limit: Largest sum of the sizes of all values.
            size: Returns the size of a value.
            release: Called with each value that was evicted.
        """
        self.limit, self.misses, self.hits = limit, 0, 0
        """`misses` counts the values that were created, `hits` the requests that found one."""
        self._size, self._release, self._lock = size, release, threading.Lock()
        self._entries: OrderedDict[object, _Entry[Value]] = OrderedDict()

    def get(self, key: object, create: Callable[[], Value]) -> Value:
        """Return the value of a key, and create it where it is missing.

        Args:
            key: What identifies the value.
            create: Returns the value; its errors are passed on, and then nothing is cached.

        Returns:
            The cached or the created value.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        with entry.lock:
            if entry.value is None:
                try:
                    entry.value = create()
                except BaseException:
                    with self._lock:
                        self._entries.pop(key, None)
                    raise
                entry.size = self._size(entry.value)
                self.misses += 1
            else:
                self.hits += 1
            value = entry.value
        evicted: list[Value] = []
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            total = sum(entry.size for entry in self._entries.values())
            for old_key, oldest in list(self._entries.items())[:-1]:
                if total > self.limit and oldest.value is not None:  # None is being created
                    del self._entries[old_key]
                    total -= oldest.size
                    evicted.append(oldest.value)
        if self._release is not None:
            for old_value in evicted:
                self._release(old_value)
        return value

    def __len__(self) -> int:
        return len(self._entries)


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
        self.max_seconds = config.max_prompt_frames / tokenizer.config.frame_rate
        self.prompts: RecentCache[Int[Tensor, "t k"]] = RecentCache(MAX_CACHED_PROMPTS, lambda codes: 1)
        self.adaptations: RecentCache[Float[Tensor, "o d"]] = RecentCache(
            MAX_CACHED_PROMPTS, lambda adaptation: 1
        )
        self.contexts: RecentCache[StreamCache] = RecentCache(MAX_CONTEXT_BYTES, lambda cache: cache.nbytes)

    def encode_prompt(self, prompt: PromptAudio, text: str) -> Voice:
        """Encode a prompt, or find it in the cache by its content.

        Args:
            prompt: A recording, as a path or as samples [s] with their rate.
            text: Its transcript.

        Returns:
            The voice, with its recording.

        Raises:
            AudioError: the recording cannot be used as a prompt.
        """
        audio = load_prompt(prompt, self.tokenizer.config.sample_rate, self.preparation, self.max_seconds)

        def encode() -> Int[Tensor, "t k"]:
            encoder = self.load_encoder()
            return encoder.encode(self._on_device(audio[None]), self.config.num_codebooks)[0].cpu()

        return Voice(codes=self.prompts.get(content_key(audio), encode), text=text, audio=audio)

    def validate(self, voice: Voice) -> Voice:
        """Return the voice if it fits the model.

        Raises:
            ValueError: the voice was encoded for another model.
        """
        frames, codebooks = voice.codes.shape
        max_frames, size = self.config.max_prompt_frames, self.config.codebook_size
        if not 1 <= frames <= max_frames or codebooks != self.config.num_codebooks:
            raise ValueError(
                f"a voice of {frames} frames with {codebooks} codes: this model takes 1 to {max_frames} with "
                f"{self.config.num_codebooks}; make it of its prompt with this model"
            )
        if not 0 <= int(voice.codes.min()) <= int(voice.codes.max()) < size:
            raise ValueError(f"a voice with codes beyond {size - 1}: make it of its prompt with this model")
        if voice.decoder_adaptation is not None and tuple(voice.decoder_adaptation.shape) != adaptation_shape(
            self.tokenizer
        ):
            raise ValueError("a voice adapted to another decoder: make it of its prompt again")
        return voice

    def decoder_adaptation(self, voice: Voice) -> Float[Tensor, "o d"] | None:
        """Return what the voice adds to the decoder's last projection; a new recording takes about a second.

        Args:
            voice: A voice of this model.

        Returns:
            A matrix [o, d]; None where the voice has no recording, or the decoder does not end in a vocoder.
        """
        audio = voice.audio
        if voice.decoder_adaptation is not None or audio is None or adaptation_shape(self.tokenizer) is None:
            return voice.decoder_adaptation
        key = voice.key, content_key(audio)
        return self.adaptations.get(
            key, lambda: adapt_decoder(self.tokenizer, voice.codes, audio, self.discriminators)
        )

    def context(self, voice: Voice, depth: int) -> StreamCache:
        """Return the state of the audio decoder after the prompt, where new frames continue without a seam.

        Args:
            voice: A voice of this model.
            depth: Number of codebooks of the prompt that are decoded.

        Returns:
            A snapshot for one signal.
        """
        adaptation = self.decoder_adaptation(voice)

        def decode() -> StreamCache:
            cache = self.tokenizer.decoder_cache(1)
            if adaptation is not None:
                cache.set_adaptation(0, self._on_device(adaptation))
            self.tokenizer.decode(self._on_device(voice.codes[None, :, :depth]), cache)
            return cache.snapshot()

        adaptation_key = None if adaptation is None else content_key(adaptation)
        return self.contexts.get((voice.key, adaptation_key, depth), decode)

    def _on_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(next(self.tokenizer.parameters()).device)
