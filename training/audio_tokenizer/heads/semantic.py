"""Semantic head: a decoder-only LLM reads the quantizer's output and writes text (paper 3.2, A.1)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, DynamicCache, Qwen2Config, Qwen2Model

from cat_tts.model.attention_backend import cache_argument
from cat_tts.text.tokenizers import HuggingFaceText, TextTokenizer
from tokenizer.io import checkpoint
from training.audio_tokenizer.heads.semantic_config import BYTES_END, SemanticConfig
from training.data.manifest import TASKS


class SemanticLoss(NamedTuple):
    """A sum and its count, so that several processes can divide by the number of tokens of all of them."""

    total: Float[Tensor, ""]
    """Cross-entropy summed over the tokens of all texts and their ends."""
    tokens: Int[Tensor, ""]
    frame_states: Float[Tensor, "b t e"] | None = None
    """States of the frames after `ctc_layer` layers, zeros for items without text; None without one."""


class ByteText:
    """Text tokenizer of UTF-8 bytes: nothing to train, and nothing to save."""

    vocab_size = BYTES_END

    def encode(self, text: str) -> list[int]:
        """Return the UTF-8 bytes of a text."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of bytes; those that are no UTF-8 become U+FFFD."""
        return bytes(ids).decode(errors="replace")

    def save(self, folder: str | Path) -> None:
        """Write nothing: there is nothing to save."""


class SemanticHead(nn.Module):
    """Prediction of text from [task tag][projected latents, one a frame][text], and its end (paper eq. 1).

    Trained together with the tokenizer, it makes codes carry the words. There is no padding between frames
    and text, and sequences are padded on the right, where a causal model does not look.
    """

    def __init__(self, config: SemanticConfig, text_tokenizer: TextTokenizer | None = None) -> None:
        """Build a head of random weights.

        Args:
            config: Its shape.
            text_tokenizer: Needed where `config.text` is not "bytes"; `from_llm` brings it.

        Raises:
            ValueError: the text tokenizer has more ids than the head has embeddings.
        """
        super().__init__()
        if text_tokenizer is None and config.text == "bytes":
            text_tokenizer = ByteText()
        if text_tokenizer is not None and text_tokenizer.vocab_size > config.vocab_size:
            raise ValueError(
                f"a text tokenizer of {text_tokenizer.vocab_size} ids for {config.vocab_size} embeddings"
            )
        self.config, self.text_tokenizer = config, text_tokenizer
        self.project = nn.Linear(config.latent_dim, config.dim)
        self.tags = nn.Embedding(len(config.tasks), config.dim)
        nn.init.normal_(self.tags.weight, std=0.02)
        self.llm = Qwen2Model(
            Qwen2Config(
                vocab_size=config.vocab_size,
                hidden_size=config.dim,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                num_key_value_heads=config.num_kv_heads,
                intermediate_size=config.ffn_dim,
                rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            )
        )

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of a text that `forward` takes, without the end."""
        return self._require_text_tokenizer().encode(text)

    def forward(
        self,
        latents: Float[Tensor, "b t d"],
        frames: Int[Tensor, " b"],
        tasks: Int[Tensor, " b"],
        texts: Sequence[Sequence[int]],
        decoder_inputs: Sequence[Sequence[int]] | None = None,
    ) -> SemanticLoss:
        """Compute the loss of a batch (paper eq. 1).

        Items without text are left out. Where all are, one of them is computed and counts nothing: every
        parameter then has a gradient of zeros, as the other processes of a distributed run expect.

        Args:
            latents: The quantizer's output.
            frames: Frames of each item.
            tasks: Index of each item's task in `TASKS`.
            texts: Token ids that the model has to write; empty without text.
            decoder_inputs: Token ids that it reads, where they are not the texts.

        Raises:
            ValueError: there are not as many texts as items.
        """
        if len(texts) != len(latents):
            raise ValueError(
                f"{len(texts)} texts for {len(latents)} items: give an empty one to items without text"
            )
        kept = [i for i, text in enumerate(texts) if text]
        chosen = torch.tensor(kept or [0], device=latents.device)
        targets, inputs = ([ids[i] for i in kept or [0]] for ids in (texts, decoder_inputs or texts))
        total, inner = self._cross_entropy(latents[chosen], frames[chosen], tasks[chosen], targets, inputs)
        tokens = torch.tensor(sum(len(texts[i]) + 1 for i in kept), device=latents.device)
        if inner is None:
            return SemanticLoss(total if kept else 0 * total, tokens)
        frame_states = inner.new_zeros(len(latents), *inner.shape[1:]).index_copy(0, chosen, inner)
        return SemanticLoss(total if kept else 0 * total, tokens, frame_states)

    def _cross_entropy(
        self,
        latents: Float[Tensor, "b t d"],
        frames: Int[Tensor, " b"],
        tasks: Int[Tensor, " b"],
        texts: Sequence[Sequence[int]],
        decoder_inputs: Sequence[Sequence[int]],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "b t e"] | None]:
        device, lengths = latents.device, [len(text) for text in texts]
        ids = torch.tensor(
            [[*text, *[0] * (max(lengths) - len(text))] for text in decoder_inputs], device=device
        )
        prefix = F.pad(self.prefix(latents, tasks), (0, 0, 0, ids.shape[1]))
        place = torch.arange(prefix.shape[1], device=device) - 1 - frames[:, None]  # index in the text
        if ids.shape[1]:
            words = self.llm.embed_tokens(ids.gather(1, place.clamp(0, ids.shape[1] - 1)))
            prefix = torch.where((place >= 0)[..., None], words, prefix)
        layer = self.config.ctc_layer
        out = self.llm(inputs_embeds=prefix, use_cache=False, output_hidden_states=layer is not None)
        states = out.last_hidden_state

        item = torch.tensor([i for i, length in enumerate(lengths) for _ in range(length + 1)], device=device)
        step = torch.tensor([j for length in lengths for j in range(length + 1)], device=device)
        target = torch.tensor([token for text in texts for token in (*text, self.config.end)], device=device)
        logits = self.logits(states[item, frames[item] + step])
        loss = F.cross_entropy(logits.float(), target, reduction="sum")
        return loss, None if layer is None else out.hidden_states[layer][:, 1 : 1 + latents.shape[1]]

    def prefix(self, latents: Float[Tensor, "b t d"], tasks: Int[Tensor, " b"]) -> Float[Tensor, "b t e"]:
        """Return the embeddings of the task's tag and of the frames."""
        audio = self.project(latents)
        return torch.cat([self.tags(tasks)[:, None], audio], 1)

    def logits(self, states: Float[Tensor, "n e"]) -> Float[Tensor, "n v"]:
        """Return the logits of the next token."""
        return F.linear(states, self.llm.embed_tokens.weight)

    @torch.no_grad()
    def transcribe(
        self, latents: Float[Tensor, "b t d"], frames: Int[Tensor, " b"], task: str, max_tokens: int = 200
    ) -> list[str]:
        """Transcribe by greedy decoding.

        Args:
            latents: The quantizer's output.
            frames: Frames of each item.
            task: One of `TASKS`.
            max_tokens: Most tokens of a text.

        Returns:
            One text for each item.

        Raises:
            ValueError: there is no such task.
        """
        if task not in TASKS:
            raise ValueError(f"task {task!r}: choose one of {', '.join(TASKS)}")
        tasks = torch.full((len(latents),), TASKS.index(task), device=latents.device)
        x = self.prefix(latents, tasks)
        # Sequences that are continued in one batch must end at one position: padding moves to the left.
        place = torch.arange(x.shape[1], device=x.device) - (latents.shape[1] - frames[:, None])
        positions, mask = place.clamp(min=0), place >= 0
        x = x.gather(1, positions[..., None].expand_as(x))
        cache, written = DynamicCache(), []
        ended = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        while len(written) < max_tokens and not ended.all():
            cached = cache_argument(self.llm, cache)
            out = self.llm(inputs_embeds=x, attention_mask=mask, position_ids=positions, **cached)
            token = self.logits(out.last_hidden_state[:, -1]).argmax(-1)
            ended |= token == self.config.end
            written.append(token.masked_fill(ended, self.config.end))
            x = self.llm.embed_tokens(token)[:, None]
            positions = positions[:, -1:] + 1
            mask = F.pad(mask, (0, 1), value=True)
        rows = torch.stack(written, 1).tolist() if written else [[] for _ in latents]
        texts = [[token for token in row if token != self.config.end] for row in rows]
        return [self._require_text_tokenizer().decode(text) for text in texts]

    def _require_text_tokenizer(self) -> TextTokenizer:
        if self.text_tokenizer is None:
            raise ValueError("this head has no text tokenizer: make it by from_llm or from_pretrained")
        return self.text_tokenizer

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`, `model.safetensors` and the text tokenizer's files."""
        text_tokenizer = self._require_text_tokenizer()
        checkpoint.save(folder, self.config, self.state_dict())
        text_tokenizer.save(folder)

    @classmethod
    def from_pretrained(cls, model: str | Path) -> "SemanticHead":
        """Load a folder or hub id that `save_pretrained` wrote."""
        folder = checkpoint.local_folder(model)
        config = checkpoint.read_config(SemanticConfig, folder / checkpoint.CONFIG)
        with torch.device("meta"):
            head = cls(config, HuggingFaceText(folder) if config.text == "huggingface" else None)
        checkpoint.load_weights(head, checkpoint.read_weights(folder), folder)
        rotary = head.llm.rotary_emb
        head.llm.rotary_emb = type(rotary)(rotary.config)  # its table is computed, not stored
        return head.eval()

    @classmethod
    def from_llm(cls, model: str | Path, latent_dim: int) -> "SemanticHead":
        """Build a head of a trained Qwen2, such as the paper's Qwen/Qwen2.5-0.5B, behind a random projection.

        Args:
            model: Folder or hub id.
            latent_dim: Width of the quantizer's output.

        Raises:
            ValueError: the model is no Qwen2 with tied embeddings, full attention and plain positions.
        """
        folder = checkpoint.local_folder(model)
        llm = AutoConfig.from_pretrained(folder)
        rope = dict(getattr(llm, "rope_parameters", None) or {})
        plain = isinstance(llm, Qwen2Config) and llm.tie_word_embeddings and not llm.use_sliding_window
        if not plain or rope.get("rope_type") != "default":
            raise ValueError(
                f"{model}: {type(llm).__name__} is no Qwen2 with tied embeddings, full attention and plain "
                "rotary positions; give one such as Qwen/Qwen2.5-0.5B"
            )
        assert llm.num_key_value_heads and isinstance(llm.eos_token_id, int)
        config = SemanticConfig(
            latent_dim=latent_dim,
            dim=llm.hidden_size,
            num_layers=llm.num_hidden_layers,
            num_heads=llm.num_attention_heads,
            num_kv_heads=llm.num_key_value_heads,
            ffn_dim=llm.intermediate_size,
            vocab_size=llm.vocab_size,
            end=llm.eos_token_id,
            text="huggingface",
            rope_theta=rope["rope_theta"],
        )
        head = cls(config, HuggingFaceText(folder))
        head.llm.load_state_dict(Qwen2Model.from_pretrained(folder, dtype=torch.float32).state_dict())
        return head
