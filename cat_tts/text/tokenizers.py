"""Text tokenizers: SentencePiece or phonemes for models trained here, Hugging Face's for published ones."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import PreTrainedTokenizerFast

from cat_tts.text.phonemes import PHONEMES_FILE, PhonemeText
from cat_tts.text.special_tokens import PAD_ID, UNKNOWN_ID

SENTENCEPIECE_FILE = "text.model"
HUGGINGFACE_FILE = "tokenizer.json"


@runtime_checkable
class TextTokenizer(Protocol):
    """The interface of text tokenizers; the vocabulary of a model may be larger (published ones are)."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write the files from which `load_text_tokenizer(folder)` makes an equal tokenizer."""
        ...


class SentencePieceText:
    """A SentencePiece model file; `train_sentencepiece` writes one."""

    def __init__(self, path: str | Path) -> None:
        self._processor = SentencePieceProcessor(model_file=str(path))

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self._processor.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self._processor.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the normalised (NFKC, case-folded) text; special tokens are left out."""
        return self._processor.decode([int(i) for i in ids])

    def save(self, folder: str | Path) -> None:
        """Write `text.model`."""
        (Path(folder) / SENTENCEPIECE_FILE).write_bytes(self._processor.serialized_model_proto())


class HuggingFaceText:
    """The `tokenizer.json` of a local folder or of a hub id.

    Nothing is added around the text, but special tokens written out in it become their single ids. The files
    alone decide; the model's `config.json`, whose type transformers may not know, is not consulted.
    """

    def __init__(self, path_or_hub_id: str | Path) -> None:
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(str(path_or_hub_id))

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._tokenizer.get_vocab().values()) + 1

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text, special tokens written out."""
        return str(self._tokenizer.decode([int(i) for i in ids], clean_up_tokenization_spaces=False))

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and its configuration."""
        self._tokenizer.save_pretrained(str(folder))


def load_text_tokenizer(folder: str | Path) -> TextTokenizer:
    """Load the tokenizer of a model's folder, of the kind whose file is there.

    Raises:
        ValueError: The folder holds none.
    """
    folder = Path(folder)
    if (folder / SENTENCEPIECE_FILE).is_file():
        return SentencePieceText(folder / SENTENCEPIECE_FILE)
    if (folder / PHONEMES_FILE).is_file():
        return PhonemeText.load(folder / PHONEMES_FILE)
    if (folder / HUGGINGFACE_FILE).is_file():
        return HuggingFaceText(folder)
    raise ValueError(
        f"{folder} holds no text tokenizer: expected {SENTENCEPIECE_FILE} (SentencePiece), "
        f"{PHONEMES_FILE} (phonemes) or {HUGGINGFACE_FILE} (Hugging Face) beside the model's weights"
    )


def train_sentencepiece(sentences: Iterable[str], path: str | Path, vocab_size: int) -> SentencePieceText:
    """Train a SentencePiece unigram model.

    One thread, no sampling and no shuffling: the same sentences give the same bytes. Characters the
    vocabulary lacks become UTF-8 byte tokens, so any text can be encoded.

    Args:
        sentences: Texts to train on.
        path: Where the model is written.
        vocab_size: Size of the vocabulary, with the 256 bytes and the special tokens.

    Returns:
        The trained tokenizer.

    Raises:
        ValueError: The sentences do not suit such a vocabulary.
    """
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="unigram",
            byte_fallback=True,
            normalization_rule_name="nmt_nfkc_cf",
            pad_id=PAD_ID,
            unk_id=UNKNOWN_ID,
            bos_id=-1,
            eos_id=-1,
            pad_piece="<pad>",
            control_symbols=["<audio_start>", "<audio_end>", "<slot>"],
            max_sentence_length=1 << 20,
            num_threads=1,
            shuffle_input_sentence=False,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(f"vocab_size={vocab_size} does not suit these sentences: {error}") from error
    Path(path).write_bytes(model.getvalue())
    return SentencePieceText(path)
