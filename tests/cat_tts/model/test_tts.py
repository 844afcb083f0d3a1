from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, Qwen3Config, Qwen3Model

from cat_tts.config import TTSConfig, paper, tiny
from cat_tts.model.tts import CatTTS
from cat_tts.sequences.rows import IGNORED, shifted_targets
from cat_tts.text.tokenizers import HuggingFaceText
from tests.helpers.paths import GOLDEN

TEXT = GOLDEN / "prompt"
PUBLISHED_STYLE = replace(tiny(), adapter_dim=20, full_text_head=True)
CONFIGS = [tiny(), PUBLISHED_STYLE]


def tts(config: TTSConfig | None = None) -> CatTTS:
    """Weights large enough for every input to matter, norms off their initial ones."""
    model = CatTTS(config or tiny()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.normal_(std=0.25)
    return model


def utterance(config: TTSConfig, text: int, frames: int) -> Tensor:
    """Random rows [text + 1 + frames + 1, 1 + K]: text, audio start, frames, audio end."""
    tokens = config.tokens
    rows = torch.full((text + frames + 2, 1 + config.num_codebooks), config.pad_code)
    rows[:text, 0] = torch.randint(10, config.text_vocab_size, (text,))
    rows[text, 0], rows[text + 1 : -1, 0], rows[-1, 0] = tokens.audio_start, tokens.slot, tokens.audio_end
    rows[text + 1 : -1, 1:] = torch.randint(config.codebook_size, (frames, config.num_codebooks))
    return rows


def batch(config: TTSConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, mask and targets of three utterances of different lengths, padded on the right."""
    whole = [utterance(config, text, frames) for text, frames in ((4, 5), (2, 3), (6, 1))]
    targets = pad_sequence([shifted_targets(config, rows[None])[0] for rows in whole], True, IGNORED)
    rows = pad_sequence([rows[:-1] for rows in whole], True, config.pad_code)
    mask = pad_sequence([torch.ones(len(rows) - 1, dtype=torch.bool) for rows in whole], True)
    rows[..., 0][~mask] = config.tokens.pad
    return rows, mask, targets


def test_state_sees_no_later_row() -> None:
    model, rows = tts(), utterance(tiny(), 4, 5)[None]
    for step in (0, 4, 8):
        embedded = model.embed(rows, 6).detach().requires_grad_()
        (model.states(embedded)[:, step] * torch.randn(32)).sum().backward()
        assert embedded.grad is not None
        assert embedded.grad[0].abs().sum(-1).nonzero().flatten().tolist() == list(range(step + 1))


@pytest.mark.parametrize("config", CONFIGS)
def test_code_sees_the_state_the_decision_and_earlier_codes(config: TTSConfig) -> None:
    """Read off the gradients of the tables that the Depth Transformer's inputs are looked up in."""
    model, target = tts(config), utterance(config, 1, 1)[2:3]
    for k in range(-1, 6):
        state = torch.randn(1, 32, requires_grad=True)
        decision, codes = model.frame_logits(state, target)
        read = decision if k < 0 else codes[:, k]
        model.zero_grad()
        (read * torch.randn_like(read)).sum().backward()
        tables = [model.text_embedding, *model.code_embeddings]
        fed = [t.weight.grad is not None and bool(t.weight.grad.abs().sum() > 0) for t in tables]
        assert fed == [j <= k for j in range(7)]
        assert state.grad is not None and state.grad.abs().sum() > 0


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("frame", "column"), [(0, 0), (2, 1), (2, 6), (3, 4)])
def test_code_reaches_what_comes_after_it_and_nothing_else(
    config: TTSConfig, frame: int, column: int
) -> None:
    """Change one entry of one frame: what moves is the rest of that frame and all of the later ones."""
    model, rows = tts(config), utterance(config, 3, 5)
    changed = rows.clone()
    changed[4 + frame, column] = (rows[4 + frame, column] + 1) % 32 if column else 77
    logits = []
    for one in (rows, changed):
        states = model.states(model.embed(one[None], 6))[0, 3:8]  # states that predict the five frames
        decision, codes = model.frame_logits(states, one[4:9])
        logits.append([decision[:, None], *codes.split(1, 1)])
    moved = torch.cat([(a - b).abs().amax(-1) for a, b in zip(*logits, strict=True)], 1) > 0
    at = torch.arange(5)[:, None] * 7 + torch.arange(7)
    assert torch.equal(moved, at > frame * 7 + column)


@pytest.mark.parametrize("config", CONFIGS)
def test_loss_by_hand(config: TTSConfig) -> None:
    """Eq. 9 written out: every kept code of every target frame, one at a time, without any padding."""
    model, depth = tts(config), torch.tensor([2, 6, 5])
    rows, mask, targets = batch(config)
    loss = model(rows, mask, targets, depth)
    codes, decisions, by_layer = [], [], [[] for _ in range(6)]
    for i, kept in enumerate(depth.tolist()):
        states = model.states(model.embed(rows[i : i + 1, mask[i]], kept))[0]
        for state, target in zip(states, targets[i], strict=False):
            if target[0] == IGNORED:
                continue
            decision, logits = model.frame_logits(state[None], target[None, : 1 + kept])
            wanted = target[0] if config.full_text_head else (target[0] == config.tokens.audio_end).long()
            decisions.append(-decision[0].log_softmax(-1)[wanted])
            for k in range(kept):
                if target[1 + k] != IGNORED:
                    codes.append(-logits[0, k].log_softmax(-1)[target[1 + k]])
                    by_layer[k].append(codes[-1])
    assert (len(decisions), len(codes)) == (6 + 4 + 2, 5 * 2 + 3 * 6 + 1 * 5)
    torch.testing.assert_close(loss.codes, torch.stack(codes).mean())
    torch.testing.assert_close(loss.decision, torch.stack(decisions).mean())
    torch.testing.assert_close(loss.layers, torch.stack([torch.stack(layer).mean() for layer in by_layer]))


def test_dropped_codebooks_and_padding_do_not_matter() -> None:
    model, depth = tts(), torch.tensor([2, 4, 1])
    rows, mask, targets = batch(tiny())
    loss = model(rows, mask, targets, depth)
    loss.codes.backward()
    for modules in (model.code_embeddings, model.depth.code_heads):
        gradients = [g for module in modules if (g := module.weight.grad) is not None]
        assert len(gradients) == 6  # sharded weights must all have one
        assert [bool(gradient.any()) for gradient in gradients] == [True] * 4 + [False] * 2
    assert loss.layers.isnan().tolist() == [False] * 4 + [True] * 2
    for i, kept in enumerate(depth):
        rows[i, :, 1 + kept :] = torch.randint(33, rows[i, :, 1 + kept :].shape)
        targets[i, :, 1 + kept :] = torch.randint(32, targets[i, :, 1 + kept :].shape)
    rows[~mask] = torch.randint(10, 32, rows[~mask].shape)
    for arguments in (mask, None):  # padding on the right needs no mask
        again = model(rows, arguments, targets, depth)
        torch.testing.assert_close((again.codes, again.decision), (loss.codes, loss.decision))


def test_deep_codebooks_may_be_learnt_on_some_frames() -> None:
    """Those count for the others: over all choices of one frame in nine, the loss is as of all frames."""
    model, depth = tts(), torch.tensor([2, 4, 1])
    rows, mask, targets = batch(tiny())
    whole = model(rows, mask, targets, depth)
    frames = (targets[..., 1] != IGNORED).nonzero()
    parts = []
    for i, t in frames.tolist():
        deep = torch.zeros(targets.shape[:2], dtype=torch.bool)
        deep[i, t] = True
        parts.append(model(rows, mask, targets, depth, deep=deep))
    for part in parts:
        torch.testing.assert_close(part.code_sums[0], whole.code_sums[0])
        assert torch.equal(part.code_counts, whole.code_counts)
    mean = torch.stack([part.code_sums for part in parts]).mean(0)
    torch.testing.assert_close(mean, whole.code_sums)
    changed = targets.clone()
    first, last = (targets[1, :, 1] != IGNORED).nonzero().flatten()[[0, -1]].tolist()
    changed[1, first : last + 1, 2:] = torch.randint(32, changed[1, first : last + 1, 2:].shape)
    deep = (targets[..., 1] != IGNORED) & (torch.arange(3) != 1)[:, None]
    one, other = (model(rows, mask, t, depth, deep=deep).code_sums for t in (targets, changed))
    assert torch.equal(one, other)


def test_attention_is_the_same_with_and_without_a_mask() -> None:
    """Without one it goes through `attend`; positions that fall are no new sequence."""
    model, rows = tts(), torch.stack([utterance(tiny(), 5, 8) for _ in range(2)])
    embedded, mask = model.embed(rows, 6), torch.ones(2, 15, dtype=torch.bool)
    places = torch.cat([torch.arange(6) * 2.5, torch.arange(9.0)]).expand(2, -1)
    plain = model.states(embedded, positions=places)
    torch.testing.assert_close(model.states(embedded, mask, positions=places), plain, atol=2e-5, rtol=1e-4)
    later = embedded[:1].clone()
    later[:, 0] += 1
    assert not torch.allclose(model.states(later, positions=places[:1])[0, 10], plain[0, 10])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_states_equal_those_alone(side: str) -> None:
    model, longer, shorter = tts(), utterance(tiny(), 5, 6), utterance(tiny(), 2, 3)
    padding = torch.full((len(longer) - len(shorter), 7), 32)
    padding[:, 0] = 0
    padded = torch.cat([padding, shorter] if side == "left" else [shorter, padding])
    rows = torch.stack([longer, padded])
    mask = rows[..., 0] != 0
    states = model.states(model.embed(rows, 6), mask)
    for i, single in enumerate((longer, shorter)):
        torch.testing.assert_close(
            states[i, mask[i]], model.states(model.embed(single[None], 6))[0], atol=2e-5, rtol=1e-4
        )


def test_cached_states_equal_one_call() -> None:
    model, rows = tts(), utterance(tiny(), 5, 8)[None]
    embedded, cache = model.embed(rows, 3), DynamicCache()
    mask = torch.ones(1, 15, dtype=torch.bool)
    ends = [6, 7, 8, 12, 15]
    parts = [
        model.states(embedded[:, start:end], mask[:, :end], cache)
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    torch.testing.assert_close(torch.cat(parts, 1), model.states(embedded), atol=2e-5, rtol=1e-4)


def test_embedding_by_hand() -> None:
    """Eq. 8: pad codes have an embedding of their own and are added like any other."""
    model = tts()
    rows = torch.tensor([[[7, 1, 2, 3, 4, 5, 6], [9, 32, 32, 32, 32, 32, 32]]])
    text, codes = model.text_embedding.weight, [table.weight for table in model.code_embeddings]
    expected = torch.stack([text[7] + codes[0][1] + codes[1][2], text[9] + codes[0][32] + codes[1][32]])
    torch.testing.assert_close(model.embed(rows, 2)[0], expected)


def test_embedding_at_each_samples_own_depth() -> None:
    model, rows = tts(), torch.stack([utterance(tiny(), 3, 2) for _ in range(3)])
    mixed = model.embed(rows, torch.tensor([1, 6, 4]))
    for i, depth in enumerate((1, 6, 4)):
        torch.testing.assert_close(mixed[i], model.embed(rows[i : i + 1], depth)[0])


class NoRotation(nn.Module):
    """A rotary embedding that turns nothing: cosines 1, sines 0."""

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        ones = x.new_ones(*position_ids.shape, 8)
        return ones, torch.zeros_like(ones)


def test_depth_blocks_equal_qwen3_without_positions() -> None:
    model, shape = tts(), tiny().depth
    qwen = Qwen3Model(
        Qwen3Config(
            vocab_size=1,
            hidden_size=shape.dim,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            num_key_value_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            intermediate_size=shape.ffn_dim,
            rms_norm_eps=1e-6,
        )
    )
    qwen.add_module("embed_tokens", nn.Identity())
    qwen.add_module("rotary_emb", NoRotation())
    weights = model.depth.state_dict()
    qwen.load_state_dict({n: w for n, w in weights.items() if n.startswith(("layers.", "norm."))})
    x = torch.randn(3, 7, 32)
    expected = qwen(inputs_embeds=model.depth.adapter_in(x)).last_hidden_state
    torch.testing.assert_close(model.depth(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", [[1] * 7, [2, 1, 4], [7]])
def test_depth_cache_equals_no_cache(positions: list[int]) -> None:
    model, x = tts(), torch.randn(3, 7, 32)
    for _ in range(2):  # a second frame has slots of its own
        cache = model.depth.cache(3)
        parts = [model.depth(part, cache) for part in x.split(positions, 1)]
        torch.testing.assert_close(torch.cat(parts, 1), model.depth(x), atol=1e-5, rtol=1e-5)
        assert cache.filled == 7


@pytest.mark.parametrize("config", CONFIGS)
def test_saved_and_loaded_is_the_same_bit_for_bit(config: TTSConfig, tmp_path: Path) -> None:
    model, text = tts(config), HuggingFaceText(TEXT)
    model.save_pretrained(tmp_path, text)
    again, words = CatTTS.from_pretrained(tmp_path)
    state, loaded = model.state_dict(), again.state_dict()
    assert again.config == config and not again.training and state.keys() == loaded.keys()
    assert all(torch.equal(state[name], loaded[name]) for name in state)
    assert words.encode("Hello there") == text.encode("Hello there")
    rows, mask, targets = batch(config)
    losses = [m(rows, mask, targets, torch.tensor([6, 6, 6])).codes for m in (model, again)]
    assert torch.equal(*losses)


def test_paper_is_appendix_c() -> None:
    config = paper()
    temporal, depth = config.temporal, config.depth
    assert (temporal.dim, temporal.num_layers, temporal.num_heads, temporal.num_kv_heads) == (2048, 28, 16, 8)
    assert (depth.dim, depth.num_layers, depth.ffn_dim) == (1536, 4, 8960)
    assert (config.num_codebooks, config.codebook_size, config.pad_code) == (32, 1024, 1024)
