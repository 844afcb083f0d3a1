"""CAT-ASR: a decoder-only LLM that reads the codes of speech and writes its text (paper Appendix E).

A sequence is [audio start][one embedding a frame][audio end][text][text end]; the embedding of a frame is
the sum over its codes, each codebook with a table of its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache

from cat_tts.asr.config import ASRConfig
from cat_tts.model import qwen3
from cat_tts.model.attention_backend import cache_argument
from cat_tts.sequences.rows import IGNORED
from cat_tts.text.phonemes import phonemes_without_stress
from cat_tts.text.tokenizers import TextTokenizer, load_text_tokenizer
from tokenizer.io import checkpoint

STEPS_PER_FRAME = 2
"""Steps of the CTC head: English has more letters, and phonemes, a second than frames."""


class ASRLoss(NamedTuple):
    """The parts of the training loss."""

    text: Float[Tensor, ""]
    """Mean cross-entropy over the tokens of all texts and their ends."""
    ctc: Float[Tensor, ""]
    """Loss of the CTC head, a mean over all its targets; 0 where there is none."""


class CatASR(nn.Module):
    """Codes to text (paper Appendix E).

    A model is trained at random depths, and so reads the first `depth` codes of a frame, for any depth.
    """

    def __init__(self, config: ASRConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.llm.dim
        self.text_embedding = nn.Embedding(config.text_vocab_size, dim)
        self.code_embeddings = cast(
            "list[nn.Embedding]",
            nn.ModuleList(nn.Embedding(config.codebook_size, dim) for _ in range(config.num_codebooks)),
        )
        self.llm = qwen3.build(config.llm, rope_theta=config.rope_theta, max_positions=config.max_positions)
        self.head = None if config.tied else nn.Linear(dim, config.text_vocab_size, bias=False)
        self.ctc = None
        if config.ctc_layer is not None:
            classes = STEPS_PER_FRAME * (config.ctc_vocab_size + 1)
            self.ctc = nn.Sequential(nn.RMSNorm(dim, 1e-6), nn.Linear(dim, classes))
        for module in (self.text_embedding, *self.code_embeddings, self.head, *(self.ctc or ())):
            if isinstance(module, nn.Embedding | nn.Linear):
                nn.init.normal_(module.weight, std=0.02)

    def embed(
        self, codes: Int[Tensor, "b t k"], frames: Int[Tensor, " b"], depth: Int[Tensor, " b"]
    ) -> Float[Tensor, "b p d"]:
        """Embed [audio start][frames][audio end] of every utterance, zeros behind it where others are longer.

        Args:
            codes: Codes [b, t, k], padded.
            frames: Length [b] of each utterance.
            depth: Depth [b] of each utterance.

        Returns:
            Embeddings [b, t + 2, d].

        Raises:
            ValueError: A depth is larger than k.
        """
        tokens, deepest = self.config.tokens, int(depth.max())
        if codes.shape[2] < deepest:
            raise ValueError(f"depth={deepest} but the codes have {codes.shape[2]} codebooks")
        place = torch.arange(codes.shape[1] + 2, device=codes.device) - 1
        valid = (place >= 0) & (place < frames[:, None])
        x = self.text_embedding.weight.new_zeros(len(codes), codes.shape[1], self.config.llm.dim)
        for k, table in enumerate(self.code_embeddings[:deepest]):
            x = x + (k < depth)[:, None, None] * table(codes[..., k])
        x = F.pad(x, (0, 0, 1, 1)) * valid[..., None]
        for token, where in ((tokens.audio_start, place == -1), (tokens.audio_end, place == frames[:, None])):
            marker = self.text_embedding.weight[token]
            x = torch.where(where.expand(valid.shape)[..., None], marker, x)
        return x

    def states(
        self,
        x: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b 1 t m"] | None,
        positions: Int[Tensor, "b t"] | None = None,
        cache: Cache | None = None,
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b t d"] | None]:
        """Run the LLM.

        Args:
            x: Embeddings [b, t, d].
            mask: Attention mask [b, 1, t, m]; None: causal.
            positions: Positions [b, t]; None: their index.
            cache: Keys and values of earlier positions.

        Returns:
            The states [b, t, d] that text is predicted from, and those that the CTC head reads (None where
            there is no such head, or with a cache).
        """
        wanted = self.ctc is not None and cache is None
        out = self.llm(
            inputs_embeds=x,
            attention_mask=mask,
            position_ids=positions,
            use_cache=cache is not None,
            **cache_argument(self.llm, cache),
            output_hidden_states=wanted,
        )
        inner = out.hidden_states[self.config.ctc_layer] if wanted else None
        return out.last_hidden_state, inner

    def logits(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """Return logits [n, v] of the next text token for states [n, d]."""
        return F.linear(states, self.text_embedding.weight) if self.head is None else self.head(states)

    def forward(
        self,
        codes: Int[Tensor, "b t k"],
        frames: Int[Tensor, " b"],
        text: Int[Tensor, "b n"],
        depth: Int[Tensor, " b"],
        decoder_inputs: Int[Tensor, "b n"] | None = None,
        ctc_targets: Int[Tensor, "b m"] | None = None,
    ) -> ASRLoss:
        """Compute the training loss of a batch (paper Appendix E), on the text alone.

        Args:
            codes: Codes [b, t, k], padded on the right.
            frames: Length [b] of each utterance.
            text: Text ids [b, n], padded on the right with `IGNORED`.
            depth: Depth [b] of each utterance.
            decoder_inputs: What the model reads of the text [b, n], where that is not what it has to write:
                with noise there, it has to use the audio.
            ctc_targets: Targets [b, m] of the CTC head (`CatASR.ctc_targets`), padded with `IGNORED`, if any.
        """
        audio = self.embed(codes, frames, depth)
        width, lengths = audio.shape[1] + text.shape[1], (text != IGNORED).sum(1)
        place = torch.arange(width, device=codes.device) - 2 - frames[:, None]
        x = F.pad(audio, (0, 0, 0, text.shape[1]))
        if text.shape[1]:
            words = self.text_embedding((text if decoder_inputs is None else decoder_inputs).clamp(min=0))
            at = place.clamp(0, text.shape[1] - 1)
            words = words.gather(1, at[..., None].expand(-1, -1, words.shape[2]))
            x = torch.where(((place >= 0) & (place < lengths[:, None]))[..., None], words, x)
        states, inner = self.states(x, self.audio_mask(frames, width))

        ends = F.pad(text, (0, 1), value=IGNORED).scatter(1, lengths[:, None], self.config.tokens.text_end)
        item, step = (ends != IGNORED).nonzero(as_tuple=True)
        logits = self.logits(states[item, frames[item] + 1 + step])
        loss = F.cross_entropy(logits.float(), ends[item, step])
        if inner is None or ctc_targets is None:
            return ASRLoss(loss, loss.new_zeros(()))
        return ASRLoss(loss, self._ctc_loss(inner[:, 1 : 1 + codes.shape[1]], frames, ctc_targets))

    def ctc_logits(self, inner: Float[Tensor, "b t d"]) -> Float[Tensor, "b s w"]:
        """Return CTC logits [b, STEPS_PER_FRAME * t, classes], blank last, for states [b, t, d]."""
        assert self.ctc is not None
        return self.ctc(inner).unflatten(-1, (STEPS_PER_FRAME, -1)).flatten(1, 2)

    def ctc_targets(self, text: str) -> list[int]:
        """Return what the CTC head has to predict for a text: ids of phonemes, or bytes in lower case."""
        if not self.config.phonemes:
            return list(text.lower().encode())
        ids = {phoneme: i for i, phoneme in enumerate(self.config.phonemes)}
        return [ids[phoneme] for phoneme in phonemes_without_stress(text) if phoneme in ids]

    def _ctc_loss(
        self,
        inner: Float[Tensor, "b t d"],
        frames: Int[Tensor, " b"],
        ctc_targets: Int[Tensor, "b m"],
    ) -> Float[Tensor, ""]:
        """Texts that are longer than their steps cost nothing: no path writes them."""
        lengths = (ctc_targets != IGNORED).sum(1)
        with torch.autocast(inner.device.type, enabled=False):
            scores = self.ctc_logits(inner.float()).log_softmax(-1).transpose(0, 1)
            total = F.ctc_loss(
                scores,
                ctc_targets.clamp(min=0),
                STEPS_PER_FRAME * frames,
                lengths,
                blank=self.config.ctc_vocab_size,
                reduction="sum",
                zero_infinity=True,
            )
        return total / lengths.sum().clamp(min=1)

    def audio_mask(self, frames: Int[Tensor, " b"], width: int) -> Bool[Tensor, "b 1 t t"] | None:
        """Build the attention mask of sequences with so many frames.

        Args:
            frames: Length [b] of each utterance.
            width: Length t of the sequences, text included.

        Returns:
            Mask [b, 1, t, t]; None for plain causal attention, which never reads padding on the right.
        """
        if not self.config.bidirectional:
            return None
        place = torch.arange(width, device=frames.device)
        audio = place < frames[:, None] + 2
        both = audio[:, :, None] & audio[:, None, :]
        return (both | (place <= place[:, None]))[:, None]

    def save_pretrained(self, folder: str | Path, text_tokenizer: TextTokenizer) -> None:
        """Write `config.json`, `model.safetensors` and the text tokenizer's files."""
        checkpoint.save(folder, self.config, self.state_dict())
        text_tokenizer.save(folder)

    @classmethod
    def from_pretrained(cls, model: str | Path) -> "tuple[CatASR, TextTokenizer]":
        """Load model and text tokenizer of a folder or hub id that `save_pretrained` wrote."""
        folder = checkpoint.local_folder(model)
        config = checkpoint.read_config(ASRConfig, folder / checkpoint.CONFIG)
        with torch.device("meta"):
            asr = cls(config)
        checkpoint.load_weights(asr, checkpoint.read_weights(folder), folder)
        qwen3.compute_rotary(asr.llm)
        return asr.float().eval(), load_text_tokenizer(folder)


def pad_texts(texts: Sequence[Sequence[int]]) -> Int[Tensor, "b n"]:
    """Pad the ids of several texts with `IGNORED` to one tensor [b, n]."""
    longest = max(map(len, texts), default=0)
    return torch.tensor([[*text, *[IGNORED] * (longest - len(text))] for text in texts]).long()
