"""Synthesis from its parts: the rows of the prompt, the sampled codes, and their audio."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cat_tts import SamplingOptions, generate
from cat_tts.generation.sampling import gumbel_noise
from cat_tts.sequences.conversation import continuation_rows, generation_rows, render_user
from cat_tts.sequences.rows import frame_rows, text_rows
from inference import SynthesisResult, Synthesizer
from inference.engine.options import UNWATCHED, SynthesisOptions
from inference.longform.stream import Progress
from inference.voices.prompt_audio import PLAIN, PUBLISHED, prepare, read_recording
from tokenizer import AudioError

PROMPT_TEXT, TEXT = "What the recording says.", "Good morning, old fox."
NEVER_STOP = SamplingOptions(decision_temperature=0)
"""Both decisions have equal probability, and the arg-max chooses the first: continue."""
SAMPLED = SamplingOptions(temperature=0.8, top_k=20, top_p=0.9, repetition_penalty=1.2)


@pytest.fixture
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture
def published_synthesizer(published: tuple[Path, Path]) -> Synthesizer:
    return Synthesizer.from_pretrained(*published, device="cpu")


def speak(
    synthesizer: Synthesizer, prompt: Any, text: str = TEXT, prompt_text: str = PROMPT_TEXT, **options: Any
) -> SynthesisResult:
    """Return what the model gives, without retries and stopping rules."""
    chosen = SynthesisOptions(**{"max_seconds": 0.6, "policy": UNWATCHED, **options})
    return synthesizer.synthesize(text, synthesizer.load_voice(prompt, prompt_text), chosen)


def generated(
    synthesizer: Synthesizer, rows: Tensor, depth: int, frames: int, positions: Tensor | None = None
) -> Tensor:
    """Return the codes of a direct call of `generate`, which may not stop before `frames`."""
    new = generate(
        synthesizer.tts,
        rows[None],
        None,
        depth=depth,
        seeds=torch.tensor([2]),
        max_frames=frames,
        options=SAMPLED,
        positions=positions,
        min_frames=frames,
    )
    return torch.cat([row[:, 1:] for row in new])


def test_properties(synthesizer: Synthesizer) -> None:
    assert (synthesizer.sample_rate, synthesizer.max_depth, synthesizer.max_prompt_seconds) == (
        24_000,
        6,
        8.0,
    )
    assert (synthesizer.device, synthesizer.dtype) == (torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("depth", [1, 3, 6, None])
def test_codes_and_audio_of_a_result(synthesizer: Synthesizer, prompt_file: Path, depth: int | None) -> None:
    """Codes and audio equal those of a direct call.

    The rows are prompt text, text and prompt codes, with the text at the speaking rate of the prompt; the
    audio is that of the new codes, decoded after the prompt.
    """
    result = speak(synthesizer, prompt_file, prompt_text="A dog.", depth=depth, seed=2, sampling=SAMPLED)
    columns, tokenizer, tts = depth or 6, synthesizer.tokenizer, synthesizer.tts
    prompt = tokenizer.encode(prepare(read_recording(prompt_file), 24_000, PLAIN, 8.0)[None])[0]
    assert all(len(column.unique()) > 2 for column in prompt.T), "a prompt of one frame over and over"
    ids = [*synthesizer.text_tokenizer.encode(f"A dog. {TEXT}"), tts.config.tokens.audio_start]
    rows = torch.cat([text_rows(tts.config, ids), frame_rows(tts.config, prompt, tts.config.tokens.slot)])
    assert len(prompt) == 15 and result.codes.shape == (len(result.codes), columns)
    rate = 15 / len(synthesizer.text_tokenizer.encode("A dog."))
    positions = torch.cat([torch.arange(len(ids) - 1) * rate, torch.arange(16)])[None]
    assert torch.equal(result.codes, generated(synthesizer, rows, columns, len(result.codes), positions))

    whole = tokenizer.decode(torch.cat([prompt[:, :columns], result.codes])[None])[0].clamp(-1, 1)
    torch.testing.assert_close(torch.from_numpy(result.audio), whole[15 * 1920 :], atol=1e-5, rtol=0)
    assert len(result.audio) == 1920 * len(result.codes) and result.audio.dtype == np.float32
    assert np.abs(result.audio - tokenizer.decode(result.codes[None])[0].clamp(-1, 1).numpy()).max() > 0.01
    assert (result.depth, result.seed, result.sample_rate) == (columns, 2, 24_000)
    assert result.bitrate == columns * 12.5 * 5
    assert result.seconds == len(result.codes) / 12.5


def test_the_seed_determines_the_result(synthesizer: Synthesizer, prompt_file: Path) -> None:
    first, again, other = (speak(synthesizer, prompt_file, seed=seed) for seed in (3, 3, 4))
    assert first.audio.tobytes() == again.audio.tobytes() and torch.equal(first.codes, again.codes)
    assert first.audio.tobytes() != other.audio.tobytes()
    for seed in (-(2**63), 2**63 - 1):
        assert speak(synthesizer, prompt_file, seed=seed).seed == seed


def test_text_prompt_and_transcript_matter(
    synthesizer: Synthesizer, prompt_file: Path, voice: np.ndarray
) -> None:
    other = (voice[::-1], 24_000)
    changes = [{}, {"text": "Tomorrow."}, {"prompt_text": "A dog."}, {"prompt": other}]
    results = [speak(synthesizer, **{"prompt": prompt_file, "sampling": NEVER_STOP, **c}) for c in changes]
    assert len({result.codes.numpy().tobytes() for result in results}) == len(changes)


def test_clone_returns_the_audio_of_synthesize(synthesizer: Synthesizer, voice: np.ndarray) -> None:
    """Whether the prompt is a recording or a voice; options are given by name."""
    prompt, options = (voice, 24_000), {"depth": 2, "seed": 1, "sampling": SAMPLED, "policy": UNWATCHED}
    loaded = synthesizer.load_voice(prompt, PROMPT_TEXT)
    result = synthesizer.synthesize(TEXT, loaded, SynthesisOptions(**options))
    for source, text in ((prompt, PROMPT_TEXT), (loaded, "")):
        wav, rate = synthesizer.clone(TEXT, source, text, **options)
        assert rate == 24_000 and np.array_equal(wav, result.audio)
    other = synthesizer.clone(TEXT, prompt, PROMPT_TEXT, depth=2, seed=1, policy=UNWATCHED)[0]
    assert not np.array_equal(wav, other)
    with pytest.raises(TypeError, match="temperature"):
        synthesizer.clone(TEXT, prompt, PROMPT_TEXT, temperature=1)


@pytest.mark.parametrize("text", ["Hi.", "The lazy fox sleeps under the old tree."])
def test_the_stop_decision_ends_speech_but_not_too_soon(
    synthesizer: Synthesizer, voice: np.ndarray, text: str
) -> None:
    """The end follows from the noise of the seed, after 0.3 of the expected duration of the text."""
    least = max(1, int(0.3 * 0.9 * len(text)))
    lengths = []
    for seed in range(6):
        noise = [gumbel_noise(torch.tensor([seed]), frame, 1, 2)[0, 0] for frame in range(60)]
        expected = next(f for f in range(least, 60) if noise[f][1] > noise[f][0])
        result = speak(synthesizer, (voice, 24_000), text=text, depth=1, seed=seed, max_seconds=None)
        assert (len(result.codes), result.stop_reason) == (expected, "end")
        lengths.append(expected)
    assert len(set(lengths)) > 1 and min(lengths) < least + 2


@pytest.mark.parametrize(("certain", "frames", "reason"), [(1, 5, "end"), (0, 25 + 40, "limit")])
def test_a_model_with_a_certain_stop_decision(
    synthesizer: Synthesizer, voice: np.ndarray, certain: int, frames: int, reason: str
) -> None:
    """Always stopping gives 0.3 of the expected duration, never stopping gives the limit."""
    weights = synthesizer.tts.state_dict()
    weights["text_embedding.weight"][:, 0] = 1000.0  # large and positive in every state, whatever was read
    weights["depth.adapter_in.weight"][0] = 1000.0 * torch.eye(32)[0]
    weights["depth.decision_head.weight"][certain, 0] = 10.0
    for seed in range(3):
        result = speak(synthesizer, (voice, 24_000), depth=1, seed=seed, max_seconds=None)
        assert (len(result.codes), result.stop_reason) == (frames, reason)


@pytest.mark.parametrize(("seconds", "frames"), [(0.01, 1), (0.08, 1), (0.09, 2), (0.8, 10)])
def test_max_seconds_is_the_limit(
    synthesizer: Synthesizer, prompt_file: Path, seconds: float, frames: int
) -> None:
    result = speak(synthesizer, prompt_file, depth=1, sampling=NEVER_STOP, max_seconds=seconds)
    assert (len(result.codes), result.stop_reason) == (frames, "limit")


def test_the_default_limit(synthesizer: Synthesizer, prompt_file: Path) -> None:
    """The limit is twice the expected duration and two seconds."""
    result = speak(synthesizer, prompt_file, text="Hi fox.", depth=1, sampling=NEVER_STOP, max_seconds=None)
    assert (len(result.codes), result.stop_reason) == (25 + math.ceil(2 * 0.9 * 7), "limit")


def test_positions_are_a_limit(synthesizer: Synthesizer, prompt_file: Path) -> None:
    tts = synthesizer.tts
    rows = len(synthesizer.text_tokenizer.encode(f"{PROMPT_TEXT} {TEXT}")) + 1 + 15
    tts.config = replace(tts.config, max_positions=rows + 2)
    result = speak(synthesizer, prompt_file, sampling=NEVER_STOP)
    assert (len(result.codes), result.stop_reason) == (2, "limit")
    tts.config = replace(tts.config, max_positions=rows)
    with pytest.raises(ValueError, match=f"text and prompt take all {rows} positions: shorten them"):
        speak(synthesizer, prompt_file)


def test_progress_is_reported_as_frames_come(synthesizer: Synthesizer, prompt_file: Path) -> None:
    progress: list[Progress] = []
    voice = synthesizer.load_voice(prompt_file, PROMPT_TEXT)
    options = SynthesisOptions(depth=1, policy=UNWATCHED)
    result = synthesizer.synthesize(TEXT, voice, options, on_progress=progress.append)
    assert [each.frames for each in progress] == list(range(len(result.codes) + 1))
    assert {(each.segment, each.segments, each.attempt) for each in progress} == {(0, 1, 0)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth 0: this model has 6 codebooks, choose 1 to 6"),
        ({"depth": 7}, "depth 7: this model has 6 codebooks, choose 1 to 6"),
        ({"text": " \n"}, "the text is empty"),
        ({"text": "?! ..."}, r"the text '\?! \.\.\.' has no letter or digit"),
        ({"text": b"Hello"}, "the text is b'Hello': give a string"),
        ({"text": None}, "the text is None: give a string"),
        ({"text": "\ud800"}, "the text '.*' is no Unicode text"),
        ({"mode": "reference"}, "this model only continues prompts"),
        ({"max_seconds": 0.0}, r"a length limit of 0\.0 s"),
        ({"max_seconds": math.inf}, "a length limit of inf s"),
        ({"max_seconds": math.nan}, "a length limit of nan s"),
        ({"seed": 2**63}, f"seed={2**63}: give a whole number"),
        ({"seed": 1.0}, r"seed=1\.0: give a whole number"),
    ],
)
def test_options_are_checked_before_the_prompt_is_read(
    synthesizer: Synthesizer, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        synthesizer.clone(**{"text": TEXT, "prompt_audio": tmp_path / "none.wav", **options})


def test_what_is_no_voice_is_refused(synthesizer: Synthesizer, prompt_file: Path) -> None:
    for wrong in (str(prompt_file), None, 5, np.zeros((99, 3))):
        with pytest.raises(ValueError, match=r"^.* is no voice: load_voice makes one of a recording$"):
            synthesizer.synthesize(TEXT, wrong)  # pyright: ignore[reportArgumentType]
    voice = synthesizer.load_voice(prompt_file, PROMPT_TEXT)
    with pytest.raises(ValueError, match=r"give SynthesisOptions\("):
        synthesizer.synthesize(TEXT, voice, {"depth": 3})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="the prompt text is 3: give a string"):
        synthesizer.load_voice(prompt_file, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="the prompt text is empty"):
        synthesizer.synthesize(TEXT, synthesizer.load_voice(prompt_file))


def test_wrong_batches_are_refused(synthesizer: Synthesizer, prompt_file: Path) -> None:
    voice, batch = synthesizer.load_voice(prompt_file, PROMPT_TEXT), synthesizer.synthesize_batch
    for texts, voices in (("ab", [voice, voice]), ([TEXT], voice), ([TEXT, TEXT], [voice])):
        with pytest.raises(ValueError, match=r"^give a list of texts, and a list of as many voices$"):
            batch(texts, voices)  # pyright: ignore[reportArgumentType]
    for slots in (0, 1.5, None, 10**9):
        with pytest.raises(ValueError, match=f"^slots={slots}: give a whole number"):
            batch([TEXT], [voice], slots=slots)  # pyright: ignore[reportArgumentType]
    assert batch([], []) == []


def test_what_cannot_be_extended_is_refused(synthesizer: Synthesizer, prompt_file: Path) -> None:
    result = speak(synthesizer, prompt_file, depth=1, max_seconds=0.2)
    assert synthesizer.extend_depth(result, np.int32(2)).depth == 2  # pyright: ignore[reportArgumentType]
    for depth in (2.0, "2", b"2", 0, 7):
        with pytest.raises(ValueError, match=r"^depth.*(: give a whole number|choose 1 to 6)$"):
            synthesizer.extend_depth(result, depth)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^.* is no result: extend what synthesize returned$"):
        synthesizer.extend_depth((result.audio, 24_000))  # pyright: ignore[reportArgumentType]


def test_prompt_longer_than_the_model_was_trained_on(synthesizer: Synthesizer, voice: np.ndarray) -> None:
    longest = np.tile(voice, 7)[: 8 * 24_000]
    assert len(speak(synthesizer, (longest, 24_000), depth=1).codes) > 0
    with pytest.raises(AudioError, match=r"^prompt: lasts 8\.1 s; this model takes prompts of up to 8 s"):
        speak(synthesizer, (np.append(longest, voice[:1920]), 24_000))


@pytest.mark.parametrize("depth", [1, 32])
def test_published_continuation(published_synthesizer: Synthesizer, prompt_file: Path, depth: int) -> None:
    """The transcript of the prompt and the text are the user's turn, and the prompt begins the answer."""
    model = published_synthesizer
    result = speak(model, prompt_file, depth=depth, seed=2, sampling=SAMPLED, max_seconds=0.24)
    prompt = model.tokenizer.encode(prepare(read_recording(prompt_file), 24_000, PUBLISHED, 60.0)[None])[0]
    rows = continuation_rows(
        model.tts.config, model.text_tokenizer, render_user(f"{PROMPT_TEXT} {TEXT}"), prompt
    )
    assert model.max_prompt_seconds == 60.0
    assert torch.equal(result.codes, generated(model, rows, depth, 3))
    whole = model.tokenizer.decode(torch.cat([prompt[:, :depth], result.codes])[None])[0].clamp(-1, 1)
    np.testing.assert_allclose(result.audio, whole[15 * 1920 :].numpy(), atol=1e-5, rtol=0)


def test_published_reference(published_synthesizer: Synthesizer, prompt_file: Path) -> None:
    """The prompt is part of the user's turn, without transcript, and is not decoded."""
    model = published_synthesizer
    options = {"mode": "reference", "depth": 4, "seed": 2, "max_seconds": 0.24, "sampling": SAMPLED}
    result = speak(model, prompt_file, **options)
    prompt = model.tokenizer.encode(prepare(read_recording(prompt_file), 24_000, PUBLISHED, 60.0)[None])[0]
    rows = generation_rows(model.tts.config, model.text_tokenizer, render_user(TEXT, [prompt]), [prompt])
    assert torch.equal(result.codes, generated(model, rows, 4, 3))
    assert torch.equal(result.codes, speak(model, prompt_file, prompt_text="", **options).codes)
    assert speak(model, prompt_file, **options).audio.tobytes() == result.audio.tobytes()
    separate = model.tokenizer.decode(result.codes[None])[0].clamp(-1, 1)
    np.testing.assert_allclose(result.audio, separate.numpy(), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"^the prompt text is empty"):
        speak(model, prompt_file, prompt_text="")
    with pytest.raises(ValueError, match=r"^guidance=2\.0: published models cannot go without their text"):
        speak(model, prompt_file, sampling=replace(SAMPLED, guidance=2.0))
