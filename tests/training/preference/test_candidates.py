"""Candidates of one text in one voice, generated in many slots at once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts import CatTTS, SamplingOptions
from cat_tts.generation.frame_decoder import FrameDecoder
from training.common.run import key
from training.data.code_shards import read_codes
from training.preference.candidates import (
    CandidateOptions,
    build_continuation,
    generate_candidates,
    main,
    read_comparisons,
)

pytestmark = pytest.mark.usefixtures("datasets_cache")


def options(out: Path, bundle: Path, codes: Path, **changes) -> CandidateOptions:
    return CandidateOptions(
        out=out, model=bundle, codes=codes, **{"comparisons": 5, "candidates": 3, "lowest": 2, **changes}
    )


@pytest.fixture(scope="module")
def made(bundle: Path, codes: Path, datasets_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("candidates")
    generate_candidates(options(out, bundle, codes))
    return out


def test_a_candidate_does_not_depend_on_the_other_slots(made: Path, bundle: Path, codes: Path) -> None:
    rows = read_codes(codes)
    tts, text_tokenizer = CatTTS.from_pretrained(bundle / "tts")
    found = list(read_comparisons(made))
    assert len(found) == 5 and len({one.depth for one in found}) > 1
    assert {one.text for one in found} <= set(rows["text"][:])
    for comparison in found[:2]:
        continuation = build_continuation(tts, text_tokenizer, rows, comparison, SamplingOptions())
        for number, candidate in enumerate(comparison.candidates):
            assert candidate.shape[1] == comparison.depth and 0 < len(candidate) <= continuation.max_frames
            seed = key(0, comparison.prompt, number) >> 1
            decoder, frames = FrameDecoder[None](tts), []
            sequence = decoder.join(replace(continuation, seed=seed), None)
            while not sequence.ended:
                decoder.step()
                frames.append(sequence.row)
            assert comparison.ended[number] == sequence.stopped
            single_codes = torch.stack(frames[: len(frames) - sequence.stopped])[:, 1:].numpy()
            assert np.array_equal(single_codes, candidate)


def test_existing_files_are_not_generated_again(
    made: Path, bundle: Path, codes: Path, tmp_path: Path
) -> None:
    (file,) = made.iterdir()
    before = file.stat().st_mtime_ns
    generate_candidates(options(made, bundle, codes))
    assert file.stat().st_mtime_ns == before
    main(
        [
            str(tmp_path),
            "--model",
            str(bundle),
            "--codes",
            str(codes),
            "--comparisons",
            "5",
            "--candidates",
            "3",
        ]
    )
    assert [one.text for one in read_comparisons(tmp_path)] == [one.text for one in read_comparisons(made)]


def test_bad_requests(bundle: Path, codes: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a text and at most 1 frames: give more max-frames"):
        generate_candidates(options(tmp_path, bundle, codes, max_frames=1))
    with pytest.raises(
        ValueError, match=r"holds no candidates: generate some with training\.preference\.candidates"
    ):
        list(read_comparisons(tmp_path))
