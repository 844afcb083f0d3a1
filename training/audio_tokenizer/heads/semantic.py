"""Audio to text: a decoder-only LLM reads the quantizer's output and writes text (paper 3.2, A.1)."""

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
    """Sum and count, so that several processes can divide by the number of tokens of all of them."""

    total: Float[Tensor, ""]
    """Cross-entropy summed over the tokens of all texts and their ends."""
    tokens: Int[Tensor, ""]
    heard: Float[Tensor, "b t e"] | None = None
    """States of the frames after `ctc_layer` layers, zeros for items without text; None without one."""


class ByteText:
    """Text as its UTF-8 bytes: nothing to train, and nothing to keep."""

    vocab_size = BYTES_END

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """Bytes that are no UTF-8 become U+FFFD."""
        return bytes(ids).decode(errors="replace")

    def save(self, folder: str | Path) -> None:
        """There is nothing to write."""


class SemanticHead(nn.Module):
    """Predicts text from [task tag][projected latents, one a frame][text], and its end (paper eq. 1).

    Trained together with the tokenizer, it makes codes carry what was said. Nothing pads between frames and
    text, and sequences are filled up on the right, where a causal model does not look.
    """

    def __init__(self, config: SemanticConfig, text: TextTokenizer | None = None) -> None:
        """`text` is needed where `config.text` is not "bytes"; `from_llm` brings it."""
        super().__init__()
        if text is None and config.text == "bytes":
            text = ByteText()
        if text is not None and text.vocab_size > config.vocab_size:
            raise ValueError(f"a text tokenizer of {text.vocab_size} ids for {config.vocab_size} embeddings")
        self.config, self.text = config, text
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
        """The ids that `forward` takes, without the end."""
        return self._tokenizer().encode(text)

    def forward(
        self,
        latents: Float[Tensor, "b t d"],
        frames: Int[Tensor, " b"],
        tasks: Int[Tensor, " b"],
        texts: Sequence[Sequence[int]],
        given: Sequence[Sequence[int]] | None = None,
    ) -> SemanticLoss:
        """Loss of a batch; item i has `frames[i]` frames, task `TASKS[tasks[i]]`, no text if empty.

        `given` is what the model reads of the texts where that is not what it has to write.
        Items without text are left out. Where all are, one of them is computed and counts nothing: every
        parameter then has a gradient of zeros, as the other processes of a distributed run expect.
        """
        if len(texts) != len(latents):
            raise ValueError(f"{len(texts)} texts for {len(latents)} items: give an empty one where none is")
        kept = [i for i, text in enumerate(texts) if text]
        chosen = torch.tensor(kept or [0], device=latents.device)
        wanted, read = ([of[i] for i in kept or [0]] for of in (texts, given or texts))
        total, inner = self._cross_entropy(latents[chosen], frames[chosen], tasks[chosen], wanted, read)
        tokens = torch.tensor(sum(len(texts[i]) + 1 for i in kept), device=latents.device)
        if inner is None:
            return SemanticLoss(total if kept else 0 * total, tokens)
        heard = inner.new_zeros(len(latents), *inner.shape[1:]).index_copy(0, chosen, inner)
        return SemanticLoss(total if kept else 0 * total, tokens, heard)

    def _cross_entropy(
        self,
        latents: Float[Tensor, "b t d"],
        frames: Int[Tensor, " b"],
        tasks: Int[Tensor, " b"],
        texts: Sequence[Sequence[int]],
        given: Sequence[Sequence[int]],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "b t e"] | None]:
        device, lengths = latents.device, [len(text) for text in texts]
        ids = torch.tensor([[*text, *[0] * (max(lengths) - len(text))] for text in given], device=device)
        prefix = F.pad(self.prefix(latents, tasks), (0, 0, 0, ids.shape[1]))
        place = torch.arange(prefix.shape[1], device=device) - 1 - frames[:, None]  # in the text, from 0
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
        """The task's tag, then one embedding a frame."""
        audio = self.project(latents)
        return torch.cat([self.tags(tasks)[:, None], audio], 1)

    def logits(self, states: Float[Tensor, "n e"]) -> Float[Tensor, "n v"]:
        return F.linear(states, self.llm.embed_tokens.weight)

    @torch.no_grad()
    def transcribe(
        self, latents: Float[Tensor, "b t d"], frames: Int[Tensor, " b"], task: str, max_tokens: int = 200
    ) -> list[str]:
        """The likeliest next token, again and again until the end, of every item."""
        if task not in TASKS:
            raise ValueError(f"task {task!r}: choose one of {', '.join(TASKS)}")
        tasks = torch.full((len(latents),), TASKS.index(task), device=latents.device)
        x = self.prefix(latents, tasks)
        # Sequences that go on together must end together: padding moves to the left.
        place = torch.arange(x.shape[1], device=x.device) - (latents.shape[1] - frames[:, None])
        positions, mask = place.clamp(min=0), place >= 0
        x = x.gather(1, positions[..., None].expand_as(x))
        cache, written = DynamicCache(), []
        ended = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        while len(written) < max_tokens and not ended.all():
            held = cache_argument(self.llm, cache)
            out = self.llm(inputs_embeds=x, attention_mask=mask, position_ids=positions, **held)
            token = self.logits(out.last_hidden_state[:, -1]).argmax(-1)
            ended |= token == self.config.end
            written.append(token.masked_fill(ended, self.config.end))
            x = self.llm.embed_tokens(token)[:, None]
            positions = positions[:, -1:] + 1
            mask = F.pad(mask, (0, 1), value=True)
        rows = torch.stack(written, 1).tolist() if written else [[] for _ in latents]
        texts = [[token for token in row if token != self.config.end] for row in rows]
        return [self._tokenizer().decode(text) for text in texts]

    def _tokenizer(self) -> TextTokenizer:
        if self.text is None:
            raise ValueError("this head has no text tokenizer: make it by from_llm or from_pretrained")
        return self.text

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`, `model.safetensors` and the text tokenizer's files."""
        text = self._tokenizer()
        checkpoint.save(folder, self.config, self.state_dict())
        text.save(folder)

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
        """A trained Qwen2, such as the paper's Qwen/Qwen2.5-0.5B, behind an untrained projection."""
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
