"""CAT-TTS: a Temporal Transformer over rows of text and codes, a Depth Transformer inside each frame."""

from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache

from cat_tts.config import TTSConfig
from cat_tts.model import moss_checkpoint, qwen3
from cat_tts.model.attention_backend import ATTEND, cache_argument
from cat_tts.model.depth_transformer import DepthTransformer
from cat_tts.sequences.rows import IGNORED
from cat_tts.sequences.sequence_dropout import kept_codes
from cat_tts.text.tokenizers import TextTokenizer, load_text_tokenizer
from tokenizer.io import checkpoint


class TTSLoss(NamedTuple):
    """The two parts of the training loss as sums, so that passes and processes can be added up.

    A tuple, so that wrappers of modules see its tensors.
    """

    code_sums: Float[Tensor, " k"]
    """Cross-entropy of each codebook over the frames that keep it."""
    code_counts: Int[Tensor, " k"]
    """How many those are."""
    decision_sum: Float[Tensor, ""]
    """Cross-entropy of go on or stop, once a frame."""
    decision_count: Int[Tensor, ""]

    @property
    def codes(self) -> Float[Tensor, ""]:
        """Paper eq. 9: a mean over the kept codes, target frames x retained codebooks."""
        return self.code_sums.sum() / self.code_counts.sum()

    @property
    def decision(self) -> Float[Tensor, ""]:
        return self.decision_sum / self.decision_count

    @property
    def layers(self) -> Float[Tensor, " k"]:
        """`codes` by codebook; nan where no sample kept it."""
        return self.code_sums / self.code_counts


class CatTTS(nn.Module):
    """Purely autoregressive text to codes (paper 3.3).

    A sequence is rows [t, 1 + K]: column 0 the text channel, columns 1..K the codes; text rows hold the
    pad code in every code column. A row's input is the sum of its embeddings over the text channel and
    the first `depth` codebooks (eq. 8); the state after row t predicts row t+1.
    """

    def __init__(self, config: TTSConfig) -> None:
        super().__init__()
        self.config = config
        # what FSDP2 gathers one at a time, under the name at which Accelerate looks
        self._no_split_modules = ["Qwen3DecoderLayer", "DepthLayer"]
        dim = config.temporal.dim
        self.text_embedding = nn.Embedding(config.text_vocab_size, dim)
        self.code_embeddings = cast(
            "list[nn.Embedding]",
            nn.ModuleList(nn.Embedding(config.codebook_size + 1, dim) for _ in range(config.num_codebooks)),
        )
        self.temporal = qwen3.build(
            config.temporal,
            rope_theta=config.rope_theta,
            max_positions=config.max_positions,
            attention=ATTEND,
        )
        self.depth = DepthTransformer(config)
        for module in (self.text_embedding, *self.code_embeddings, *self.depth.modules()):
            if isinstance(module, nn.Embedding | nn.Linear):
                nn.init.normal_(module.weight, std=0.02)

    def embed(self, rows: Int[Tensor, "b t c"], depth: int | Int[Tensor, " b"]) -> Float[Tensor, "b t d"]:
        """Eq. 8: text channel plus the first `depth` code columns of every row, or `depth[i]` of sample i."""
        x = self.text_embedding(rows[..., 0])
        deepest = depth if isinstance(depth, int) else int(depth.max())
        for k in range(deepest):
            code = self.code_embeddings[k](rows[..., k + 1])
            x = x + (code if isinstance(depth, int) else (k < depth)[:, None, None] * code)
        return x

    def states(
        self,
        embedded: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b m"] | None = None,
        cache: Cache | None = None,
        positions: Float[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The Temporal Transformer. `mask` covers the cached rows too, False where they are padding.

        `positions` are counted where they are not given.
        """
        # Left to itself, transformers would take a fall of the positions for the next packed sequence.
        made = {"full_attention": None} if mask is None and cache is None else mask
        out = self.temporal(
            inputs_embeds=embedded,
            attention_mask=made,
            position_ids=positions,
            use_cache=cache is not None,
            **cache_argument(self.temporal, cache),
        )
        return out.last_hidden_state

    def frame_logits(
        self, states: Float[Tensor, "n d"], targets: Int[Tensor, "n c"]
    ) -> tuple[Float[Tensor, "n u"], Float[Tensor, "n k v"]]:
        """Teacher forcing inside frames: logits of the decision and of as many codes as `targets` has.

        Ignored targets are fed to the next position as zeros.
        """
        columns = targets.shape[1] - 1
        tables = [self.text_embedding, *self.code_embeddings[: columns - 1]]
        fed = [
            table(target.clamp(min=0)) * (target != IGNORED)[:, None]
            for table, target in zip(tables, targets[:, :-1].unbind(1), strict=True)
        ]
        hidden = self.depth(torch.stack([states, *fed], 1))
        codes = [self.depth.code_logits(hidden[:, k + 1], k) for k in range(columns)]
        return self.depth.decision_logits(hidden[:, 0]), torch.stack(codes, 1)

    def forward(
        self,
        rows: Int[Tensor, "b t c"],
        mask: Bool[Tensor, "b t"] | None,
        targets: Int[Tensor, "b t c"],
        depth: Int[Tensor, " b"],
        positions: Float[Tensor, "b t"] | None = None,
        deep: Bool[Tensor, "b t"] | None = None,
    ) -> TTSLoss:
        """Training loss of sequences, sample i reduced to its first `depth[i]` codebooks.

        Sequences that are padded on the right, where no row sees the padding, need no mask.
        `deep` says on which frames codebooks beyond the first are learnt, if not on all; they count for the
        others too, so that the loss is the same in expectation.
        """
        states = self.states(self._embed_kept(rows, depth), mask, positions=positions)
        kept, wanted = kept_codes(targets, depth), targets[..., 0] != IGNORED
        counts = (kept[..., None] > torch.arange(self.config.num_codebooks, device=kept.device)).sum((0, 1))
        learnt, weight = kept, 1.0
        if deep is not None:
            learnt = torch.where(deep, kept, kept.clamp(max=1))
            weight = (kept > 0).sum() / deep.sum().clamp(min=1)
        codes, decision = self.ragged_losses(states[wanted], targets[wanted], learnt[wanted])
        sums = torch.cat([codes[:1], codes[1:] * weight])
        return TTSLoss(sums, counts, decision, wanted.sum())

    def ragged_losses(
        self, states: Float[Tensor, "n d"], targets: Int[Tensor, "n c"], kept: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, ""]]:
        """Cross-entropy of each codebook and of the decision, summed over frames that keep `kept` codes each.

        The Depth Transformer runs on the retained codebooks alone: what Progressive Sequence Dropout drops
        costs nothing. Deepest frames come first, so that those which have a position are always the first;
        their rows are made and read position after position, and attend frame after frame.
        """
        order = kept.argsort(descending=True, stable=True)
        states, targets, kept = states[order], targets[order], kept[order]
        columns = self.config.num_codebooks
        of_depth = torch.bincount(kept, minlength=columns + 1).tolist()
        having = [sum(of_depth[j:]) for j in range(columns + 1)]
        tables = [self.text_embedding, *self.code_embeddings[: columns - 1]]
        fed = [table(targets[:n, j]) for j, (table, n) in enumerate(zip(tables, having[1:], strict=True))]
        starts = (kept + 1).cumsum(0) - kept - 1
        by_frame = torch.cat([starts[:n] + j for j, n in enumerate(having)])  # where a position's rows go
        shapes = [(n, k + 1) for k, n in enumerate(of_depth) if n][::-1]
        hidden = self.depth.ragged(torch.cat([states, *fed])[by_frame.argsort()], shapes)
        first, *rest = hidden[by_frame].split(having)
        codes = [
            _cross_entropy(self.depth.code_logits(part, k), targets[: len(part), 1 + k])
            for k, part in enumerate(rest)
        ]
        decision = _cross_entropy(self.depth.decision_logits(first), self._decision_targets(targets[:, 0]))
        return torch.stack(codes), decision

    def _embed_kept(self, rows: Int[Tensor, "b t c"], depth: Int[Tensor, " b"]) -> Float[Tensor, "b t d"]:
        """`embed`, looking up nothing that is dropped. Every table takes part, if with no row, so that each
        process has gradients of all weights."""
        x = self.text_embedding(rows[..., 0])
        order = depth.argsort(descending=True)
        of_depth = depth.tolist()
        for k, table in enumerate(self.code_embeddings):
            kept = order[: sum(one > k for one in of_depth)]
            x.index_add_(0, kept, table(rows[kept, :, k + 1]))
        return x

    def _decision_targets(self, text: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        return text if self.config.full_text_head else (text == self.config.tokens.audio_end).long()

    def save_pretrained(self, folder: str | Path, text: TextTokenizer) -> None:
        """Write `config.json`, `model.safetensors` and the text tokenizer's files."""
        checkpoint.save(folder, self.config, self.state_dict())
        text.save(folder)

    @classmethod
    def from_pretrained(cls, model: str | Path) -> "tuple[CatTTS, TextTokenizer]":
        """Load model and text tokenizer of a folder or hub id, in this project's layout or the published
        MOSS-TTS-Local-Transformer (v1.0) layout."""
        folder = checkpoint.local_folder(model)
        raw = checkpoint.read_json(folder / checkpoint.CONFIG)
        state = checkpoint.read_weights(folder)
        if moss_checkpoint.is_published(raw):
            config, state = (
                moss_checkpoint.config_from_published(raw),
                moss_checkpoint.state_from_published(state),
            )
        else:
            config = checkpoint.read_config(TTSConfig, folder / checkpoint.CONFIG)
        with torch.device("meta"):
            tts = cls(config)
        checkpoint.load_weights(tts, state, folder)
        qwen3.compute_rotary(tts.temporal)
        return tts.eval(), load_text_tokenizer(folder)


def _cross_entropy(logits: Float[Tensor, "n v"], target: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Summed in float32; of no rows it is 0, with a gradient."""
    return F.cross_entropy(logits.float(), target, reduction="sum")
