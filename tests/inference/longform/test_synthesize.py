"""Long texts read in one voice: pieces, joins, retries, progress and resuming."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts.asr import config as asr_config
from cat_tts.asr.model import CatASR
from eval.seed_tts.synthesize import speak
from inference import Synthesizer
from inference.engine.seeds import derived_seed
from inference.longform.silence_trimming import FADE_SECONDS
from inference.longform.synthesize import Delivery, Progress, passages, read
from inference.synthesis.best_of_n import plausibility, score
from tokenizer import AudioTokenizer

WORDS = "What the recording says."
LONG = (
    "The old fox jumps. A lazy dog sleeps near the house.\n\nGood day! [pause 250.5ms] Today the bird runs."
)
PIECES = ["The old fox jumps.", "A lazy dog sleeps near the house.", "Good day!", "Today the bird runs."]
SHORT = Delivery(depth=2, piece_seconds=2.5)


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def hesitant(bundle: Path) -> Synthesizer:
    """Of its takes, some come to an end and some run into their limit."""
    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    weight = synthesizer.tts.depth.decision_head.weight
    with torch.no_grad():
        weight.copy_(0.8 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return synthesizer


def test_pieces_of_one_voice(synthesizer: Synthesizer, prompt_file: Path) -> None:
    """Each with its own seed, and what it says of itself."""
    voice = synthesizer.voice(prompt_file, WORDS)
    reading = read(synthesizer, LONG, prompt_file, WORDS, replace(SHORT, seed=5))
    assert [passage.text for passage in reading.passages] == PIECES
    assert [passage.seed for passage in reading.passages] == [derived_seed(5, n) for n in range(4)]
    for passage in reading.passages:
        take = synthesizer.take(passage.text, voice, depth=2, seed=passage.seed)
        assert (passage.stop_reason, passage.attempts) == (take.stop_reason, 1) == ("end", 1)
        assert 0 < passage.seconds <= take.seconds
    assert reading.seconds == len(reading.audio) / 24_000 and reading.retries == 0
    assert np.array_equal(reading.audio, np.concatenate([p.audio for p in reading.passages]))


def test_one_piece_is_the_take(synthesizer: Synthesizer, prompt_file: Path) -> None:
    reading = read(synthesizer, " Good  morning. ", prompt_file, WORDS, Delivery(seed=7))
    take = synthesizer.take("Good morning.", prompt_file, WORDS, seed=7)
    assert np.array_equal(reading.audio, take.audio) and reading.passages[0].seed == 7


def test_silence_between_pieces_is_exact(synthesizer: Synthesizer, prompt_file: Path) -> None:
    """To the sample, and digital; a piece itself ends and begins with sound that fades."""
    text = f"[pause 10ms]{LONG}\n\nYes. [pause 1s]"
    first, second, third, fourth, last = read(synthesizer, text, prompt_file, WORDS, SHORT).passages
    silences = [
        (first, 240, 7_200),
        (second, 0, 14_400),
        (third, 0, 6_012),
        (fourth, 0, 14_400),
        (last, 0, 24_000),
    ]
    for passage, before, after in silences:
        assert len(passage.audio) == before + round(passage.seconds * 24_000) + after
        assert not passage.audio[:before].any() and not passage.audio[-after:].any()
        assert passage.audio[before] and passage.audio[-after - 1]


def test_joins_do_not_click(synthesizer: Synthesizer, prompt_file: Path) -> None:
    """Where a piece begins or ends, no step is larger than a step inside it, were it cut at full level."""
    reading = read(synthesizer, LONG, prompt_file, WORDS, SHORT)
    steps = np.abs(np.diff(reading.audio, prepend=0, append=0))
    fade, start = round(FADE_SECONDS * 24_000), 0
    for passage in reading.passages:
        count = round(passage.seconds * 24_000)
        inside = steps[start + fade : start + count - fade].max()
        assert max(steps[start], steps[start + count]) < 0.01 * inside
        assert steps[start : start + fade].max() <= inside
        assert steps[start + count - fade : start + count + 1].max() <= inside
        start += len(passage.audio)
    assert start == len(reading.audio)


@pytest.mark.parametrize(("seed", "attempts"), [(3, 1), (0, 2)])
def test_retries(hesitant: Synthesizer, prompt_file: Path, seed: int, attempts: int) -> None:
    """The first attempt that ends is heard; its seed makes the same take alone."""
    reading = read(hesitant, "go", prompt_file, WORDS, Delivery(depth=2, seed=seed))
    takes = [
        hesitant.take("go", prompt_file, WORDS, depth=2, seed=derived_seed(seed, n)) for n in range(attempts)
    ]
    assert [take.stop_reason for take in takes] == ["limit"] * (attempts - 1) + ["end"]
    (passage,) = reading.passages
    assert (passage.stop_reason, passage.attempts, reading.retries) == ("end", attempts, attempts - 1)
    assert passage.seed == takes[-1].seed and np.array_equal(passage.audio, takes[-1].audio)


def test_when_all_attempts_fail_the_best_is_heard(hesitant: Synthesizer, prompt_file: Path) -> None:
    reading = read(hesitant, "go", prompt_file, WORDS, Delivery(depth=2, seed=2, retries=2))
    takes = [hesitant.take("go", prompt_file, WORDS, depth=2, seed=derived_seed(2, n)) for n in range(3)]
    assert {take.stop_reason for take in takes} == {"limit"}
    (passage,) = reading.passages
    assert (passage.stop_reason, passage.attempts, reading.retries) == ("limit", 3, 2)
    assert passage.seed == max(takes, key=plausibility).seed


@pytest.mark.parametrize(("bar", "attempts"), [(-1e9, 1), (1.0, 3)])
def test_what_is_not_understood_is_said_again(
    synthesizer: Synthesizer, prompt_file: Path, monkeypatch: pytest.MonkeyPatch, bar: float, attempts: int
) -> None:
    """By a model that listens to itself; of attempts that all fail, the best is heard."""
    torch.manual_seed(0)
    listening = Synthesizer(
        synthesizer.tts, synthesizer.text, synthesizer.tokenizer, listener=CatASR(asr_config.tiny()).eval()
    )
    monkeypatch.setattr("inference.synthesis.best_of_n.UNDERSTOOD", bar)
    (passage,) = read(listening, "Dogs sleep.", prompt_file, WORDS, Delivery(seed=1)).passages
    takes = [
        listening.take("Dogs sleep.", prompt_file, WORDS, seed=derived_seed(1, n)) for n in range(attempts)
    ]
    assert takes[0].stop_reason == "end"
    assert (passage.attempts, passage.seed) == (
        attempts,
        max(takes, key=lambda take: score(listening, take)).seed,
    )
    request = listening.request("Dogs sleep.", prompt_file, WORDS, seed=1)
    (same,) = speak(listening, [request], slots=1, drafts=1, retries=2)
    assert same.seed == passage.seed and np.array_equal(same.audio, passage.audio)


def test_a_limit_that_was_asked_for_is_no_failure(hesitant: Synthesizer, prompt_file: Path) -> None:
    reading = read(hesitant, "good fox", prompt_file, WORDS, Delivery(depth=2, max_seconds=0.16))
    assert (reading.seconds, reading.retries, reading.passages[0].stop_reason) == (0.16, 0, "limit")


def test_drafts(synthesizer: Synthesizer, prompt_file: Path) -> None:
    """What is heard is the best of several drafts, mastered."""
    delivery = Delivery(seed=0, drafts=3, draft_depth=2)
    (passage,) = read(synthesizer, "Dogs sleep.", prompt_file, WORDS, delivery).passages
    drafts = [
        synthesizer.take("Dogs sleep.", prompt_file, WORDS, depth=2, seed=derived_seed(0, n))
        for n in range(3)
    ]
    best = max(drafts, key=plausibility)
    assert best is not drafts[0] and passage.seed == best.seed
    assert np.array_equal(passage.audio, synthesizer.master(best).audio)


def test_progress(synthesizer: Synthesizer, prompt_file: Path) -> None:
    told: list[Progress] = []
    reading = read(synthesizer, LONG, prompt_file, WORDS, SHORT, on_progress=told.append)
    expected = []
    for index, passage in enumerate(reading.passages):
        frames = len(synthesizer.take(passage.text, prompt_file, WORDS, depth=2, seed=passage.seed).codes)
        expected += [Progress(piece=index, pieces=4, attempt=0, frames=n) for n in range(frames + 1)]
    assert told == expected


def test_an_interrupted_reading_goes_on(
    synthesizer: Synthesizer, bundle: Path, prompt_file: Path, tmp_path: Path
) -> None:
    """Pieces that are there are not made again, by a later process either, and nothing sounds different."""
    whole, begun = read(synthesizer, LONG, prompt_file, WORDS, SHORT), []
    stream = passages(synthesizer, LONG, prompt_file, WORDS, SHORT, work=tmp_path / "deep" / "work")
    assert np.array_equal(next(stream).audio, whole.passages[0].audio)
    next(stream)
    stream.close()
    assert len(list((tmp_path / "deep" / "work").iterdir())) == 2
    later = Synthesizer.from_pretrained(bundle, device="cpu")
    work = tmp_path / "deep" / "work"
    resumed = read(later, LONG, prompt_file, WORDS, SHORT, work=work, on_progress=begun.append)
    assert {progress.piece for progress in begun} == {2, 3}
    assert np.array_equal(resumed.audio, whole.audio)
    assert [replace(a, audio=b.audio) for a, b in zip(resumed.passages, whole.passages, strict=True)] == list(
        whole.passages
    )
    assert len(list(work.iterdir())) == 4


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"depth": 3}, {"max_seconds": 5.0}, {"retries": 1}, {"drafts": 2}, {"sampling": "cooler"}],
)
def test_what_was_made_otherwise_is_not_used(
    synthesizer: Synthesizer, prompt_file: Path, tmp_path: Path, change: dict
) -> None:
    if change.get("sampling"):
        change = {"sampling": replace(synthesizer.sampling, temperature=0.5)}
    made = []
    read(synthesizer, "Yes.", prompt_file, WORDS, SHORT, work=tmp_path)
    read(
        synthesizer,
        "Yes.",
        prompt_file,
        WORDS,
        replace(SHORT, **change),
        work=tmp_path,
        on_progress=made.append,
    )
    assert made


def test_another_voice_text_or_model_is_not_used_either(
    synthesizer: Synthesizer, bundle: Path, voice: np.ndarray, tmp_path: Path
) -> None:
    other = Synthesizer.from_pretrained(bundle, device="cpu")
    other.tokenizer = AudioTokenizer(other.tokenizer.config)
    readings = [
        (synthesizer, "Yes.", (voice, 24_000), WORDS),
        (synthesizer, "Yes!", (voice, 24_000), WORDS),
        (synthesizer, "Yes.", (voice[:20_000], 24_000), WORDS),
        (synthesizer, "Yes.", (voice, 24_000), "Other words."),
        (other, "Yes.", (voice, 24_000), WORDS),
    ]
    for count, (model, text, prompt, words) in enumerate(readings, 1):
        read(model, text, prompt, words, SHORT, work=tmp_path)
        assert len(list(tmp_path.iterdir())) == count


def test_mistakes(synthesizer: Synthesizer, prompt_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="retries=-1"):
        Delivery(retries=-1)
    with pytest.raises(ValueError, match="the best of 0 drafts"):
        Delivery(drafts=0)
    with pytest.raises(ValueError, match="depth 9: this model has 6 codebooks"):
        read(synthesizer, LONG, prompt_file, WORDS, Delivery(depth=9))
    with pytest.raises(ValueError, match="is no pause"):
        read(synthesizer, "A [pause] b", prompt_file, WORDS)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file: cannot be a work folder \(File exists\)"):
        read(synthesizer, LONG, prompt_file, WORDS, SHORT, work=tmp_path / "file")
    read(synthesizer, "Yes.", prompt_file, WORDS, SHORT, work=tmp_path / "work")
    (piece,) = (tmp_path / "work").iterdir()
    piece.write_bytes(piece.read_bytes()[:99])
    with pytest.raises(ValueError, match=r"\.safetensors: broken; delete it"):
        read(synthesizer, "Yes.", prompt_file, WORDS, SHORT, work=tmp_path / "work")
