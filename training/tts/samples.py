"""Texts that a TTS model speaks during its training, so that progress can be listened to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cat_tts import CatTTS, SamplingOptions
from cat_tts.generation.generate import generate
from cat_tts.sequences.formats import build_prompt
from cat_tts.speakers.voice_vector import VoiceVectorEncoder
from cat_tts.text.tokenizers import TextTokenizer
from tokenizer import AudioTokenizer, save_audio

if TYPE_CHECKING:  # an extra, and slow to import
    from torch.utils.tensorboard.writer import SummaryWriter

EXTRA_FRAMES = 25
"""Frames that a sample may take beyond twice what its speaker took."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A text to be spoken in the voice of a recording."""

    prompt_text: str
    prompt: Int[Tensor, "t k"]
    text: str
    frames: int
    """Frames of the text's own recording."""


def swap_prompts(utterances: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """Return each utterance's text as a sample in the voice of the utterance before it."""
    pairs = zip([*utterances[-1:], *utterances[:-1]], utterances, strict=True)
    return [
        Sample(
            prompt_text=prompt["text"],
            prompt=torch.as_tensor(prompt["codes"]).long(),
            text=target["text"],
            frames=target["frames"],
        )
        for prompt, target in pairs
    ]


class Samples:
    """The samples of a run, the audio tokenizer that decodes them, and the encoder of voices, if any."""

    def __init__(
        self,
        run: Path,
        tokenizer: AudioTokenizer,
        samples: Sequence[Sample],
        speaker_encoder: VoiceVectorEncoder | None = None,
    ) -> None:
        self.run, self.tokenizer, self.samples = run, tokenizer, samples
        self.speaker_encoder = speaker_encoder

    @torch.no_grad()
    def write(
        self, step: int, model: CatTTS, text_tokenizer: TextTokenizer, writer: "SummaryWriter | None" = None
    ) -> None:
        """Speak each sample at two depths, with a seed of its own, into RUN/samples and TensorBoard.

        Args:
            step: Step of the training, for the names.
            model: The model.
            text_tokenizer: Its text tokenizer.
            writer: TensorBoard, if open.
        """
        deepest = model.config.num_codebooks
        for i, sample in enumerate(self.samples):
            self._save_audio(0, f"{i}_prompt", sample.prompt, writer)
            if writer is not None:
                writer.add_text(f"{i}_text", sample.text, 0)
            speaker = None
            if self.speaker_encoder is not None:
                speaker = self.speaker_encoder(sample.prompt[None].to(model.text_embedding.weight.device))
            for depth in sorted({max(1, deepest // 4), deepest}):
                codes = speak(
                    model,
                    text_tokenizer,
                    sample.text,
                    sample.prompt,
                    prompt_text=sample.prompt_text,
                    depth=depth,
                    seed=i,
                    max_frames=2 * sample.frames + EXTRA_FRAMES,
                    speaker=speaker,
                )
                self._save_audio(step, f"{i}_depth_{depth}", codes, writer)

    def _save_audio(
        self, step: int, name: str, codes: Int[Tensor, "t k"], writer: "SummaryWriter | None"
    ) -> None:
        if not len(codes):
            return  # the model stopped at once
        rate, device = self.tokenizer.config.sample_rate, next(self.tokenizer.parameters()).device
        audio = self.tokenizer.decode(codes[None].to(device))[0].clamp(-1, 1).cpu()
        folder = self.run / "samples" / f"step_{step:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        save_audio(folder / f"{name}.wav", audio, rate)
        if writer is not None:
            writer.add_audio(name, audio[None], step, rate)


@torch.no_grad()
def speak(
    model: CatTTS,
    text_tokenizer: TextTokenizer,
    text: str,
    prompt: Int[Tensor, "t k"],
    *,
    prompt_text: str = "",
    rate: float | None = None,
    depth: int,
    seed: int,
    max_frames: int,
    options: SamplingOptions | None = None,
    speaker: Float[Tensor, "1 e"] | None = None,
) -> Int[Tensor, "n k"]:
    """Generate the codes of a text that continue a prompt.

    Args:
        model: The model.
        text_tokenizer: Its text tokenizer.
        text: The text to speak.
        prompt: Codes of the prompt; t may be 0.
        prompt_text: Transcript of the prompt.
        rate: Speaking rate, by default that of the prompt and its transcript.
        depth: Codebooks to generate.
        seed: Seed of the sampling noise.
        max_frames: Most frames.
        options: Sampling options; None means the defaults.
        speaker: Voice vector [1, e] of the prompt, for models that read one.

    Returns:
        Codes [n, depth].
    """
    device, end = model.text_embedding.weight.device, model.config.tokens.audio_end
    sequence = build_prompt(model.config, text_tokenizer, text, prompt, prompt_text=prompt_text, rate=rate)
    generated = generate(
        model,
        sequence.rows[None].to(device),
        None,
        depth=depth,
        seeds=torch.tensor([seed]),
        max_frames=max_frames,
        options=options or SamplingOptions(),
        positions=sequence.positions[None].to(device),
        speaker=speaker,
    )
    frames = [row[0, 1:].cpu() for row in generated if int(row[0, 0]) != end]
    return torch.stack(frames) if frames else torch.zeros(0, depth, dtype=torch.long)
