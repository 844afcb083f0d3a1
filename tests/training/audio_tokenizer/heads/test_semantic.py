import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from cat_tts.text.tokenizers import HuggingFaceText
from tests.helpers.paths import GOLDEN
from tokenizer.io.checkpoint import CheckpointError
from training.audio_tokenizer.heads.semantic import SemanticHead
from training.audio_tokenizer.heads.semantic_config import SemanticConfig, mini, paper, tiny
from training.data.manifest import TASKS

TEXT = GOLDEN / "prompt"
TEXTS = [b"hello", b"", b"a", "größe".encode()]
FRAMES = [7, 9, 4, 0]


def head(config: SemanticConfig | None = None) -> SemanticHead:
    """Weights large enough that all it reads matters."""
    model = SemanticHead(config or tiny())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    return model


def batch() -> tuple[Tensor, Tensor, Tensor, list[list[int]]]:
    latents = torch.randn(4, 9, 24)
    for row, frames in zip(latents, FRAMES, strict=True):
        row[frames:] = 1e3  # what stands in the padding must not matter
    return latents, torch.tensor(FRAMES), torch.tensor([0, 1, 2, 0]), [list(text) for text in TEXTS]


def gradients(model: SemanticHead) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: grad for name, grad in found.items() if grad is not None}


def test_loss_by_hand() -> None:
    """One sequence written out: tag, frames, text in; text and end expected."""
    model, (latents, _, _, _) = head(), batch()
    loss = model(latents[:1, :3], torch.tensor([3]), torch.tensor([2]), [[5, 6]])
    words = model.llm.embed_tokens.weight
    x = torch.cat([model.tags.weight[2:3], model.project(latents[0, :3]), words[[5, 6]]])
    states = model.llm(inputs_embeds=x[None]).last_hidden_state[0]
    log = (states @ words.T).log_softmax(-1)
    torch.testing.assert_close(loss.total, -(log[3, 5] + log[4, 6] + log[5, 256]))
    assert loss.tokens.item() == 3


def test_padded_batch_is_the_sum_of_its_items() -> None:
    model, (latents, frames, tasks, texts) = head(), batch()
    batched = model(latents, frames, tasks, texts)
    single = [
        model(latents[i : i + 1, : FRAMES[i]], frames[i : i + 1], tasks[i : i + 1], [texts[i]])
        for i in (0, 2, 3)
    ]
    torch.testing.assert_close(batched.total, torch.stack([loss.total for loss in single]).sum())
    assert batched.tokens.item() == sum(loss.tokens.item() for loss in single) == 6 + 2 + 8


def test_items_without_text_count_nothing() -> None:
    model, (latents, frames, tasks, texts) = head(), batch()
    latents.requires_grad_()
    with_silent = model(latents, frames, tasks, texts)
    with_silent.total.backward()
    textless, before = gradients(model), latents.grad
    assert before is not None and (before[1] == 0).all()
    kept = [0, 2, 3]
    model.zero_grad()
    without = model(latents[kept], frames[kept], tasks[kept], [texts[i] for i in kept])
    without.total.backward()
    assert torch.equal(with_silent.total, without.total) and torch.equal(with_silent.tokens, without.tokens)
    for name, gradient in gradients(model).items():
        assert torch.equal(textless[name], gradient), name


def test_batch_without_text_has_gradients_of_zeros() -> None:
    """Every parameter takes part, as it does in a batch with text: processes must reduce the same ones."""
    model, (latents, frames, tasks, texts) = head(), batch()
    latents.requires_grad_()
    loss = model(latents, frames, tasks, [[]] * 4)
    loss.total.backward()
    assert loss.total.item() == 0 and loss.tokens.item() == 0
    zeros = gradients(model)
    assert latents.grad is not None and not latents.grad.any() and not any(g.any() for g in zeros.values())
    model.zero_grad()
    model(latents, frames, tasks, texts).total.backward()
    assert zeros.keys() == gradients(model).keys() == dict(model.named_parameters()).keys()


def test_text_reads_its_own_audio_and_nothing_else() -> None:
    model, (latents, frames, tasks, texts) = head(), batch()
    latents.requires_grad_()
    model(latents, frames, tasks, texts).total.backward()
    assert latents.grad is not None
    reached = [row.abs().sum(-1).nonzero().flatten().tolist() for row in latents.grad]
    assert reached == [list(range(7)), [], list(range(4)), []]


def test_text_of_one_item_does_not_change_another() -> None:
    model, (latents, frames, tasks, texts) = head(), batch()
    first = model(latents[:1], frames[:1], tasks[:1], texts[:1]).total
    for other in ([9] * 30, [1]):
        second = model(latents[2:3], frames[2:3], tasks[2:3], [other]).total
        both = model(latents[[0, 2]], frames[[0, 2]], tasks[[0, 2]], [texts[0], other]).total
        torch.testing.assert_close(both - second, first, atol=1e-4, rtol=1e-5)


def test_task_matters() -> None:
    model, (latents, frames, _, texts) = head(), batch()
    totals = [model(latents, frames, torch.full((4,), task), texts).total.item() for task in range(3)]
    assert len(set(totals)) == 3


def test_overfits_a_batch_and_then_writes_it() -> None:
    """Two recordings, one of which says something else as its caption; batch == single in writing, too."""
    model = SemanticHead(tiny())
    latents = torch.randn(2, 6, 24)[[0, 1, 1]]
    frames, tasks, words = torch.tensor([4, 6, 6]), torch.tensor([0, 0, 2]), ["red", "blue ß", "a dog"]
    texts = [model.encode_text(text) for text in words]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    means = []
    for _ in range(60):
        loss = model(latents, frames, tasks, texts)
        means.append((loss.total / loss.tokens).item())
        optimizer.zero_grad()
        (loss.total / loss.tokens).backward()
        optimizer.step()
    assert means[0] > 4 and means[-1] < 0.1
    assert model.transcribe(latents[:2], frames[:2], "asr") == ["red", "blue ß"]
    assert model.transcribe(latents[:1, :4], frames[:1], "asr") == ["red"]
    assert model.transcribe(latents[1:2], frames[1:2], "caption") == ["a dog"]
    assert model.transcribe(latents[:2], frames[:2], "asr", max_tokens=2) == ["re", "bl"]


def test_writing_is_the_argmax_of_teacher_forcing() -> None:
    """What a random head writes is what the loss finds likeliest, padded on the left or not."""
    model, (latents, _, _, _) = head(), batch()
    latents[:] = torch.randn_like(latents)
    words, ids = model.llm.embed_tokens.weight, [[], []]
    for row, frames in enumerate((9, 3)):
        x = torch.cat([model.tags.weight[:1], model.project(latents[row, :frames])])
        while len(ids[row]) < 6 and 256 not in ids[row]:
            state = model.llm(inputs_embeds=x[None], use_cache=False).last_hidden_state[0, -1]
            ids[row].append(int((words @ state).argmax()))
            x = torch.cat([x, words[ids[row][-1:]]])
    expected = [bytes(i for i in row if i != 256).decode(errors="replace") for row in ids]
    assert any(len(set(row)) > 2 for row in ids)
    assert model.transcribe(latents[:2], torch.tensor([9, 3]), "asr", max_tokens=6) == expected


def test_saved_and_loaded_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    model, items = head(), batch()
    model.save_pretrained(tmp_path)
    again = SemanticHead.from_pretrained(tmp_path)
    state, loaded = model.state_dict(), again.state_dict()
    assert again.config == model.config and not again.training and state.keys() == loaded.keys()
    assert all(torch.equal(state[name], loaded[name]) for name in state)
    assert torch.equal(model(*items).total, again(*items).total)
    assert json.loads((tmp_path / "config.json").read_text())["tasks"] == list(TASKS)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tasks", ["asr", "caption"], "tasks asr, caption but this version knows asr, multi"),
        ("tasks", ["caption", "multi_speaker_asr", "asr"], "in this order"),
        ("colour", 1, "colour"),
        ("end", 300, "end=300 is no id"),
        ("num_heads", 5, "num_heads=5"),
        ("vocab_size", 300, "do not fit"),
    ],
)  # fmt: skip
def test_another_checkpoint_is_refused(tmp_path: Path, key: str, value: object, message: str) -> None:
    head().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(CheckpointError, match=message):
        SemanticHead.from_pretrained(tmp_path)


def llm(folder: Path, vocab_size: int = 1000, tied: bool = True) -> Qwen2ForCausalLM:
    """A small LLM in a folder, as the hub has them."""
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        tie_word_embeddings=tied,
        eos_token_id=3,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.25)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text((TEXT / name).read_text())
    return model


def test_starts_from_a_trained_llm_and_its_tokenizer(tmp_path: Path) -> None:
    vocabulary = HuggingFaceText(TEXT).vocab_size
    source = llm(tmp_path / "llm", vocab_size=vocabulary)
    config = json.loads((tmp_path / "llm" / "config.json").read_text())
    del config["rope_parameters"]  # Qwen2.5 is published with the older key
    (tmp_path / "llm" / "config.json").write_text(json.dumps({**config, "rope_theta": 1e6}))
    model = SemanticHead.from_llm(tmp_path / "llm", latent_dim=24)
    assert model.config.rope_theta == 1e6 and model.config.end == 3

    ids = model.encode_text("Hello there")
    assert ids == HuggingFaceText(TEXT).encode("Hello there")
    x = source.get_input_embeddings()(torch.tensor([ids]))
    source.model.rotary_emb = model.llm.rotary_emb
    expected = source(inputs_embeds=x).logits[0]
    torch.testing.assert_close(model.logits(model.llm(inputs_embeds=x).last_hidden_state[0]), expected)

    model.save_pretrained(tmp_path / "head")
    again, item = SemanticHead.from_pretrained(tmp_path / "head"), (torch.randn(1, 5, 24), torch.tensor([5]))
    assert again.encode_text("Hello there") == ids
    assert torch.equal(*[m(*item, torch.tensor([0]), [ids]).total for m in (model, again)])
    assert again.transcribe(*item, "asr", max_tokens=5) == model.transcribe(*item, "asr", max_tokens=5)


def test_another_llm_is_refused(tmp_path: Path) -> None:
    llm(tmp_path / "untied", tied=False)
    other = Qwen3Config(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2
    )
    Qwen3ForCausalLM(other).save_pretrained(tmp_path / "qwen3")
    for name in ("untied", "qwen3"):
        with pytest.raises(ValueError, match="is no Qwen2 with tied embeddings"):
            SemanticHead.from_llm(tmp_path / name, latent_dim=24)


def test_presets() -> None:
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in SemanticHead(c).llm.parameters()) for c in (paper(), mini())]
    assert sizes == [494_032_768, 4_790_784]  # the first is Qwen2.5-0.5B's


def test_bad_input_is_refused() -> None:
    model, (latents, frames, tasks, texts) = head(), batch()
    with pytest.raises(ValueError, match="3 texts for 4 items"):
        model(latents, frames, tasks, texts[:3])
    with pytest.raises(ValueError, match="task 'sing': choose one of asr"):
        model.transcribe(latents, frames, "sing")
    with torch.device("meta"), pytest.raises(ValueError, match="no text tokenizer: make it by from_llm"):
        SemanticHead(paper()).encode_text("hello")
    with pytest.raises(ValueError, match="ids for 257 embeddings"):
        SemanticHead(tiny(), HuggingFaceText(TEXT))
