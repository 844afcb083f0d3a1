"""What a TTS model says in the midst of its training, so that one can hear it learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from cat_tts import CatTTS, SamplingOptions
from cat_tts.generation.generate import generate
from cat_tts.sequences.formats import opening_rows
from cat_tts.sequences.rows import join_texts, positions, speaking_pace
from cat_tts.text.tokenizers import TextTokenizer
from tokenizer import AudioTokenizer, save_audio

if TYPE_CHECKING:  # an extra, and slow to import
    from torch.utils.tensorboard.writer import SummaryWriter

ROOM = 25
"""Frames that a sample may take beyond twice what its speaker took."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A text to be said in the voice of a recording."""

    prompt_text: str
    prompt: Int[Tensor, "t k"]
    text: str
    frames: int
    """Which somebody took to say the text."""


def exchanged(utterances: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """Each utterance's text, said in the voice of the one before it."""
    pairs = zip([*utterances[-1:], *utterances[:-1]], utterances, strict=True)
    return [
        Sample(
            prompt_text=prompt["text"],
            prompt=torch.as_tensor(prompt["codes"]).long(),
            text=said["text"],
            frames=said["frames"],
        )
        for prompt, said in pairs
    ]


class Samples:
    """The samples of a run, and the tokenizer through which they are heard."""

    def __init__(self, run: Path, tokenizer: AudioTokenizer, samples: Sequence[Sample]) -> None:
        self.run, self.tokenizer, self.samples = run, tokenizer, samples

    def write(
        self, step: int, model: CatTTS, text: TextTokenizer, writer: "SummaryWriter | None" = None
    ) -> None:
        """Say each sample at two depths, with a seed of its own, into RUN/samples and TensorBoard."""
        deepest = model.config.num_codebooks
        for i, sample in enumerate(self.samples):
            self._sound(0, f"{i}_prompt", sample.prompt, writer)
            if writer is not None:
                writer.add_text(f"{i}_text", sample.text, 0)
            pace = speaking_pace(model.config, text.encode(sample.prompt_text), len(sample.prompt))
            for depth in sorted({max(1, deepest // 4), deepest}):
                codes = speak(
                    model,
                    text,
                    join_texts(sample.prompt_text, sample.text),
                    sample.prompt,
                    pace=pace,
                    depth=depth,
                    seed=i,
                    max_frames=2 * sample.frames + ROOM,
                )
                self._sound(step, f"{i}_depth_{depth}", codes, writer)

    def _sound(self, step: int, name: str, codes: Int[Tensor, "t k"], writer: "SummaryWriter | None") -> None:
        if not len(codes):
            return  # it stopped at once: there is nothing to hear
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
    tokenizer: TextTokenizer,
    text: str,
    prompt: Int[Tensor, "t k"],
    *,
    pace: float,
    depth: int,
    seed: int,
    max_frames: int,
    options: SamplingOptions | None = None,
) -> Int[Tensor, "n k"]:
    """Codes with which `model` goes on after `prompt`; `text` is that of both, at `pace`."""
    device, end = model.text_embedding.weight.device, model.config.tokens.audio_end
    rows = opening_rows(model.config, tokenizer, text, prompt)
    made = generate(
        model,
        rows[None].to(device),
        None,
        depth=depth,
        seeds=torch.tensor([seed]),
        max_frames=max_frames,
        options=options or SamplingOptions(),
        positions=positions(model.config, rows, pace)[None].to(device),
    )
    frames = [row[0, 1:].cpu() for row in made if int(row[0, 0]) != end]
    return torch.stack(frames) if frames else torch.zeros(0, depth, dtype=torch.long)
