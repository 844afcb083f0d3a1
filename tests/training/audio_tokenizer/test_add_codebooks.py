from pathlib import Path

import pytest
import torch

from inference import Synthesizer
from inference.engine.options import UNWATCHED, SynthesisOptions
from tokenizer import AudioTokenizer, load_audio
from training.audio_tokenizer.add_codebooks import AddCodebooksOptions, add_codebooks, main
from training.bundle import main as bundle_main
from training.data.code_shards import read_codes, read_info, require_tokenizer
from training.data.manifest import read_manifest
from training.prepare import PrepareOptions, prepare
from training.train_tokenizer import main as train_main


@pytest.fixture(scope="module")
def deeper(codec: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny tokenizer, with ten codebooks in place of six."""
    folder = tmp_path_factory.mktemp("deeper")
    main([str(folder), "--tokenizer", str(codec), "--data", str(corpus), "--codebooks", "10"])
    return folder


@torch.no_grad()
def test_the_first_codes_stay_and_more_codebooks_leave_less(codec: Path, corpus: Path, deeper: Path) -> None:
    before, after = AudioTokenizer.from_pretrained(codec), AudioTokenizer.from_pretrained(deeper)
    audio = load_audio(read_manifest(corpus)[0].audio)[None]
    codes = after.encode(audio)
    assert codes.shape[-1] == 10
    assert torch.equal(codes[..., :6], before.encode(audio))
    assert torch.equal(after.decode(codes[..., :6]), before.decode(codes[..., :6]))
    target = after.quantizer.project_in(after.latents(audio[:, : audio.shape[1] // 1920 * 1920]))
    left = []
    for layer in after.quantizer.layers:
        target = target - layer.project_out(layer.codebook(layer.nearest(layer.project_in(target))))
        left.append(float(target.square().sum()))
    assert left[5:] == sorted(left[5:], reverse=True) and left[9] < 0.5 * left[5]
    assert all(codes[..., k].unique().numel() > 5 for k in range(6, 10))


def test_the_same_seed_gives_the_same(codec: Path, corpus: Path, deeper: Path, tmp_path: Path) -> None:
    add_codebooks(AddCodebooksOptions(out=tmp_path, tokenizer=codec, data=corpus, codebooks=10))
    assert (tmp_path / "model.safetensors").read_bytes() == (deeper / "model.safetensors").read_bytes()


def test_a_decoder_trains_on_it(corpus: Path, deeper: Path, tmp_path: Path) -> None:
    """Its preset has six codebooks."""
    arguments = ["tiny", "--data", str(corpus), "--run", str(tmp_path / "run"), "--init", str(deeper)]
    arguments += ["--trainable", "decoder", "--steps", "1", "--adversarial-from", "None"]
    train_main([*arguments, "--weights.semantic", "0", "--batches.depths", "1", "10"])
    trained, before = (AudioTokenizer.from_pretrained(path) for path in (tmp_path / "run" / "model", deeper))
    audio = load_audio(read_manifest(corpus)[0].audio)[None]
    codes = before.encode(audio)
    assert torch.equal(trained.encode(audio), codes)
    assert not torch.equal(trained.decode(codes), before.decode(codes))


@pytest.mark.usefixtures("datasets_cache")
def test_a_model_is_trained_on_its_first_codes(
    corpus: Path, deeper: Path, codec: Path, tmp_path: Path
) -> None:
    options = PrepareOptions(out=tmp_path / "codes", manifest=corpus, tokenizer=str(deeper), depth=6)
    info = prepare(options)
    assert info.num_codebooks == 6 and info == read_info(tmp_path / "codes")
    require_tokenizer(info, AudioTokenizer.from_pretrained(deeper))
    audio = load_audio(read_manifest(corpus)[0].audio)[None]
    wanted = AudioTokenizer.from_pretrained(codec).encode(audio)[0]
    assert torch.equal(torch.tensor(read_codes(tmp_path / "codes")[0]["codes"]), wanted.short())
    with pytest.raises(ValueError, match="depth=11: this tokenizer has 10 codebooks, keep 1 or more"):
        prepare(PrepareOptions(out=tmp_path / "none", manifest=corpus, tokenizer=str(deeper), depth=11))
    assert not (tmp_path / "none").exists()


def test_a_shallower_model_speaks_through_it(bundle: Path, corpus: Path, tmp_path: Path) -> None:
    deep = AddCodebooksOptions(
        out=tmp_path / "deep", tokenizer=bundle / "tokenizer", data=corpus, codebooks=7
    )
    add_codebooks(deep)
    bundle_main([str(tmp_path / "both"), "--tokenizer", str(tmp_path / "deep"), "--tts", str(bundle / "tts")])
    synthesizer = Synthesizer.from_pretrained(tmp_path / "both", device="cpu")
    take = synthesizer.synthesize(
        "a dog",
        synthesizer.load_voice(read_manifest(corpus)[0].audio, "the fox sings"),
        SynthesisOptions(policy=UNWATCHED),
    )
    assert take.codes.shape[-1] == 6 and len(take.audio) > 0


def test_fewer_codebooks_are_refused(codec: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"codebooks=6, and .* has 6: ask for more"):
        add_codebooks(AddCodebooksOptions(out=tmp_path / "out", tokenizer=codec, data=corpus, codebooks=6))
    assert not (tmp_path / "out").exists()
