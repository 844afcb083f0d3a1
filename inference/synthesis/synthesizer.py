"""Voice cloning: text and a prompt in, speech in the prompt's voice out."""

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
from inference.engine.job import Guard
from inference.engine.request import Mode, Request
from inference.engine.result import SynthesisResult, SynthesisStream
from inference.synthesis.loading import load
from inference.synthesis.request_builder import RequestBuilder
from inference.voices.prompt_audio import PLAIN, PUBLISHED, PromptAudio
from inference.voices.voice import Voice, Voices
from tokenizer import AudioTokenizer
from tokenizer.discriminators import Discriminators

MAX_OPEN_STREAMS = 1000
"""Streams of a synthesizer that may be open and unread."""


class Synthesizer(RequestBuilder):
    """A TTS model and an audio tokenizer that clone voices.

    synthesizer = Synthesizer.from_pretrained()
    wav, sample_rate = synthesizer.clone("Good morning.", "prompt.wav", "What the prompt says.")
    """

    def __init__(
        self,
        tts: CatTTS,
        text_tokenizer: TextTokenizer,
        tokenizer: AudioTokenizer,
        sampling: SamplingOptions | None = None,
        load_encoder: Callable[[], AudioTokenizer] | None = None,
        *,
        weights: Weights = "float",
        asr_model: CatASR | None = None,
        discriminators: Discriminators | None = None,
    ) -> None:
        """Combine loaded models; `from_pretrained` loads them.

        Args:
            tts: The model that predicts codes.
            text_tokenizer: Tokenizer of its text.
            tokenizer: The audio tokenizer of the same codes.
            sampling: Default sampling options.
            load_encoder: Loads the encoder for each new prompt, where `tokenizer` has none.
            weights: "int8" computes frames with weights of 8 bits, on a CPU.
            asr_model: Scores how intelligible results are.
            discriminators: Used when the audio decoder is adapted to a voice.

        Raises:
            ValueError: the codes of both models differ.
        """
        model, codec = tts.config, tokenizer.config
        if model.num_codebooks > codec.num_codebooks or model.codebook_size != codec.codebook_size:
            raise ValueError(
                f"the TTS speaks {model.num_codebooks} codebooks of {model.codebook_size} codes, "
                f"the tokenizer {codec.num_codebooks} of {codec.codebook_size}: they do not fit"
            )
        preparation = PLAIN if tts.config.chat is None else PUBLISHED
        voices = Voices(tokenizer, tts.config, preparation, load_encoder, discriminators)
        super().__init__(tts, text_tokenizer, tokenizer, sampling or SamplingOptions(), voices)
        self.weights: Weights = weights
        self.asr_model = asr_model
        self._engine: Engine | None = None

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
        """Load the embedded model, or a folder or hub id.

        Args:
            model: A folder or hub id, see `inference.synthesis.loading.load`; None is the embedded model.
            tokenizer: A folder or hub id of the audio tokenizer, where `model` does not contain it.
            device: A torch device name; by default cuda where there is one.
            low_memory: Whether to load the tokenizer's encoder only for new prompts.
            weights: "int8" computes frames with weights of 8 bits, which on a CPU takes half the time or
                less.

        Returns:
            A synthesizer that is ready.

        Raises:
            ValueError: a folder holds no such model, or the device or the weights cannot be used.
        """
        check_weights(weights, torch.device(usable_device(device)))
        loaded = load(model, tokenizer, device, low_memory)
        parts = loaded.tts, loaded.text_tokenizer, loaded.tokenizer, loaded.sampling, loaded.load_encoder
        return cls(*parts, weights=weights, asr_model=loaded.asr_model, discriminators=loaded.discriminators)

    def clone(
        self,
        text: str,
        prompt_audio: PromptAudio | Voice,
        prompt_text: str = "",
        depth: int | None = None,
        seed: int = 0,
        sampling: SamplingOptions | None = None,
    ) -> tuple[Float[np.ndarray, " s"], int]:
        """Speak `text` in the voice of a prompt.

        `synthesize` has more options and returns more; the arguments and errors are those of `request`.

        Returns:
            Samples [s] in [-1, 1], and their rate in Hz.
        """
        result = self.synthesize(text, prompt_audio, prompt_text, depth=depth, seed=seed, sampling=sampling)
        return result.audio, result.sample_rate

    def synthesize(
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
    ) -> SynthesisResult:
        """Speak `text` in the voice of a prompt and return the complete result.

        Args:
            text: What to speak.
            prompt_audio: The prompt, see `voice`.
            prompt_text: Transcript of the prompt.
            depth: Number of codebooks; all by default.
            seed: Determines the sampling noise.
            sampling: Sampling options; by default those that suit the model.
            mode: How the model uses the prompt, see `request`.
            max_seconds: Length limit; by default it is derived from the text.
            guard: A stopping rule that may end the speech early.
            on_frame: Called with the number of frames so far.

        Returns:
            The result: its audio is that of `stream`, sample for sample.

        Raises:
            ValueError: as `request`.
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
        with self.start(request, guard=guard) as stream:
            for _ in stream:
                if on_frame is not None:
                    on_frame(stream.frames)
        return stream.result

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
    ) -> SynthesisStream:
        """Speak `text` in the voice of a prompt and stream the audio while it is synthesized.

        Args:
            text: What to speak.
            prompt_audio: The prompt, see `voice`.
            prompt_text: Transcript of the prompt.
            depth: Number of codebooks; all by default.
            seed: Determines the sampling noise.
            sampling: Sampling options; by default those that suit the model.
            mode: How the model uses the prompt, see `request`.
            max_seconds: Length limit; by default it is derived from the text.
            guard: A stopping rule that may end the speech early.
            chunk_frames: Frames that are returned at a time; this changes no sample.

        Returns:
            The stream.

        Raises:
            ValueError: as `request`.
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

    def extend_depth(self, result: SynthesisResult, depth: int | None = None) -> SynthesisResult:
        """Synthesize a result at another depth: its codes are kept, and codes of deeper codebooks are added.

        They are sampled with the seed of the result, as in a synthesis at that depth whose first codebooks
        happened to be these.

        Args:
            result: What was synthesized at some depth.
            depth: Number of codebooks; all by default.

        Returns:
            The result at the other depth.

        Raises:
            ValueError: the result is empty or was joined from several, or the depth is out of range.
        """
        extended = self.start(self.extension_request(result, depth)).collect()
        return replace(extended, stop_reason=result.stop_reason)

    def start(
        self, request: Request, *, guard: Guard | None = None, chunk_frames: int = 1
    ) -> SynthesisStream:
        """Start to synthesize a request.

        One request runs at a time: while several streams are open, reading any of them advances the earliest.
        `inference.synthesis.service` runs many at a time.

        Args:
            request: What to synthesize.
            guard: A stopping rule that may end it early.
            chunk_frames: Frames that the stream returns at a time.

        Returns:
            The audio as it is synthesized.

        Raises:
            EngineBusy: `MAX_OPEN_STREAMS` streams are open and unread.
        """
        engine = self._single_slot_engine
        handle = engine.submit(self.job(request, guard))
        return SynthesisStream(
            request,
            handle,
            self.tokenizer.config,
            advance=lambda frames: engine.step_until(handle),
            release=engine.release,
            chunk_frames=chunk_frames,
        )

    def engine(self, slots: int) -> Engine:
        """Return an engine with that many slots; the latest one is cached."""
        if self._engine is None or self._engine.slots != slots:
            models = self.tts, self.tokenizer
            self._engine = Engine(*models, slots=slots, waiting=MAX_OPEN_STREAMS, weights=self.weights)
        return self._engine

    @cached_property
    def _single_slot_engine(self) -> Engine:
        return Engine(self.tts, self.tokenizer, slots=1, waiting=MAX_OPEN_STREAMS, weights=self.weights)
