"""From what a user asks for to the request and the job of an engine, validated for the models at hand."""

import math
from dataclasses import replace

import torch

from cat_tts import CatTTS, SamplingOptions
from cat_tts.text.tokenizers import TextTokenizer
from inference.engine.job import Guard, Job
from inference.engine.request import Mode, Request, check_texts, continuation, request_prompt
from inference.engine.result import SynthesisResult
from inference.text.duration import frame_limits
from inference.voices.catvoice_file import is_voice_file, load_voice, prompt_text_of
from inference.voices.prompt_audio import PromptAudio
from inference.voices.voice import Voice, Voices
from tokenizer import AudioTokenizer


class RequestBuilder:
    """The models of a synthesizer, and the conversion of texts and prompts to requests for them."""

    def __init__(
        self,
        tts: CatTTS,
        text_tokenizer: TextTokenizer,
        tokenizer: AudioTokenizer,
        sampling: SamplingOptions,
        voices: Voices,
    ) -> None:
        """Hold the models, the default sampling options and the cache of prompts."""
        self.tts, self.text_tokenizer, self.tokenizer = tts, text_tokenizer, tokenizer
        self.sampling, self.voices = sampling, voices

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

    def voice(self, prompt_audio: PromptAudio | Voice, prompt_text: str = "") -> Voice:
        """Encode a prompt once for many requests; recent prompts are cached.

        Args:
            prompt_audio: A recording, as a path or as samples [s] with their rate; a `.catvoice` file, which
                holds its transcript; or a voice, which is only validated.
            prompt_text: Transcript of a recording.

        Returns:
            The voice.

        Raises:
            AudioError: the recording cannot be used as a prompt.
            ValueError: the voice is of another model, or has another transcript.
        """
        prompt_text = prompt_text_of(prompt_audio, prompt_text)
        if isinstance(prompt_audio, Voice):
            return self.voices.validate(prompt_audio)
        if is_voice_file(prompt_audio):
            return load_voice(prompt_audio, self.tokenizer, self.tts.config)
        return self.voices.encode_prompt(prompt_audio, prompt_text)

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
        """Validate the options and encode the prompt.

        Args:
            text: What to speak.
            prompt_audio: The prompt, see `voice`.
            prompt_text: Transcript of the prompt.
            depth: Number of codebooks; all by default.
            seed: A whole number of 64 bits; it determines the sampling noise.
            sampling: Sampling options; by default those that suit the model.
            mode: "reference" gives published models the prompt in the turn of the user, where its transcript
                is not needed; other models only continue prompts.
            max_seconds: Length limit; by default it is derived from the text.

        Returns:
            A request that this model can serve.

        Raises:
            ValueError: this model cannot serve the request.
        """
        check_texts(text, prompt_text_of(prompt_audio, prompt_text), mode)
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
        min_frames, max_frames = frame_limits(text)
        max_frames = max_frames if max_seconds is None else self._frames(max_seconds)
        request = Request(
            text=text,
            voice=self.voice(prompt_audio, prompt_text),
            depth=depth,
            seed=seed,
            sampling=sampling,
            mode=mode,
            min_frames=min_frames,
            max_frames=max_frames,
        )
        config = self.tts.config
        free_positions = config.max_positions - len(request_prompt(config, self.text_tokenizer, request).rows)
        if free_positions < 1:
            raise ValueError(f"text and prompt take all {config.max_positions} positions: shorten them")
        return replace(request, max_frames=min(max_frames, free_positions))

    def extension_request(self, result: SynthesisResult, depth: int | None = None) -> Request:
        """Return the request that `Synthesizer.extend_depth` synthesizes.

        Args:
            result: What was synthesized at some depth.
            depth: Number of codebooks; all by default.

        Returns:
            The request of the result at the new depth, with its codes forced.

        Raises:
            ValueError: the result is empty or was joined from several, or the depth is out of range.
        """
        if result.request is None or len(result.codes) == 0:
            raise ValueError("this result has no request or no codes: extend the results it was joined from")
        depth, frames = self._depth(depth), len(result.codes)
        return replace(
            result.request,
            depth=depth,
            forced_codes=result.codes[:, :depth],
            min_frames=frames,
            max_frames=frames,
        )

    def job(self, request: Request, guard: Guard | None = None) -> Job:
        """Prepare what an engine needs to synthesize a request.

        Args:
            request: What to synthesize.
            guard: A stopping rule that may end it early.

        Returns:
            A job with the rows before the first frame and the audio decoder's state after the prompt.
        """
        context = None if request.mode == "reference" else self.voices.context(request.voice, request.depth)
        rows = continuation(self.tts.config, self.text_tokenizer, request)
        return Job(continuation=rows, context=context, guard=guard)

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
