"""CAT-TTS: a Temporal Transformer over rows of text and codes, a Depth Transformer inside each frame."""

from dataclasses import replace
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
from cat_tts.model.speaker_projection import SpeakerProjection
from cat_tts.sequences.rows import IGNORED
from cat_tts.sequences.sequence_dropout import retained_codes
from cat_tts.text.tokenizers import TextTokenizer, load_text_tokenizer
from tokenizer.io import checkpoint


class TTSLoss(NamedTuple):
    """The two parts of the training loss as sums, so that passes and processes can be added up.

    A tuple, so that wrappers of modules see its tensors.
    """

    code_sums: Float[Tensor, " k"]
    """Cross-entropy of each codebook over the frames that retain it."""
    code_counts: Int[Tensor, " k"]
    """How many frames those are."""
    decision_sum: Float[Tensor, ""]
    """Cross-entropy of the decision to continue or to stop, once a frame."""
    decision_count: Int[Tensor, ""]
    """How many decisions there are."""

    @property
    def codes(self) -> Float[Tensor, ""]:
        """Mean over the retained codes, target frames x retained codebooks (paper eq. 9)."""
        return self.code_sums.sum() / self.code_counts.sum()

    @property
    def decision(self) -> Float[Tensor, ""]:
        """Mean cross-entropy of the decision."""
        return self.decision_sum / self.decision_count

    @property
    def layers(self) -> Float[Tensor, " k"]:
        """Mean cross-entropy of each codebook; nan where no sample retains it."""
        return self.code_sums / self.code_counts


class CatTTS(nn.Module):
    """Purely autoregressive text to codes (paper 3.3).

    A sequence is rows [t, 1 + K]: column 0 the text channel, columns 1..K the codes; text rows hold the
    pad code in every code column. A row's input is the sum of its embeddings over the text channel and
    the first `depth` codebooks (eq. 8); the state after row t predicts row t+1. A model with a `speaker_dim`
    adds a projection of the speaker's voice vector to every row (ours, not the paper's).
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
        self.speaker_projection: SpeakerProjection | None = None
        if config.speaker_dim is not None:
            self.add_speaker_projection(config.speaker_dim)

    def add_speaker_projection(self, speaker_dim: int) -> None:
        """Let the model read voice vectors of this width, which change nothing before a training."""
        self.config = replace(self.config, speaker_dim=speaker_dim)
        self.speaker_projection = SpeakerProjection(speaker_dim, self.config.temporal.dim)

    def speaker_offset(self, speaker: Float[Tensor, "b e"]) -> Float[Tensor, "b d"]:
        """Return what voice vectors add to each row of their sequences.

        Raises:
            ValueError: The model reads no voice vectors, or those of another width.
        """
        if self.speaker_projection is None:
            raise ValueError("this model reads no voice vectors: speaker_dim=None")
        return self.speaker_projection(speaker)

    def embed(
        self,
        rows: Int[Tensor, "b t c"],
        depth: int | Int[Tensor, " b"],
        speaker: Float[Tensor, "b e"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Embed rows: the text channel plus the first `depth` code columns (paper eq. 8).

        Args:
            rows: Rows [b, t, 1 + K].
            depth: Depth of all samples, or of each [b].
            speaker: Voice vectors [b, e]; None adds nothing.

        Returns:
            Embeddings [b, t, d].
        """
        x = self.text_embedding(rows[..., 0])
        deepest = depth if isinstance(depth, int) else int(depth.max())
        for k in range(deepest):
            code = self.code_embeddings[k](rows[..., k + 1])
            x = x + (code if isinstance(depth, int) else (k < depth)[:, None, None] * code)
        return x if speaker is None else x + self.speaker_offset(speaker)[:, None]

    def states(
        self,
        embedded: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b m"] | None = None,
        cache: Cache | None = None,
        positions: Float[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Run the Temporal Transformer.

        Args:
            embedded: Embeddings [b, t, d].
            mask: Mask [b, m] of the cached rows and these, False on padding.
            cache: Keys and values of earlier rows.
            positions: Rotary positions [b, t]; None: their index.

        Returns:
            States [b, t, d]; the state after row t predicts row t + 1.
        """
        # Left to itself, transformers would take a fall of the positions for the next packed sequence.
        attention_mask = {"full_attention": None} if mask is None and cache is None else mask
        out = self.temporal(
            inputs_embeds=embedded,
            attention_mask=attention_mask,
            position_ids=positions,
            use_cache=cache is not None,
            **cache_argument(self.temporal, cache),
        )
        return out.last_hidden_state

    def frame_logits(
        self, states: Float[Tensor, "n d"], targets: Int[Tensor, "n c"]
    ) -> tuple[Float[Tensor, "n u"], Float[Tensor, "n k v"]]:
        """Compute logits with teacher forcing inside frames (paper C.1).

        Args:
            states: Temporal states [n, d].
            targets: Text id and codes [n, 1 + k] of the next row; ignored ones are read as zeros.

        Returns:
            Logits [n, u] of the decision, and [n, k, v] of the codes.
        """
        columns = targets.shape[1] - 1
        tables = [self.text_embedding, *self.code_embeddings[: columns - 1]]
        inputs = [
            table(target.clamp(min=0)) * (target != IGNORED)[:, None]
            for table, target in zip(tables, targets[:, :-1].unbind(1), strict=True)
        ]
        hidden = self.depth(torch.stack([states, *inputs], 1))
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
        speaker: Float[Tensor, "b e"] | None = None,
    ) -> TTSLoss:
        """Compute the training loss, sample i reduced to its first `depth[i]` codebooks (paper eq. 9).

        Args:
            rows: Rows [b, t, 1 + K].
            mask: Mask [b, t], False on padding; not needed for padding on the right, which no row reads.
            targets: Targets [b, t, 1 + K], `IGNORED` where nothing is learnt.
            depth: Depth [b] of each sample.
            positions: Rotary positions [b, t]; None: their index.
            deep: Mask [b, t] of the frames on which codebooks beyond the first are learnt, None: all. They
                count for the others too, so that the loss is the same in expectation.
            speaker: Voice vectors [b, e], zeros for a sample without one; None adds nothing.
        """
        embedded = self._embed_retained(rows, depth)
        if speaker is not None:
            embedded = embedded + self.speaker_offset(speaker)[:, None]
        states = self.states(embedded, mask, positions=positions)
        retained, learnt_rows = retained_codes(targets, depth), targets[..., 0] != IGNORED
        counts = (retained[..., None] > torch.arange(self.config.num_codebooks, device=retained.device)).sum(
            (0, 1)
        )
        learnt, weight = retained, 1.0
        if deep is not None:
            learnt = torch.where(deep, retained, retained.clamp(max=1))
            weight = (retained > 0).sum() / deep.sum().clamp(min=1)
        codes, decision = self.ragged_losses(states[learnt_rows], targets[learnt_rows], learnt[learnt_rows])
        sums = torch.cat([codes[:1], codes[1:] * weight])
        return TTSLoss(sums, counts, decision, learnt_rows.sum())

    def ragged_losses(
        self, states: Float[Tensor, "n d"], targets: Int[Tensor, "n c"], retained: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, ""]]:
        """Compute summed cross-entropies of each codebook and of the decision, over frames of unequal depths.

        The Depth Transformer runs on the retained codebooks alone: what Progressive Sequence Dropout drops
        costs nothing. Deepest frames come first, so that those which have a position are always the first;
        their rows are computed position after position, and attend frame after frame.

        Args:
            states: Temporal states [n, d].
            targets: Targets [n, 1 + K].
            retained: How many codes [n] each frame retains.

        Returns:
            Sums [K] of the codebooks, and of the decision.
        """
        order = retained.argsort(descending=True, stable=True)
        states, targets, retained = states[order], targets[order], retained[order]
        columns = self.config.num_codebooks
        of_depth = torch.bincount(retained, minlength=columns + 1).tolist()
        having = [sum(of_depth[j:]) for j in range(columns + 1)]
        tables = [self.text_embedding, *self.code_embeddings[: columns - 1]]
        inputs = [table(targets[:n, j]) for j, (table, n) in enumerate(zip(tables, having[1:], strict=True))]
        starts = (retained + 1).cumsum(0) - retained - 1
        by_frame = torch.cat([starts[:n] + j for j, n in enumerate(having)])  # where a position's rows go
        shapes = [(n, k + 1) for k, n in enumerate(of_depth) if n][::-1]
        hidden = self.depth.ragged(torch.cat([states, *inputs])[by_frame.argsort()], shapes)
        first, *rest = hidden[by_frame].split(having)
        codes = [
            _cross_entropy(self.depth.code_logits(part, k), targets[: len(part), 1 + k])
            for k, part in enumerate(rest)
        ]
        decision = _cross_entropy(self.depth.decision_logits(first), self._decision_targets(targets[:, 0]))
        return torch.stack(codes), decision

    def _embed_retained(self, rows: Int[Tensor, "b t c"], depth: Int[Tensor, " b"]) -> Float[Tensor, "b t d"]:
        """Embed as `embed` does, looking up nothing that is dropped.

        Every table takes part, if with no row, so that each process has gradients of all weights.
        """
        x = self.text_embedding(rows[..., 0])
        order = depth.argsort(descending=True)
        of_depth = depth.tolist()
        for k, table in enumerate(self.code_embeddings):
            retained = order[: sum(each > k for each in of_depth)]
            x.index_add_(0, retained, table(rows[retained, :, k + 1]))
        return x

    def _decision_targets(self, text: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        return text if self.config.full_text_head else (text == self.config.tokens.audio_end).long()

    def save_pretrained(self, folder: str | Path, text_tokenizer: TextTokenizer) -> None:
        """Write `config.json`, `model.safetensors` and the text tokenizer's files."""
        checkpoint.save(folder, self.config, self.state_dict())
        text_tokenizer.save(folder)

    @classmethod
    def from_pretrained(cls, model: str | Path) -> "tuple[CatTTS, TextTokenizer]":
        """Load the model and the text tokenizer of a folder or hub id.

        The layout is this project's or that of the published MOSS-TTS-Local-Transformer (v1.0).
        """
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
