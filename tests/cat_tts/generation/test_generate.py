from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cat_tts.config import TTSConfig, tiny
from cat_tts.generation.generate import generate
from cat_tts.generation.sampling import (
    BatchedSamplingParams,
    SamplingOptions,
    filtered_logits,
    gumbel_noise,
    sample,
)
from cat_tts.model.tts import CatTTS
from cat_tts.sequences.rows import frame_rows, left_pad, positions, text_rows, unconditional_rows

CONFIGS = [tiny(), replace(tiny(), adapter_dim=20, full_text_head=True)]
GREEDY = SamplingOptions(temperature=0.0, decision_temperature=0.0)
SAMPLED = SamplingOptions(temperature=0.9, top_k=12, top_p=0.9, repetition_penalty=1.3)
SLOT, END, PAD = 3, 2, 32


def tts(config: TTSConfig | None = None, *, even_odds: bool = False) -> CatTTS:
    """Weights large enough for every input to matter. Even odds: continue or stop is the toss of a coin."""
    model = CatTTS(config or tiny()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
        if even_odds:
            model.depth.decision_head.weight.zero_()
    return model


def prompt(config: TTSConfig, text: int, frames: int) -> Tensor:
    ids = [*torch.randint(10, 300, (text,)).tolist(), config.tokens.audio_start]
    codes = torch.randint(config.codebook_size, (frames, config.num_codebooks))
    return torch.cat([text_rows(config, ids), frame_rows(config, codes, config.tokens.slot)])


def speak(
    model: CatTTS, rows: Tensor, seeds: list[int], mask: Tensor | None = None, **settings: Any
) -> Tensor:
    """All new rows [b, frames, 1 + depth]."""
    settings = {"depth": 4, "max_frames": 8, "options": SAMPLED, **settings}
    return torch.stack(list(generate(model, rows, mask, seeds=torch.tensor(seeds), **settings)), 1)


def drawn(logits: Tensor, options: SamplingOptions, noise: Tensor, history: Tensor | None = None) -> int:
    """The keyed choice from the logits of one row, without the pad code, after its history."""
    params, used_codes = (
        BatchedSamplingParams.from_options([options], len(logits), logits.device),
        torch.zeros(1, len(logits), dtype=torch.bool),
    )
    if history is not None:
        used_codes[0, history] = True
    return int(sample(filtered_logits(logits[None], params, used_codes), noise[:, : len(logits)]))


def teacher_forced(
    model: CatTTS, rows: Tensor, new: Tensor, speaker: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits [frames, ..] of the decision and of each code, from one pass over prompt and new rows."""
    depth = new.shape[1] - 1
    whole = torch.cat([rows[:, : 1 + depth], new])
    embedded = model.embed(whole[None], depth)
    if speaker is not None and model.speaker_projection is not None:
        embedded = embedded + model.speaker_projection.weight @ speaker * len(speaker) ** 0.5
    states = model.states(embedded)[0, len(rows) - 1 : -1]
    return model.frame_logits(states, new)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("depth", [1, 3, 6])
def test_greedy_is_the_argmax_of_teacher_forcing(config: TTSConfig, depth: int) -> None:
    model, rows = tts(config), prompt(config, 5, 3)
    new = speak(model, rows[None], [0], depth=depth, max_frames=12, min_frames=12, options=GREEDY)[0]
    _, codes = teacher_forced(model, rows, new)
    assert new.shape == (12, 1 + depth) and (new[:, 0] == SLOT).all()
    assert torch.equal(new[:, 1:], codes[..., :PAD].argmax(-1))
    assert len(new[:, 1:].unique()) > 3, "one code over and over agrees with too much"


def test_positions_continue_counting_as_in_training() -> None:
    """With text rows out of line, cached steps equal one pass, and the positions matter."""
    model, rows = tts(), prompt(tiny(), 5, 3)
    places = positions(tiny(), rows, 2.5)
    new = speak(model, rows[None], [0], max_frames=12, min_frames=12, options=GREEDY, positions=places[None])[
        0
    ]
    whole = torch.cat([rows[:, :5], new])
    _, codes = model.frame_logits(
        model.states(model.embed(whole[None], 4), positions=positions(tiny(), whole, 2.5)[None])[0, 8:-1], new
    )
    assert torch.equal(new[:, 1:], codes[..., :PAD].argmax(-1))
    assert not torch.equal(
        new, speak(model, rows[None], [0], max_frames=12, min_frames=12, options=GREEDY)[0]
    )


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("depth", [1, 4])
def test_samples_are_the_keyed_choices_from_teacher_forcing(config: TTSConfig, depth: int) -> None:
    """The penalty covers the sequence's earlier codes, codebook by codebook; pad codes are never drawn."""
    model, rows = tts(config), prompt(config, 5, 3)
    new = speak(model, rows[None], [7], depth=depth, max_frames=12, min_frames=12)[0]
    _, codes = teacher_forced(model, rows, new)
    for frame in range(12):
        noise = gumbel_noise(torch.tensor([7]), frame, 1 + depth, PAD + 1)
        for k in range(depth):
            code = drawn(codes[frame, k, :PAD], SAMPLED, noise[:, 1 + k], new[:frame, 1 + k])
            assert code == new[frame, 1 + k]
    assert not torch.equal(new[:, 1:], codes.argmax(-1)), "nothing was sampled"


@pytest.mark.parametrize("config", CONFIGS)
def test_guidance_carries_logits_away_from_those_without_text(config: TTSConfig) -> None:
    """Sampled and greedy, from one pass with the text and one without; the decision is not guided."""
    model, rows = tts(config), prompt(config, 5, 3)
    for options in (replace(SAMPLED, guidance=1.7), replace(GREEDY, guidance=2.5)):
        new = speak(model, rows[None], [7], max_frames=12, min_frames=12, options=options)[0]
        _, conditional = teacher_forced(model, rows, new)
        _, unconditional = teacher_forced(model, unconditional_rows(config, rows), new)
        guided = unconditional + options.guidance * (conditional - unconditional)
        for frame in range(12):
            noise = gumbel_noise(torch.tensor([7]), frame, 5, PAD + 1) * (options.temperature > 0)
            for k in range(4):
                code = drawn(guided[frame, k, :PAD], options, noise[:, 1 + k], new[:frame, 1 + k])
                assert code == new[frame, 1 + k]
        plain = replace(options, guidance=1.0)
        unguided = speak(model, rows[None], [7], max_frames=12, min_frames=12, options=plain)[0]
        assert not torch.equal(new, unguided), "guidance changed nothing"


@pytest.mark.parametrize("config", CONFIGS)
def test_a_voice_vector_is_in_every_row_of_both_passes(config: TTSConfig) -> None:
    """Greedy and guided, by teacher forcing; each sequence of the batch has a voice of its own."""
    model, rows = tts(replace(config, speaker_dim=8)), prompt(config, 5, 3)
    speakers = torch.nn.functional.normalize(torch.randn(3, 8), dim=1)
    settings = {"max_frames": 12, "min_frames": 12, "options": replace(GREEDY, guidance=2.5)}
    batched = speak(model, rows.expand(3, -1, -1), [0, 0, 0], speaker=speakers, **settings)
    assert not torch.equal(batched[0], batched[1]) and not torch.equal(batched[1], batched[2])
    for new, speaker in zip(batched, speakers, strict=True):
        _, conditional = teacher_forced(model, rows, new, speaker)
        _, unconditional = teacher_forced(model, unconditional_rows(config, rows), new, speaker)
        guided = unconditional + 2.5 * (conditional - unconditional)
        assert torch.equal(new[:, 1:], guided[..., :PAD].argmax(-1))


@pytest.mark.parametrize("config", CONFIGS)
def test_decisions_are_the_keyed_choices_from_teacher_forcing(config: TTSConfig) -> None:
    model, rows, taken = tts(config), prompt(config, 5, 3), []
    options = replace(SAMPLED, decision_temperature=2.0)
    for seed in range(12):
        new = speak(model, rows[None], [seed], options=options)[0]
        decisions, _ = teacher_forced(model, rows, new)
        offered = decisions[:, [SLOT, END]] if config.full_text_head else decisions
        for frame in range(1, len(new)):
            noise = gumbel_noise(torch.tensor([seed]), frame, 1, 2)[:, 0]
            wanted = drawn(offered[frame], options.decision(), noise)
            assert new[frame, 0] == [SLOT, END][wanted]
            taken.append(([SLOT, END][wanted], [SLOT, END][noise.argmax()]))
    assert {decision for decision, _ in taken} == {SLOT, END}
    assert any(decision != toss for decision, toss in taken), "the model had no say"


@pytest.mark.parametrize("min_frames", [1, 4])
def test_ends_when_the_coin_falls(min_frames: int) -> None:
    """With even odds the noise alone decides, so where each sequence ends is known beforehand."""
    model, seeds, longest = tts(even_odds=True), list(range(8)), 40
    ends = []
    for seed in seeds:
        noise = torch.cat([gumbel_noise(torch.tensor([seed]), f, 1, 2)[0] for f in range(longest)])
        stops = (noise[:, 1] > noise[:, 0]).nonzero().flatten().tolist()
        ends.append(min(f for f in stops if f >= min_frames))
    rows = prompt(tiny(), 3, 2).expand(8, -1, -1)
    new = speak(model, rows, seeds, max_frames=longest, min_frames=min_frames)
    assert len(set(ends)) > 2 and new.shape == (8, 1 + max(ends), 5)
    for sequence, end in zip(new, ends, strict=True):
        assert sequence[:end, 0].tolist() == [SLOT] * end and (sequence[:end, 1:] < PAD).all()
        assert (sequence[end:, 0] == END).all() and (sequence[end:, 1:] == PAD).all()


def test_max_frames_is_the_end_of_patience() -> None:
    model, rows = tts(), prompt(tiny(), 3, 2)[None]
    for frames in (1, 5):
        assert speak(model, rows, [0], max_frames=frames, min_frames=99).shape == (1, frames, 5)


@pytest.mark.parametrize("options", [SAMPLED, GREEDY])
def test_padded_batch_equals_single_sequences(options: SamplingOptions) -> None:
    """Neighbours, their lengths and their ends do not matter, nor does the order."""
    model, prompts = tts(even_odds=True), [prompt(tiny(), 9, 4), prompt(tiny(), 3, 0), prompt(tiny(), 3, 5)]
    options = replace(options, decision_temperature=1.0)
    seeds, settings = [3, 5, 2], {"options": options, "max_frames": 30, "min_frames": 6}
    rows, mask = left_pad(tiny(), prompts)
    batched = speak(model, rows, seeds, mask, **settings)
    reversed_batch = speak(model, rows.flip(0), seeds[::-1], mask.flip(0), **settings).flip(0)
    single = [speak(model, p[None], [s], **settings)[0] for p, s in zip(prompts, seeds, strict=True)]
    assert len({len(sequence) for sequence in single}) == 3, "all sequences end together"
    for i, sequence in enumerate(single):
        assert torch.equal(batched[i, : len(sequence)], sequence)
        assert torch.equal(reversed_batch[i, : len(sequence)], sequence)


def test_no_mask_is_a_mask_of_rows_alone() -> None:
    model, rows = tts(), torch.stack([prompt(tiny(), 4, 2), prompt(tiny(), 3, 3)])
    masked = speak(model, rows, [4, 5], torch.ones(2, 7, dtype=torch.bool), min_frames=8)
    assert torch.equal(speak(model, rows, [4, 5], min_frames=8), masked)


def test_the_seed_decides_the_codes() -> None:
    model, rows = tts(), prompt(tiny(), 4, 2)[None]
    first, again, other = (speak(model, rows, [seed], min_frames=8) for seed in (11, 11, 12))
    assert torch.equal(first, again) and not torch.equal(first, other)
    greedy = [speak(model, rows, [seed], min_frames=8, options=GREEDY) for seed in (11, 12)]
    assert torch.equal(*greedy)


def test_prompt_columns_beyond_the_depth_are_not_read() -> None:
    model, rows = tts(), prompt(tiny(), 4, 3)[None]
    other = rows.clone()
    other[..., 5:] = PAD
    assert torch.equal(speak(model, rows, [0]), speak(model, other, [0]))


@pytest.mark.parametrize("depth", [0, 7])
def test_depth_that_cannot_be(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth={depth} but this model has 6 codebooks"):
        speak(tts(), prompt(tiny(), 1, 0)[None], [0], depth=depth)
