"""Contests: takes of one text in one voice, made by many slots at once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts import CatTTS, SamplingOptions
from cat_tts.generation.frame_decoder import FrameDecoder
from training.common.run import key
from training.data.code_shards import read_codes
from training.preference.candidates import Takes, contests, main, make, opening

pytestmark = pytest.mark.usefixtures("datasets_cache")


def options(out: Path, bundle: Path, codes: Path, **changes) -> Takes:
    return Takes(out=out, model=bundle, codes=codes, **{"contests": 5, "takes": 3, "lowest": 2, **changes})


@pytest.fixture(scope="module")
def made(bundle: Path, codes: Path, datasets_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("takes")
    make(options(out, bundle, codes))
    return out


def test_a_take_is_the_one_that_is_made_alone(made: Path, bundle: Path, codes: Path) -> None:
    rows = read_codes(codes)
    tts, text = CatTTS.from_pretrained(bundle / "tts")
    found = list(contests(made))
    assert len(found) == 5 and len({one.depth for one in found}) > 1
    assert {one.text for one in found} <= set(rows["text"][:])
    for contest in found[:2]:
        asked = opening(tts, text, rows, contest, SamplingOptions())
        for number, take in enumerate(contest.takes):
            assert take.shape[1] == contest.depth and 0 < len(take) <= asked.max_frames
            decoder = FrameDecoder(tts)
            seed = key(0, contest.prompt, number) >> 1
            decoder.join(type(asked)(**{**vars(asked), "seed": seed}))
            alone = []
            while decoder.active:
                alone.append(decoder.step()[0])
            over = int(alone[-1][0]) == tts.config.tokens.audio_end
            assert contest.ended[number] == over
            codes_alone = torch.stack(alone[: len(alone) - over])[:, 1:].numpy()
            assert np.array_equal(codes_alone, take)


def test_what_is_there_is_not_made_again(made: Path, bundle: Path, codes: Path, tmp_path: Path) -> None:
    (file,) = made.iterdir()
    before = file.stat().st_mtime_ns
    make(options(made, bundle, codes))
    assert file.stat().st_mtime_ns == before
    main([str(tmp_path), "--model", str(bundle), "--codes", str(codes), "--contests", "5", "--takes", "3"])
    assert [one.text for one in contests(tmp_path)] == [one.text for one in contests(made)]


def test_bad_requests(bundle: Path, codes: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a text and at most 1 frames: give more max-frames"):
        make(options(tmp_path, bundle, codes, max_frames=1))
    with pytest.raises(ValueError, match=r"holds no takes: make some with training\.preference\.candidates"):
        list(contests(tmp_path))
