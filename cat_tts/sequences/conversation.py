"""The conversation format of the published MOSS-TTS-Local checkpoints, as rows of one text id and K codes.

A prompt is one user turn (a form with the text to speak and, perhaps, reference audio) and the beginning of
the assistant's turn. Each kind of rows is the one before it and a little more:

    generation     <user turn> <assistant's audio_start>
    continuation   ... and the frames of a prompt clip, to be continued
    training       ... and the end of the clip and of the turn

The layout is that of `MOSS-TTS-Local-Transformer` v1.0. For a continuation the text to render is the
transcript of the prompt clip directly followed by the text to speak (paper C.3). Reference audio needs none.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from cat_tts.config import ChatTokens, TTSConfig
from cat_tts.sequences.rows import frame_rows, text_rows
from cat_tts.text.tokenizers import TextTokenizer

AUDIO_MARK = "<|audio|>"
"""Stands in a rendered user turn for the rows of one reference."""


def render_user(
    text: str,
    references: Sequence[object | None] | None = None,
    *,
    instruction: str | None = None,
    tokens: int | None = None,
    quality: str | None = None,
    sound_event: str | None = None,
    ambient_sound: str | None = None,
    language: str | None = None,
) -> str:
    """Render the content of the user's turn, with `AUDIO_MARK` for every reference that is not None.

    Args:
        text: The text to speak.
        references: Codes of the reference recordings. Reference n is speaker `[Sn]`; a None keeps its number.
        instruction: How to speak.
        tokens: Wanted length in frames (12.5 a second).
        quality: Sound quality.
        sound_event: A sound to be heard.
        ambient_sound: The background.
        language: Language of the text.

    Returns:
        The form that the published models read; fields left out read None.

    Raises:
        ValueError: A field contains `AUDIO_MARK`.
    """
    fields = {
        "Instruction": instruction,
        "Tokens": tokens,
        "Quality": quality,
        "Sound Event": sound_event,
        "Ambient Sound": ambient_sound,
        "Language": language,
        "Text": text,
    }
    for name, value in fields.items():
        if AUDIO_MARK in str(value):
            raise ValueError(
                f"the field {name!r} contains {AUDIO_MARK}, which marks reference audio: take it out"
            )
    speakers = [f"[S{n}]:\n{AUDIO_MARK}" for n, audio in enumerate(references or [], 1) if audio is not None]
    fields = {"Reference(s)": None if references is None else "\n".join(speakers), **fields}
    lines = "".join(f"- {name}:\n{value}\n" for name, value in fields.items())
    return f"<user_inst>\n{lines}</user_inst>"


def generation_rows(
    config: TTSConfig,
    text_tokenizer: TextTokenizer,
    content: str,
    references: Sequence[Int[Tensor, "_ k"] | None] | None = None,
) -> Int[Tensor, "t columns"]:
    """Build the user's turn, its reference audio filled in, up to the assistant's audio_start.

    Special ids split text wherever they stand, so encoding the parts between them is the same as encoding the
    whole turn.

    Args:
        config: Configuration of a TTS model with the conversation format.
        text_tokenizer: Tokenizer of the model's text.
        content: What `render_user` returned for the same references.
        references: Codes [t_i, k] of the reference recordings.

    Returns:
        Rows [t, 1 + K].

    Raises:
        ValueError: The content marks another number of references, spells out a reserved id, or the model has
            no conversation format.
    """
    clips = [clip for clip in references or [] if clip is not None]
    first, *others = content.split(AUDIO_MARK)
    if len(others) != len(clips):
        raise ValueError(
            f"{len(clips)} references for a turn that marks {len(others)}: render it with the same list"
        )
    chat, tokens = _chat(config), config.tokens
    parts = [text_rows(config, [chat.im_start]), _checked_text_rows(config, text_tokenizer, "user\n" + first)]
    for clip, part in zip(clips, others, strict=True):
        parts += [text_rows(config, [tokens.audio_start]), frame_rows(config, clip, chat.user_slot)]
        parts += [text_rows(config, [tokens.audio_end]), _checked_text_rows(config, text_tokenizer, part)]
    parts += [text_rows(config, [chat.im_end]), _checked_text_rows(config, text_tokenizer, "\n")]
    parts += [text_rows(config, [chat.im_start]), _checked_text_rows(config, text_tokenizer, "assistant\n")]
    return torch.cat([*parts, text_rows(config, [tokens.audio_start])])


def continuation_rows(
    config: TTSConfig,
    text_tokenizer: TextTokenizer,
    content: str,
    codes: Int[Tensor, "_ k"],
    references: Sequence[Int[Tensor, "_ k"] | None] | None = None,
) -> Int[Tensor, "t columns"]:
    """Build `generation_rows`, then the frames of a prompt as if the assistant had spoken them already.

    Several clips are one: join them along the frames first.

    Args:
        config: Configuration of a TTS model with the conversation format.
        text_tokenizer: Tokenizer of the model's text.
        content: What `render_user` returned for the same references.
        codes: Codes [t, k] of the prompt.
        references: Codes [t_i, k] of the reference recordings.

    Returns:
        Rows [t, 1 + K].
    """
    prompt = generation_rows(config, text_tokenizer, content, references)
    return torch.cat([prompt, frame_rows(config, codes, config.tokens.slot)])


def training_rows(
    config: TTSConfig,
    text_tokenizer: TextTokenizer,
    content: str,
    codes: Int[Tensor, "_ k"],
    references: Sequence[Int[Tensor, "_ k"] | None] | None = None,
) -> Int[Tensor, "t columns"]:
    """Build `continuation_rows`, then the end of the clip and of the assistant's turn.

    Args:
        config: Configuration of a TTS model with the conversation format.
        text_tokenizer: Tokenizer of the model's text.
        content: What `render_user` returned for the same references.
        codes: Codes [t, k] of the whole utterance.
        references: Codes [t_i, k] of the reference recordings.

    Returns:
        Rows [t, 1 + K].
    """
    spoken = continuation_rows(config, text_tokenizer, content, codes, references)
    end = text_rows(config, [config.tokens.audio_end, _chat(config).im_end])
    return torch.cat([spoken, end, _checked_text_rows(config, text_tokenizer, "\n")])


def _checked_text_rows(
    config: TTSConfig, text_tokenizer: TextTokenizer, text: str
) -> Int[Tensor, "t columns"]:
    """Build rows of text that a user may have written, which must hold none of the format's own ids."""
    ids, tokens, chat = text_tokenizer.encode(text), config.tokens, _chat(config)
    reserved = {tokens.pad, tokens.audio_start, tokens.audio_end, tokens.slot}
    if forged := (reserved | {chat.im_start, chat.im_end, chat.user_slot}) & set(ids):
        spelled = text_tokenizer.decode(sorted(forged))
        raise ValueError(f"the text spells out {spelled!r}, reserved by the format: remove it")
    return text_rows(config, ids)


def _chat(config: TTSConfig) -> ChatTokens:
    if config.chat is None:
        raise ValueError("this model was not trained on conversations: build plain sequences for it")
    return config.chat
