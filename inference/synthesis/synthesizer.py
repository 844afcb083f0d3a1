"""Text and a prompt in, speech in the prompt's voice out."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from cat_tts import CatTTS, SamplingOptions
from cat_tts.asr.model import CatASR
from cat_tts.generation.int8_linear import Weights, check_weights
from cat_tts.text.tokenizers import TextTokenizer
from inference.device import usable_device
from inference.engine.engine import Engine
from inference.engine.job import Guard, Job
from inference.engine.request import Mode, Request, check_texts, continuation, request_rows
from inference.engine.result import Take, TakeStream
from inference.synthesis.loading import load
from inference.text.duration import usual_limits
from inference.voices.catvoice_file import is_voice_file, known_text, load_voice
from inference.voices.prompt_audio import PLAIN, PUBLISHED, PromptAudio
from inference.voices.voice import Voice, Voices
from tokenizer import AudioTokenizer
from tokenizer.discriminators import Discriminators

MOST_OPEN = 1000
"""Streams of a synthesizer that may be open and unread."""


class Synthesizer:
    """A tokenizer and a TTS model that speak together.

    synthesizer = Synthesizer.from_pretrained()
    wav, sample_rate = synthesizer.clone("Good morning.", "prompt.wav", "What the prompt says.")
    """

    def __init__(
        self,
        tts: CatTTS,
        text: TextTokenizer,
        tokenizer: AudioTokenizer,
        sampling: SamplingOptions | None = None,
        load_encoder: Callable[[], AudioTokenizer] | None = None,
        *,
        weights: Weights = "float",
        listener: CatASR | None = None,
        judge: Discriminators | None = None,
    ) -> None:
        spoken, coded = tts.config, tokenizer.config
        if spoken.num_codebooks > coded.num_codebooks or spoken.codebook_size != coded.codebook_size:
            raise ValueError(
                f"the TTS speaks {spoken.num_codebooks} codebooks of {spoken.codebook_size} codes, "
                f"the tokenizer {coded.num_codebooks} of {coded.codebook_size}: they do not fit"
            )
        self.tts, self.text, self.tokenizer = tts, text, tokenizer
        self.sampling = sampling or SamplingOptions()
        self.weights: Weights = weights
        self.listener = listener
        self._engine: Engine | None = None
        preparation = PLAIN if tts.config.chat is None else PUBLISHED
        self.voices = Voices(tokenizer, tts.config, preparation, load_encoder, judge)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        tokenizer: str | Path | None = None,
        device: str | None = None,
        *,
        low_memory: bool = False,
        weights: Weights = "float",
    ) -> "Synthesizer":
        """Load the embedded model, or a folder or hub id, as `inference.synthesis.loading.load` tells.

        `weights="int8"` makes frames from weights of 8 bits, which on a CPU take half the time or less.
        """
        check_weights(weights, torch.device(usable_device(device)))
        loaded = load(model, tokenizer, device, low_memory)
        parts = loaded.tts, loaded.text, loaded.tokenizer, loaded.sampling, loaded.load_encoder
        return cls(*parts, weights=weights, listener=loaded.listener, judge=loaded.judge)

    @property
    def sample_rate(self) -> int:
        return self.tokenizer.config.sample_rate

    @property
    def max_depth(self) -> int:
        return self.tts.config.num_codebooks

    @property
    def device(self) -> torch.device:
        return self.tts.text_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.tts.text_embedding.weight.dtype

    @property
    def max_prompt_seconds(self) -> float:
        return self.voices.max_seconds

    def voice(self, prompt_audio: PromptAudio | Voice, prompt_text: str = "") -> Voice:
        """Encode a prompt once for many takes; one that was heard lately is not encoded again.

        A prompt that is the path of a `.catvoice` file is read, and says itself what is spoken in it.
        """
        prompt_text = known_text(prompt_audio, prompt_text)
        if isinstance(prompt_audio, Voice):
            return self.voices.checked(prompt_audio)
        if is_voice_file(prompt_audio):
            return load_voice(prompt_audio, self.tokenizer, self.tts.config)
        return self.voices.of(prompt_audio, prompt_text)

    def clone(
        self,
        text: str,
        prompt_audio: PromptAudio | Voice,
        prompt_text: str = "",
        depth: int | None = None,
        seed: int = 0,
        sampling: SamplingOptions | None = None,
    ) -> tuple[Float[np.ndarray, " s"], int]:
        """Speak `text` in the voice of a prompt: samples and rate. `take` has more to set and to tell."""
        take = self.take(text, prompt_audio, prompt_text, depth=depth, seed=seed, sampling=sampling)
        return take.audio, take.sample_rate

    def take(
        self,
        text: str,
        prompt_audio: PromptAudio | Voice,
        prompt_text: str = "",
        *,
        depth: int | None = None,
        seed: int = 0,
        sampling: SamplingOptions | None = None,
        mode: Mode = "continuation",
        max_seconds: float | None = None,
        guard: Guard | None = None,
        on_frame: Callable[[int], object] | None = None,
    ) -> Take:
        """The `stream` of the same, collected; `on_frame` is called with the number of frames so far."""
        request = self.request(
            text,
            prompt_audio,
            prompt_text,
            depth=depth,
            seed=seed,
            sampling=sampling,
            mode=mode,
            max_seconds=max_seconds,
        )
        with self.start(request, guard=guard) as stream:
            for _ in stream:
                if on_frame is not None:
                    on_frame(stream.frames)
        return stream.take

    def stream(
        self,
        text: str,
        prompt_audio: PromptAudio | Voice,
        prompt_text: str = "",
        *,
        depth: int | None = None,
        seed: int = 0,
        sampling: SamplingOptions | None = None,
        mode: Mode = "continuation",
        max_seconds: float | None = None,
        guard: Guard | None = None,
        chunk_frames: int = 1,
    ) -> TakeStream:
        """The audio of a take as it comes, `chunk_frames` at a time; they regroup it, and change no sample.

        What is to be said of the options, `request` says. `guard` may end the take early.
        """
        request = self.request(
            text,
            prompt_audio,
            prompt_text,
            depth=depth,
            seed=seed,
            sampling=sampling,
            mode=mode,
            max_seconds=max_seconds,
        )
        return self.start(request, guard=guard, chunk_frames=chunk_frames)

    def master(self, take: Take, depth: int | None = None) -> Take:
        """The same take at another depth, by default all: the codes that it has stay, deeper ones are added.

        They are drawn with the seed of the take, as if it had been made with them, but for its own codes.
        """
        return replace(self.start(self.mastering(take, depth)).collect(), stop_reason=take.stop_reason)

    def mastering(self, take: Take, depth: int | None = None) -> Request:
        """What `master` asks for."""
        if take.request is None or len(take.codes) == 0:
            raise ValueError("this take does not say what it answers: master the takes that it was made of")
        depth, frames = self._depth(depth), len(take.codes)
        return replace(
            take.request, depth=depth, draft=take.codes[:, :depth], min_frames=frames, max_frames=frames
        )

    def request(
        self,
        text: str,
        prompt_audio: PromptAudio | Voice,
        prompt_text: str = "",
        *,
        depth: int | None = None,
        seed: int = 0,
        sampling: SamplingOptions | None = None,
        mode: Mode = "continuation",
        max_seconds: float | None = None,
    ) -> Request:
        """Check what is asked for and encode the prompt; ValueError for what this model cannot serve.

        `mode` is for the published models, which can also take the prompt as a reference in the user's
        turn; its transcript is not needed then. `max_seconds` replaces the length limit drawn from the
        text, `sampling` the options that suit the model.
        """
        check_texts(text, known_text(prompt_audio, prompt_text), mode)
        depth = self._depth(depth)
        if not -(2**63) <= seed < 2**63:
            raise ValueError(f"seed {seed}: choose a whole number that fits in 64 bits")
        if mode == "reference" and self.tts.config.chat is None:
            raise ValueError("this model only continues prompts: leave the mode at continuation")
        sampling = sampling or self.sampling
        if sampling.guidance != 1 and self.tts.config.chat is not None:
            raise ValueError(
                f"guidance={sampling.guidance}: published models cannot go without their text; give 1"
            )
        least, most = usual_limits(text)
        most = most if max_seconds is None else self._frames(max_seconds)
        request = Request(
            text=text,
            voice=self.voice(prompt_audio, prompt_text),
            depth=depth,
            seed=seed,
            sampling=sampling,
            mode=mode,
            min_frames=least,
            max_frames=most,
        )
        left = self.tts.config.max_positions - len(request_rows(self.tts.config, self.text, request))
        if left < 1:
            raise ValueError(
                f"text and prompt take all {self.tts.config.max_positions} positions: shorten them"
            )
        return replace(request, max_frames=min(most, left))

    def job(self, request: Request, guard: Guard | None = None) -> Job:
        """What an engine needs to make a take."""
        context = None if request.mode == "reference" else self.voices.context(request.voice, request.depth)
        begin = continuation(self.tts.config, self.text, request)
        return Job(continuation=begin, context=context, guard=guard)

    def start(self, request: Request, *, guard: Guard | None = None, chunk_frames: int = 1) -> TakeStream:
        """The stream of a request.

        One take is made at a time: while several streams are open, whichever is read drives the earliest on.
        `inference.synthesis.service` makes many at a time.
        """
        engine = self._one_at_a_time
        ticket = engine.submit(self.job(request, guard))
        return TakeStream(
            request,
            ticket,
            self.tokenizer.config,
            advance=lambda frames: engine.drive(ticket),
            release=engine.let_go,
            chunk_frames=chunk_frames,
        )

    def engine(self, slots: int) -> Engine:
        """One that makes so many takes at a time; the last one that was asked for is kept."""
        if self._engine is None or self._engine.slots != slots:
            models = self.tts, self.tokenizer
            self._engine = Engine(*models, slots=slots, waiting=MOST_OPEN, weights=self.weights)
        return self._engine

    @cached_property
    def _one_at_a_time(self) -> Engine:
        return Engine(self.tts, self.tokenizer, slots=1, waiting=MOST_OPEN, weights=self.weights)

    def _depth(self, depth: int | None) -> int:
        depth = self.max_depth if depth is None else depth
        if not 1 <= depth <= self.max_depth:
            raise ValueError(
                f"depth {depth}: this model has {self.max_depth} codebooks, choose 1 to {self.max_depth}"
            )
        return depth

    def _frames(self, seconds: float) -> int:
        if not 0 < seconds < math.inf:
            raise ValueError(f"a length limit of {seconds} s: give a positive number of seconds")
        return math.ceil(seconds * self.tokenizer.config.frame_rate)
