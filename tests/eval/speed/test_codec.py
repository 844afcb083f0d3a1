import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eval.speed.codec import main, small
from eval.speed.operator_count import operator_calls
from eval.speed.reference_codec import PublishedStyleCodec
from tokenizer import AudioTokenizer
from tokenizer.config import tiny

FRAME = 1920


@pytest.fixture(scope="module")
def model() -> AudioTokenizer:
    torch.manual_seed(1)
    return AudioTokenizer(replace(tiny(), context_seconds=0.32)).eval()


def test_published_style_is_the_same_model(model: AudioTokenizer) -> None:
    """Offline and streamed, past the window too."""
    published, audio = PublishedStyleCodec(model), 0.3 * torch.randn(2, 12 * FRAME)
    codes = model.encode(audio)
    assert torch.equal(published.encode(audio), codes) and len(codes.unique()) > 8
    torch.testing.assert_close(published.decode(codes), model.decode(codes), atol=1e-5, rtol=1e-5)
    rings = published.encoder_rings(2)
    streamed = [published.encode(piece, rings) for piece in audio.split(FRAME, 1)]
    assert torch.equal(torch.cat(streamed, 1), codes)
    rings = published.decoder_rings(2)
    streamed = [published.decode(code, rings) for code in codes.split(1, 1)]
    torch.testing.assert_close(torch.cat(streamed, 1), model.decode(codes), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_operator_calls_of_a_streamed_frame() -> None:
    """10 layers a side and 32 codebooks, the window full; the published way takes three times as many."""
    model = AudioTokenizer(replace(small(), context_seconds=0.32)).eval()
    published = PublishedStyleCodec(model)
    encoding, decoding = model.encoder_cache(), model.decoder_cache()
    audio, code = torch.randn(1, FRAME), torch.zeros(1, 1, 32, dtype=torch.long)
    for _ in range(5):
        model.encode(audio, cache=encoding)
        model.decode(code, decoding)
    encode = operator_calls(lambda: model.encode(audio, cache=encoding))
    decode = operator_calls(lambda: model.decode(code, decoding))
    assert encode <= 520 and decode <= 325
    rings = published.encoder_rings(), published.decoder_rings()
    assert operator_calls(lambda: published.encode(audio, rings[0])) > 3 * encode
    assert operator_calls(lambda: published.decode(code, rings[1])) > 3 * decode


def test_command(model: AudioTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.save_pretrained(tmp_path / "model")
    out = tmp_path / "speed.json"
    main(f"--tokenizer {tmp_path / 'model'} --rounds 1 --minutes 0.02 --out {out}".split())
    result = json.loads(out.read_text())
    assert result["codes"] == 1250 * model.config.num_codebooks and result["codes_differing"] == 0
    assert result["audio_difference"] < 1e-5 and result["stream_difference"] < 1e-5
    tasks = [row["task"] for row in result["rows"]]
    assert tasks[::3] == ["encode 10 s", "decode 30 s", "encode a frame", "dequantise a frame"]
    assert all(row["ours_ms"] > 0 for row in result["rows"])
    assert len(result["flatness"]["decode_ms"]) == 4 and len(set(result["flatness"]["cache_mb"])) == 1
    assert "| dequantise a frame |" in capsys.readouterr().out


def test_there_must_be_a_place_for_the_result(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        main(["--out", str(tmp_path / "nowhere" / "speed.json")])
