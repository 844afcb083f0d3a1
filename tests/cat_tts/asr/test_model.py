import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cat_tts.asr.config import ASRConfig, ASRTokens, mini, paper, tiny
from cat_tts.asr.model import CatASR, pad_texts
from cat_tts.text.tokenizers import SentencePieceText

CAUSAL = replace(tiny(), bidirectional=False, ctc_layer=None)


def model(config: ASRConfig) -> CatASR:
    """Random weights, large enough that everything read matters."""
    asr = CatASR(config).eval()
    with torch.no_grad():
        for parameter in asr.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    return asr


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, frames and texts of three utterances."""
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(32, (3, 7, 6), generator=draw)
    return codes, torch.tensor([7, 4, 5]), pad_texts([[5, 6, 7], [8], [9, 10, 11, 12]])


def text_of(bundle: Path) -> SentencePieceText:
    return SentencePieceText(bundle / "tts" / "text.model")


def test_the_papers_model_has_the_papers_size() -> None:
    with torch.device("meta"):
        asr = CatASR(paper())
    assert sum(table.weight.numel() for table in asr.code_embeddings) == 67_108_864  # 32 x 1024 x 2048
    assert sum(p.numel() for p in asr.parameters()) == 1_720_574_976 + 67_108_864  # Qwen3-1.7B and the tables
    assert asr.ctc is None and asr.head is None and not asr.config.bidirectional


def test_the_mini_model_is_small() -> None:
    assert sum(p.numel() for p in CatASR(mini()).parameters()) == 8_131_458


def test_an_embedding_is_the_sum_over_the_codebooks_in_use() -> None:
    asr, (codes, frames, _) = model(CAUSAL), batch()
    x = asr.embed(codes, frames, torch.tensor([6, 2, 1]))
    tables = [table.weight for table in asr.code_embeddings]
    words = asr.text_embedding.weight
    torch.testing.assert_close(x[1, 0], words[1])
    torch.testing.assert_close(x[1, 3], tables[0][codes[1, 2, 0]] + tables[1][codes[1, 2, 1]])
    torch.testing.assert_close(x[1, 5], words[2])
    assert not x[1, 6:].any()
    torch.testing.assert_close(x[2, 1], tables[0][codes[2, 0, 0]])
    torch.testing.assert_close(x[0, 8], words[2])


@pytest.mark.parametrize("config", [CAUSAL, tiny()], ids=["causal", "bidirectional"])
def test_the_loss_of_a_batch_is_that_of_its_utterances(config: ASRConfig) -> None:
    asr, (codes, frames, text), depth = model(config), batch(), torch.tensor([6, 3, 1])
    ctc_targets = pad_texts([list(b"abca"), list(b"bb"), list(b"c")])
    batched = asr(codes, frames, text, depth, ctc_targets=ctc_targets)
    sums = torch.zeros(2)
    for i in range(3):
        words = text[i : i + 1, : int((text[i] >= 0).sum())]
        letters = ctc_targets[i : i + 1, : int((ctc_targets[i] >= 0).sum())]
        single = asr(
            codes[i : i + 1, : frames[i]], frames[i : i + 1], words, depth[i : i + 1], ctc_targets=letters
        )
        sums += torch.stack([single.text * (words.shape[1] + 1), single.ctc * letters.shape[1]])
    torch.testing.assert_close(batched.text, sums[0] / (8 + 3))  # 8 tokens and 3 ends
    torch.testing.assert_close(batched.ctc, sums[1] / 7)
    assert (batched.ctc > 0) == (config.ctc_layer is not None)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_each_state_attends_to(bidirectional: bool) -> None:
    asr = model(replace(CAUSAL, bidirectional=bidirectional))
    x = torch.randn(1, 9, 32, requires_grad=True)  # start, 4 frames, end, 3 tokens of text
    states, _ = asr.states(x, asr.audio_mask(torch.tensor([4]), 9))
    for place in (2, 6):
        (grad,) = torch.autograd.grad(states[0, place].square().sum(), x, retain_graph=True)
        last = 5 if bidirectional and place < 6 else place
        assert grad[0].abs().sum(1).gt(0).tolist() == [i <= last for i in range(9)]


def test_the_loss_is_on_text_alone_and_on_what_was_written_not_read() -> None:
    asr, (codes, frames, text), depth = model(CAUSAL), batch(), torch.tensor([6, 6, 6])
    plain = asr(codes, frames, text, depth)
    torch.testing.assert_close(asr(codes, frames, text, depth, text), plain)
    decoder_inputs = text.clone()
    decoder_inputs[0, 0] = 20
    noised = asr(codes, frames, text, depth, decoder_inputs)
    assert not torch.isclose(noised.text, plain.text)
    # What is read last is followed by the end alone: its target has not changed.
    last = text[1:2, :1]
    one = asr(codes[1:2], frames[1:2], last, depth[1:2])
    assert not torch.isclose(asr(codes[1:2], frames[1:2], last, depth[1:2], last + 1).text, one.text)


def test_an_utterance_of_more_bytes_than_steps_has_no_ctc_loss() -> None:
    asr, codes = model(tiny()), torch.zeros(1, 2, 6, dtype=torch.long)
    frames, depth, text = torch.tensor([2]), torch.tensor([6]), torch.tensor([[5, 6, 7]])
    for word, has_path in {"four": True, "fives": False, "too": True, "tool": False}.items():
        loss = asr(codes, frames, text, depth, ctc_targets=torch.tensor([list(word.encode())]))
        assert (loss.ctc > 0) == has_path and loss.text > 0  # a doubled letter needs a blank between


def test_the_second_head_predicts_targets() -> None:
    """Its loss is that of all the ways to write "a" in two steps: a_, _a, aa."""
    asr, codes, frames = model(tiny()), torch.zeros(1, 1, 6, dtype=torch.long), torch.tensor([1])
    loss = asr(codes, frames, torch.tensor([[5]]), torch.tensor([6]), ctc_targets=torch.tensor([[97]])).ctc
    x = asr.embed(codes, frames, torch.tensor([6]))
    x = torch.cat([x, asr.text_embedding(torch.tensor([[5]]))], 1)
    _, inner = asr.states(x, asr.audio_mask(frames, 4))
    assert inner is not None
    first, second = asr.ctc_logits(inner[:, 1:2])[0].softmax(-1)
    wanted = first[97] * second[256] + first[256] * second[97] + first[97] * second[97]
    torch.testing.assert_close(loss, -wanted.log())


def test_the_vocabulary_of_the_second_head() -> None:
    """Bytes in lower case, or the phonemes that it knows, without stress and punctuation."""
    assert model(tiny()).ctc_targets("No!") == list(b"no!")
    spoken = model(replace(tiny(), phonemes=("O", "n", "ʃ")))
    assert spoken.ctc_targets("No, shown!") == spoken.ctc_targets("Know shone.") == [1, 0, 2, 0, 1]
    assert spoken.ctc_logits(torch.zeros(1, 3, 32)).shape == (1, 6, 4)
    codes, frames, text = batch()
    ctc_targets = pad_texts([spoken.ctc_targets(label) for label in ("no", "show", "own")])
    assert spoken(codes, frames, text, torch.tensor([6, 3, 1]), ctc_targets=ctc_targets).ctc > 0


def test_codes_of_too_few_codebooks_are_refused() -> None:
    with pytest.raises(ValueError, match="depth=3 but the codes have 2 codebooks"):
        model(CAUSAL).embed(torch.zeros(1, 4, 2).long(), torch.tensor([4]), torch.tensor([3]))


@pytest.mark.parametrize("config", [tiny(), replace(CAUSAL, tied=False)], ids=["tiny", "untied"])
def test_a_model_survives_its_folder(config: ASRConfig, bundle: Path, tmp_path: Path) -> None:
    asr, text = model(config), text_of(bundle)
    asr.save_pretrained(tmp_path, text)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "text.model",
    ]
    loaded, reader = CatASR.from_pretrained(tmp_path)
    assert loaded.config == config and not loaded.training
    assert reader.encode("the red fox") == text.encode("the red fox")
    codes, frames, words = batch()
    depth = torch.tensor([6, 3, 1])
    torch.testing.assert_close(loaded(codes, frames, words, depth), asr(codes, frames, words, depth))


def test_an_unknown_key_is_refused(bundle: Path, tmp_path: Path) -> None:
    model(tiny()).save_pretrained(tmp_path, text_of(bundle))
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, "beams": 3}))
    with pytest.raises(ValueError, match="beams"):
        CatASR.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tokens": {"audio_start": 1, "audio_end": 1, "text_end": 0}}, "give three different ids"),
        ({"text_vocab_size": 2}, "token 2 is no id of a vocabulary of 2"),
        ({"ctc_layer": 3}, "ctc_layer=3: choose 1 to 2, or None"),
        ({"ctc_layer": None, "phonemes": ("a",)}, "give its ctc_layer"),
    ],
)
def test_a_bad_shape_is_refused(change: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        if "tokens" in change:
            change = {"tokens": ASRTokens(**change["tokens"])}
        replace(tiny(), **change)
