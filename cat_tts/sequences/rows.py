"""Sequences of rows: one text id and K codes each.

The plain format is that of paper C.3: prompt text, target text, prompt codes, then new codes. One builder
serves training and inference (`formats`): a training example is what inference reads, with the rest of the
speech and the end behind it. `conversation` builds the format of the published models.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cat_tts.config import TTSConfig
from cat_tts.text.tokenizers import TextTokenizer

IGNORED = -100
"""Target value that cross-entropy leaves out."""
FIRST_EAST_ASIAN = "\u2e80"
"""From here on, characters (and their punctuation) are set without spaces."""
MIN_FRAMES_PER_TOKEN, MAX_FRAMES_PER_TOKEN = 1.0, 12.0
"""Limits of the speaking rate where no token durations are known: frames that a text token may take."""
MAX_STRETCH = 3.0
"""Limit of the speaking rate where token durations are known: how many times longer or shorter than they say
speech may take."""


def join_texts(prompt_text: str, text: str) -> str:
    """Join the transcript of the prompt and the text to speak.

    A space stands between them, except in scripts that are written without.

    Args:
        prompt_text: Transcript of the prompt.
        text: The text to speak.

    Returns:
        Both as one text, without white space around them.
    """
    first, second = prompt_text.strip(), text.strip()
    unspaced = first[-1:] >= FIRST_EAST_ASIAN or second[:1] >= FIRST_EAST_ASIAN
    return first + second if unspaced else f"{first} {second}".strip()


def prompt_rows(
    config: TTSConfig, text_tokenizer: TextTokenizer, text: str, codes: Int[Tensor, "t k"] | None = None
) -> Int[Tensor, "n c"]:
    """Build the plain format up to where new codes begin: text, audio start, the frames of the prompt.

    Args:
        config: Configuration of the TTS model.
        text_tokenizer: Tokenizer of the model's text.
        text: Transcript of the prompt and the text to speak, joined.
        codes: Codes [t, k] of the prompt, if there is one.

    Returns:
        Rows [n, 1 + K].
    """
    rows = text_rows(config, [*text_tokenizer.encode(text), config.tokens.audio_start])
    return rows if codes is None else torch.cat([rows, frame_rows(config, codes, config.tokens.slot)])


def training_rows(
    config: TTSConfig, text_tokenizer: TextTokenizer, text: str, codes: Int[Tensor, "t k"]
) -> Int[Tensor, "n c"]:
    """Build the plain format of a whole utterance, its end included.

    Args:
        config: Configuration of the TTS model.
        text_tokenizer: Tokenizer of the model's text.
        text: Transcript of the utterance.
        codes: Codes [t, k] of the utterance.

    Returns:
        Rows [n, 1 + K].
    """
    end = text_rows(config, [config.tokens.audio_end])
    return torch.cat([prompt_rows(config, text_tokenizer, text, codes), end])


def text_rows(config: TTSConfig, ids: Sequence[int]) -> Int[Tensor, "n c"]:
    """Build rows [n, 1 + K] of n text ids, with pad codes."""
    rows = torch.full((len(ids), 1 + config.num_codebooks), config.pad_code)
    rows[:, 0] = torch.tensor(ids, dtype=torch.long)
    return rows


def unconditional_rows(config: TTSConfig, rows: Int[Tensor, "*n c"]) -> Int[Tensor, "*n c"]:
    """Replace the text of rows by pad tokens, for classifier-free guidance.

    Args:
        config: Configuration of the TTS model.
        rows: Rows [..., 1 + K] in the plain format.

    Returns:
        A copy in which only audio start, audio end, slots and codes are left.

    Raises:
        ValueError: The model has the conversation format.
    """
    if config.chat is not None:
        raise ValueError("only the plain format of sequences can go without its text, not a conversation")
    tokens = config.tokens
    marks = torch.tensor([tokens.audio_start, tokens.audio_end, tokens.slot], device=rows.device)
    rows = rows.clone()
    rows[..., 0][~torch.isin(rows[..., 0], marks)] = tokens.pad
    return rows


def frame_rows(config: TTSConfig, codes: Int[Tensor, "t k"], slot: int) -> Int[Tensor, "t c"]:
    """Build rows of speech.

    Codes of fewer codebooks than the model has are completed with pad codes, which a model run at that
    depth never reads.

    Args:
        config: Configuration of the TTS model.
        codes: Codes [t, k] of t frames, k at most K.
        slot: Id in the text channel of these rows.

    Returns:
        Rows [t, 1 + K].

    Raises:
        ValueError: The codes have another shape, or more codebooks than the model.
    """
    if codes.ndim != 2 or codes.shape[1] > config.num_codebooks:
        raise ValueError(
            f"codes of shape {tuple(codes.shape)}, "
            f"but this model reads [frames, up to {config.num_codebooks}]"
        )
    rows = torch.full((len(codes), 1 + config.num_codebooks), config.pad_code)
    rows[:, 0] = slot
    rows[:, 1 : 1 + codes.shape[1]] = codes
    return rows


def positions(config: TTSConfig, rows: Int[Tensor, "t c"], rate: float) -> Float[Tensor, " t"]:
    """Compute the rotary positions of rows: their index, or their time with `time_aligned_positions`.

    On the time axis frame f stands at f + 1, audio_start at 0, and a row of text where the tokens before it
    have been spoken: what is being spoken is always near, however long the text.

    Args:
        config: Configuration of the TTS model.
        rows: Rows [t, 1 + K] of one sequence.
        rate: Factor of the frames that text tokens usually take, see `speaking_rate`.

    Returns:
        Positions [t], in frames.
    """
    count = torch.arange(len(rows), dtype=torch.float32)
    if not config.time_aligned_positions:
        return count
    start = last_position(rows[None], config.tokens.audio_start)
    usual = torch.tensor(_usual_durations(config, rows[:, 0].tolist()))
    return torch.where(count < start, (usual.cumsum(0) - usual) * rate, count - start)


def speaking_rate(config: TTSConfig, ids: Sequence[int], frames: int) -> float:
    """Estimate the speaking rate of a recording, as frames per frame that its text usually takes.

    Args:
        config: Configuration of the TTS model.
        ids: Text ids of the transcript.
        frames: Length of the recording.

    Returns:
        The factor by which the recording stretches the usual durations (frames per text token where no
        durations are known), limited to what speech can be where recording and transcript do not agree.
    """
    rate = frames / max(sum(_usual_durations(config, ids)), 1.0)
    lowest, highest = MIN_FRAMES_PER_TOKEN, MAX_FRAMES_PER_TOKEN
    if config.token_durations is not None:
        lowest, highest = 1 / MAX_STRETCH, MAX_STRETCH
    return min(max(rate, lowest), highest)


def _usual_durations(config: TTSConfig, ids: Sequence[int]) -> list[float]:
    return [1.0] * len(ids) if config.token_durations is None else [config.token_durations[i] for i in ids]


def left_pad(
    config: TTSConfig, sequences: Sequence[Int[Tensor, "_ c"]]
) -> tuple[Int[Tensor, "b t c"], Bool[Tensor, "b t"]]:
    """Pad sequences on the left to one batch, so that every sequence ends at the last position.

    Args:
        config: Configuration of the TTS model.
        sequences: Rows [t_i, 1 + K] of each sequence.

    Returns:
        Rows [b, t, 1 + K], and the mask [b, t] that is True on those of the sequences.
    """
    longest = max(len(rows) for rows in sequences)
    padding = text_rows(config, [config.tokens.pad] * longest)
    batch = torch.stack([torch.cat([padding[len(rows) :], rows]) for rows in sequences])
    lengths = torch.tensor([len(rows) for rows in sequences])
    return batch, torch.arange(longest) >= longest - lengths[:, None]


def shifted_targets(config: TTSConfig, rows: Int[Tensor, "b t c"]) -> Int[Tensor, "b t-1 c"]:
    """Compute what the model should predict after each of `rows[:, :-1]`: the next row, or `IGNORED`.

    What follows the last audio_start is learnt: the text channel learns slots, then the end; the code
    columns learn frames. Text is not learnt, and rows that are no frames have no codes.

    Args:
        config: Configuration of the TTS model.
        rows: Rows [b, t, 1 + K] of whole examples.

    Returns:
        Targets [b, t - 1, 1 + K].

    Raises:
        ValueError: A sequence has no audio_start.
    """
    start = last_position(rows, config.tokens.audio_start)
    targets = rows[:, 1:].clone()
    targets[..., 1:].masked_fill_(targets[..., 1:] == config.pad_code, IGNORED)
    position = torch.arange(targets.shape[1], device=rows.device)
    return targets.masked_fill((position < start[:, None])[..., None], IGNORED)


def last_position(rows: Int[Tensor, "b t c"], token: int) -> Int[Tensor, " b"]:
    """Find where a text id stands last in each sequence.

    Args:
        rows: Rows [b, t, 1 + K].
        token: The id to look for in the text channel.

    Returns:
        Indices [b] of rows.

    Raises:
        ValueError: A sequence does not hold the id.
    """
    matches = rows[..., 0] == token
    if not matches.any(1).all():
        raise ValueError(
            f"sequence {int(matches.any(1).long().argmin())} of the batch holds no text id {token}"
        )
    return rows.shape[1] - 1 - matches.flip(1).long().argmax(1)
