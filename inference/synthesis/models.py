"""The models that speak, and the conversion of texts, voices and options to requests for them."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch

from cat_tts import CatTTS, SamplingOptions
from cat_tts.asr.model import CatASR
from cat_tts.generation.int8_linear import Weights, check_weights
from cat_tts.text.tokenizers import TextTokenizer
from inference.device import usable_device
from inference.engine.job import Guard, Job
from inference.engine.options import SynthesisOptions, check_whole, in_one_line
from inference.engine.request import Request, check_texts, continuation, request_prompt
from inference.engine.result import SynthesisResult
from inference.synthesis.loading import load
from inference.text.duration import frame_limits
from inference.voices.catvoice_file import restore_voice
from inference.voices.catvoice_format import SavedVoice
from inference.voices.prompt_audio import PLAIN, PUBLISHED, PromptRecording
from inference.voices.source import VoiceSource, read_source, transcript
from inference.voices.voice import Voice, Voices
from tokenizer import AudioTokenizer
from tokenizer.discriminators import Discriminators


class SpeechModels:
    """A TTS model, an audio tokenizer, and what helps them."""

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
        self.tts, self.text_tokenizer, self.tokenizer = tts, text_tokenizer, tokenizer
        self.sampling, self.asr_model = sampling or SamplingOptions(), asr_model
        self.weights: Weights = weights
        self.adapted_to: tuple[str, str, int] | None = None
        """Key and text of the voice, and steps, that the TTS model was adapted by."""
        preparation = PLAIN if model.chat is None else PUBLISHED
        self.voices = Voices(tokenizer, model, preparation, load_encoder, discriminators)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        tokenizer: str | Path | None = None,
        device: str | None = None,
        *,
        low_memory: bool = False,
        weights: Weights = "float",
    ) -> Self:
        """Load the embedded model, or a folder or hub id.

        Args:
            model: A folder or hub id, see `inference.synthesis.loading.load`; None is the embedded model.
            tokenizer: A folder or hub id of the audio tokenizer, where `model` does not contain it.
            device: A torch device name; by default cuda where there is one.
            low_memory: Whether to load the tokenizer's encoder only for new prompts.
            weights: "int8" computes frames with weights of 8 bits, which on a CPU takes half the time or
                less.

        Returns:
            Models that are ready.

        Raises:
            ValueError: a folder holds no such model, or the device or the weights cannot be used.
        """
        check_weights(weights, torch.device(usable_device(device)))
        return cls(**vars(load(model, tokenizer, device, low_memory)), weights=weights)

    @property
    def sample_rate(self) -> int:
        """Samples per second of the audio."""
        return self.tokenizer.config.sample_rate

    @property
    def max_depth(self) -> int:
        """Number of codebooks of the TTS model."""
        return self.tts.config.num_codebooks

    @property
    def device(self) -> torch.device:
        """Device of the TTS model."""
        return self.tts.text_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the TTS model."""
        return self.tts.text_embedding.weight.dtype

    @property
    def max_prompt_seconds(self) -> float:
        """Longest prompt that the model accepts, in seconds."""
        return self.voices.max_seconds

    def load_voice(
        self, source: VoiceSource | Voice, prompt_text: str = "", *, adapt_decoder: bool = True
    ) -> Voice:
        """Read and encode a prompt once, for many texts; what recent prompts need is cached.

        Args:
            source: A recording or a `.catvoice` file: its path, its address (http or https), its bytes, or
                the open file; or mono samples [s] as floats in [-1, 1] with their rate in Hz. A voice is only
                validated.
            prompt_text: Transcript of a recording; a voice file holds its own.
            adapt_decoder: Whether a decoder that ends in a vocoder is adapted to the voice, which takes a
                second for a new recording.

        Returns:
            The voice.

        Raises:
            AudioError: the recording cannot be used as a prompt.
            ValueError: the voice file is of another model, or has another transcript.
        """
        if not isinstance(prompt_text, str):
            raise ValueError(f"the prompt text is {in_one_line(prompt_text)}: give a string")
        prompt = source if isinstance(source, Voice) else read_source(source)
        text = transcript(prompt, prompt_text)
        if isinstance(prompt, PromptRecording):
            return self.voices.encode(prompt, text, adapt_decoder=adapt_decoder)
        if isinstance(prompt, SavedVoice):
            prompt = restore_voice(self.voices, prompt)
        return self.voices.validate(prompt if adapt_decoder else prompt.unadapted())

    def request(self, text: str, voice: Voice, options: SynthesisOptions | None = None) -> Request:
        """Validate what is to be synthesized at once, for these models.

        Args:
            text: What to speak, as it is: no numbers are spelled out, and no pauses are understood.
            voice: The voice, of `load_voice`.
            options: How to speak.

        Returns:
            A request that these models can serve.

        Raises:
            ValueError: these models cannot serve the request.
        """
        options = self.resolve(options)
        if not isinstance(voice, Voice):
            raise ValueError(f"{in_one_line(voice)} is no voice: load_voice makes one of a recording")
        check_texts(text, voice.text, options.mode)
        voice = self.voices.validate(voice if options.adapt_decoder else voice.unadapted())
        min_frames, max_frames = frame_limits(text)
        if options.max_seconds is not None:
            max_frames = self.frames(options.max_seconds)
        request = Request(
            text=text, voice=voice, options=options, min_frames=min_frames, max_frames=max_frames
        )
        config = self.tts.config
        free_positions = config.max_positions - len(request_prompt(config, self.text_tokenizer, request).rows)
        if free_positions < 1:
            raise ValueError(f"text and prompt take all {config.max_positions} positions: shorten them")
        return replace(request, max_frames=min(max_frames, free_positions))

    def resolve(self, options: SynthesisOptions | None) -> SynthesisOptions:
        """Return options with the depth and the sampling options of these models where they are left open.

        Raises:
            ValueError: these models cannot follow the options.
        """
        options = SynthesisOptions() if options is None else options
        if not isinstance(options, SynthesisOptions):
            raise ValueError(f"options {in_one_line(options)}: give SynthesisOptions(...)")
        options = options.checked()
        if options.mode == "reference" and self.tts.config.chat is None:
            raise ValueError("this model only continues prompts: leave the mode at continuation")
        sampling = options.sampling or self.sampling
        if sampling.guidance != 1 and self.tts.config.chat is not None:
            raise ValueError(
                f"guidance={sampling.guidance}: published models cannot go without their text; give 1"
            )
        return replace(options, depth=self._depth(options.depth), sampling=sampling)

    def extension(self, result: SynthesisResult, depth: int | None = None) -> Request:
        """Return the request of a single result at another depth, with its codes forced.

        Args:
            result: What was synthesized at some depth.
            depth: Number of codebooks; all by default.

        Returns:
            The request.

        Raises:
            ValueError: the result is empty or was joined from several, or the depth is out of range.
        """
        if result.request is None or len(result.codes) == 0:
            raise ValueError("this result has no request or no codes: extend the results it was joined from")
        depth, frames = self._depth(depth), len(result.codes)
        request = result.request.changed(depth=depth)
        return replace(request, forced_codes=result.codes[:, :depth], min_frames=frames, max_frames=frames)

    def job(self, request: Request, guard: Guard | None = None) -> Job:
        """Prepare what an engine needs to synthesize a request.

        Args:
            request: What to synthesize.
            guard: A stopping rule that may end it early.

        Returns:
            A job with the rows before the first frame and the audio decoder's state after the prompt.
        """
        reference = request.options.mode == "reference"
        context = None if reference else self.voices.context(request.voice, request.depth)
        rows = continuation(self.tts.config, self.text_tokenizer, request)
        return Job(continuation=rows, context=context, guard=guard)

    def frames(self, seconds: float) -> int:
        """Return the number of frames that hold so many seconds."""
        return math.ceil(seconds * self.tokenizer.config.frame_rate)

    def _depth(self, depth: int | None) -> int:
        depth = self.max_depth if depth is None else check_whole("depth", depth, -(2**31), 2**31)
        if not 1 <= depth <= self.max_depth:
            raise ValueError(
                f"depth {depth}: this model has {self.max_depth} codebooks, choose 1 to {self.max_depth}"
            )
        return depth
