"""A voice is an encoded prompt; what was costly to make of a prompt is kept for the next take."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from jaxtyping import Float, Int
from torch import Tensor

from cat_tts import TTSConfig
from inference.voices.decoder_adaptation import timbre_of, timbre_shape
from inference.voices.prompt_audio import Preparation, PromptAudio, load_prompt
from tokenizer import AudioTokenizer
from tokenizer.discriminators import Discriminators
from tokenizer.layers.streaming import StreamCache

Made = TypeVar("Made")
KEPT_PROMPTS = 256
"""Prompts whose codes are kept."""
KEPT_CONTEXT_BYTES = 2**28
"""Bytes of audio decoder states behind prompts that are kept."""


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A prompt as the model reads it. A plain value, that takes of every depth begin from."""

    codes: Int[Tensor, "t k"]
    """All codebooks of the model, on the CPU."""
    text: str = ""
    """The transcript; only the reference mode does without."""
    audio: Float[Tensor, " s"] | None = field(default=None, repr=False, compare=False)
    """What was encoded, at the tokenizer's sample rate; None where only codes are known. A decoder that can
    be is tuned to it, and nothing else asks for it: without, takes sound as the decoder has them."""
    timbre: Float[Tensor, "o d"] | None = field(default=None, repr=False, compare=False)
    """What this voice adds to the decoder's last projection, where that is known without a recording."""

    @property
    def key(self) -> str:
        """Names the codes by their content."""
        return content_key(self.codes)


def content_key(tensor: Tensor) -> str:
    """The same for two tensors if and only if they hold the same."""
    head = f"{tensor.dtype} {tuple(tensor.shape)} "
    return hashlib.sha256(head.encode() + tensor.contiguous().numpy().tobytes()).hexdigest()


@dataclass
class _Entry(Generic[Made]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Made | None = None
    size: int = 0


class Recent(Generic[Made]):
    """Values that are costly to make, the most recently used of them kept, up to `limit` in all.

    Threads that ask for the same value at once wait for one of them to make it; others are not held up.
    The newest value is kept even where it alone is above the limit. `let_go` is told of each that is not.
    """

    def __init__(
        self, limit: int, size: Callable[[Made], int], let_go: Callable[[Made], object] | None = None
    ) -> None:
        self.limit, self.made, self.used = limit, 0, 0
        """`made` counts the values made, `used` the times that one was there already."""
        self._size, self._let_go, self._lock = size, let_go, threading.Lock()
        self._entries: OrderedDict[object, _Entry[Made]] = OrderedDict()

    def of(self, key: object, make: Callable[[], Made]) -> Made:
        """The value of `key`; what `make` raises is raised, and nothing is kept."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        with entry.lock:
            if entry.value is None:
                try:
                    entry.value = make()
                except BaseException:
                    with self._lock:
                        self._entries.pop(key, None)
                    raise
                entry.size = self._size(entry.value)
                self.made += 1
            else:
                self.used += 1
            value = entry.value
        gone: list[Made] = []
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            total = sum(entry.size for entry in self._entries.values())
            for name, oldest in list(self._entries.items())[:-1]:
                if total > self.limit and oldest.value is not None:  # None is being made
                    del self._entries[name]
                    total -= oldest.size
                    gone.append(oldest.value)
        if self._let_go is not None:
            for one in gone:
                self._let_go(one)
        return value

    def __len__(self) -> int:
        return len(self._entries)


class Voices:
    """Makes voices of prompts, and remembers what it made.

    `prompts` and `contexts` count what was made and what was there already.
    """

    def __init__(
        self,
        tokenizer: AudioTokenizer,
        config: TTSConfig,
        preparation: Preparation,
        load_encoder: Callable[[], AudioTokenizer] | None = None,
        judge: Discriminators | None = None,
    ) -> None:
        """Where `tokenizer` has no encoder, `load_encoder` brings one for each prompt that is new. The
        decoder is tuned to voices before `judge`."""
        self.judge = judge
        self.load_encoder = load_encoder or (lambda: tokenizer)
        self.tokenizer, self.config, self.preparation = tokenizer, config, preparation
        self.max_seconds = config.max_prompt_frames / tokenizer.config.frame_rate
        self.prompts: Recent[Int[Tensor, "t k"]] = Recent(KEPT_PROMPTS, lambda codes: 1)
        self.timbres: Recent[Float[Tensor, "o d"]] = Recent(KEPT_PROMPTS, lambda timbre: 1)
        self.contexts: Recent[StreamCache] = Recent(KEPT_CONTEXT_BYTES, lambda cache: cache.nbytes)

    def of(self, prompt: PromptAudio, text: str) -> Voice:
        """Encode a prompt that says `text`, or remember it by its content; AudioError for a bad prompt."""
        audio = load_prompt(prompt, self.tokenizer.config.sample_rate, self.preparation, self.max_seconds)

        def encode() -> Int[Tensor, "t k"]:
            encoder = self.load_encoder()
            return encoder.encode(self._on_device(audio[None]), self.config.num_codebooks)[0].cpu()

        return Voice(codes=self.prompts.of(content_key(audio), encode), text=text, audio=audio)

    def checked(self, voice: Voice) -> Voice:
        """The voice; ValueError for one that another model has made."""
        frames, codebooks = voice.codes.shape
        most, size = self.config.max_prompt_frames, self.config.codebook_size
        if not 1 <= frames <= most or codebooks != self.config.num_codebooks:
            raise ValueError(
                f"a voice of {frames} frames with {codebooks} codes: this model takes 1 to {most} with "
                f"{self.config.num_codebooks}; make it of its prompt with this model"
            )
        if not 0 <= int(voice.codes.min()) <= int(voice.codes.max()) < size:
            raise ValueError(f"a voice with codes beyond {size - 1}: make it of its prompt with this model")
        if voice.timbre is not None and tuple(voice.timbre.shape) != timbre_shape(self.tokenizer):
            raise ValueError("a voice with the timbre of another decoder: make it of its prompt again")
        return voice

    def timbre(self, voice: Voice) -> Float[Tensor, "o d"] | None:
        """What the voice adds to the decoder's last projection: a second's work when its recording is new.

        None where it has no recording, or the decoder does not end in a vocoder.
        """
        audio = voice.audio
        if voice.timbre is not None or audio is None or timbre_shape(self.tokenizer) is None:
            return voice.timbre
        key = voice.key, content_key(audio)
        return self.timbres.of(key, lambda: timbre_of(self.tokenizer, voice.codes, audio, self.judge))

    def context(self, voice: Voice, depth: int) -> StreamCache:
        """The audio decoder behind the prompt at `depth`, from where new frames go on without a seam."""
        timbre = self.timbre(voice)

        def decode() -> StreamCache:
            cache = self.tokenizer.decoder_cache(1)
            if timbre is not None:
                cache.tint(0, self._on_device(timbre))
            self.tokenizer.decode(self._on_device(voice.codes[None, :, :depth]), cache)
            return cache.past()

        known = None if timbre is None else content_key(timbre)
        return self.contexts.of((voice.key, known, depth), decode)

    def _on_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(next(self.tokenizer.parameters()).device)
