from pathlib import Path

import pytest
import torch

from cat_tts import CatTTS
from cat_tts import config as tts_presets
from tokenizer import AudioTokenizer
from tokenizer import config as presets
from tokenizer.io.audio import save_audio
from training.data.manifest import Clip, write_manifest
from training.tts.remap_codes import RemapOptions, fit, main, remap_codes

FRAMES, SIZE = 20_000, 32


@pytest.fixture
def renamed() -> tuple[CatTTS, CatTTS, torch.Tensor, torch.Tensor]:
    """A model, the same after its codes have got new numbers, and frames in both."""
    torch.manual_seed(0)
    model = CatTTS(tts_presets.tiny())
    depth = model.config.num_codebooks
    old = torch.randint(SIZE, (FRAMES, depth))
    names = torch.stack([torch.randperm(SIZE) for _ in range(depth)])
    new = torch.stack([names[k][old[:, k]] for k in range(depth)], 1)
    translated = CatTTS(tts_presets.tiny())
    translated.load_state_dict(model.state_dict())
    fit(translated, old, new)
    return model, translated, old, new


def rows(codes: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.full((len(codes), 1), 3), codes], 1)[None]


def test_frames_with_other_names_add_up_to_the_same(
    renamed: tuple[CatTTS, CatTTS, torch.Tensor, torch.Tensor],
) -> None:
    model, translated, old, new = renamed
    with torch.no_grad():
        wanted = model.embed(rows(old[:200]), model.config.num_codebooks)
        found = translated.embed(rows(new[:200]), model.config.num_codebooks)
    assert (found - wanted).norm() < 0.15 * (wanted - wanted.mean(1, keepdim=True)).norm()


def test_scores_get_the_new_names_and_the_row_of_no_code_stays(
    renamed: tuple[CatTTS, CatTTS, torch.Tensor, torch.Tensor],
) -> None:
    model, translated, old, new = renamed
    for k, (head, moved) in enumerate(zip(model.depth.code_heads, translated.depth.code_heads, strict=True)):
        wanted, found = head.weight[old[:100, k]], moved.weight[new[:100, k]]
        assert (found - wanted).norm() < 0.05 * wanted.norm()
        assert torch.equal(head.weight[SIZE:], moved.weight[SIZE:])
    for table, moved in zip(model.code_embeddings, translated.code_embeddings, strict=True):
        assert torch.equal(table.weight[SIZE:], moved.weight[SIZE:])


def test_a_code_that_never_occurs_says_nothing() -> None:
    torch.manual_seed(0)
    model = CatTTS(tts_presets.tiny())
    old = torch.randint(SIZE, (500, model.config.num_codebooks))
    fit(model, old, old % 8)
    assert model.code_embeddings[1].weight[8:SIZE].abs().max() == 0


def test_the_command_translates_a_bundle(bundle: Path, tmp_path: Path) -> None:
    clips = []
    for i in range(4):
        path = tmp_path / f"{i}.wav"
        save_audio(path, 0.1 * torch.randn(24_000 + 500 * i), 24_000)
        spoken_text = {"text": None, "speaker": "a", "language": "en", "source": "noise", "license": "none"}
        clips.append(Clip(audio=path, duration=1 + i / 48, **spoken_text))
    write_manifest(tmp_path / "clips.jsonl", clips)
    torch.manual_seed(1)
    AudioTokenizer(presets.tiny()).save_pretrained(tmp_path / "after")
    files = ["--tts", str(bundle / "tts"), "--before", str(bundle / "tokenizer")]
    others = ["--after", str(tmp_path / "after"), "--data", str(tmp_path / "clips.jsonl"), "--seconds", "2.5"]
    main([str(tmp_path / "out"), *files, *others])
    model, text = CatTTS.from_pretrained(tmp_path / "out")
    before, _ = CatTTS.from_pretrained(bundle / "tts")
    assert text.encode("a")
    assert not torch.equal(model.code_embeddings[0].weight, before.code_embeddings[0].weight)
    assert torch.equal(model.text_embedding.weight, before.text_embedding.weight)


def test_tokenizers_of_other_sizes_are_refused(bundle: Path, tmp_path: Path) -> None:
    AudioTokenizer(presets.mini()).save_pretrained(tmp_path / "after")
    options = RemapOptions(
        out=tmp_path / "out",
        tts=bundle / "tts",
        before=bundle / "tokenizer",
        after=tmp_path / "after",
        data=tmp_path / "clips.jsonl",
    )
    with pytest.raises(ValueError, match="12 codebooks of 1024 codes, the model speaks 6 of 32"):
        remap_codes(options)
