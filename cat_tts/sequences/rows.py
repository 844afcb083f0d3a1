"""Sequences of rows: one text id and K codes each.

The plain format is that of paper C.3: prompt text, target text, prompt codes, then new codes. One builder
serves training and inference: a training example is what inference sees, with the rest of the speech
and the end behind it. `published_prompt` builds the conversation format of the published models.
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
MIN_PACE, MAX_PACE = 1.0, 12.0
"""Frames that a text token may take, where all are taken to be alike."""
SLOWEST = 3.0
"""How many times longer or shorter than usual speech may take, where the usual frames of tokens are known."""


def join_texts(prompt_text: str, text: str) -> str:
    """The transcript of the prompt followed by the text to speak, as one text.

    A space stands between them, but for scripts that are written without.
    """
    first, second = prompt_text.strip(), text.strip()
    unspaced = first[-1:] >= FIRST_EAST_ASIAN or second[:1] >= FIRST_EAST_ASIAN
    return first + second if unspaced else f"{first} {second}".strip()


def prompt_rows(
    config: TTSConfig, tokenizer: TextTokenizer, text: str, codes: Int[Tensor, "t k"] | None = None
) -> Int[Tensor, "n c"]:
    """Rows up to where new codes begin: text, audio start, the frames of the prompt."""
    rows = text_rows(config, [*tokenizer.encode(text), config.tokens.audio_start])
    return rows if codes is None else torch.cat([rows, frame_rows(config, codes, config.tokens.slot)])


def training_rows(
    config: TTSConfig, tokenizer: TextTokenizer, text: str, codes: Int[Tensor, "t k"]
) -> Int[Tensor, "n c"]:
    """The rows of a whole utterance, its end included."""
    end = text_rows(config, [config.tokens.audio_end])
    return torch.cat([prompt_rows(config, tokenizer, text, codes), end])


def text_rows(config: TTSConfig, ids: Sequence[int]) -> Int[Tensor, "n c"]:
    """Rows of text, with pad codes."""
    rows = torch.full((len(ids), 1 + config.num_codebooks), config.pad_code)
    rows[:, 0] = torch.tensor(ids, dtype=torch.long)
    return rows


def untold_rows(config: TTSConfig, rows: Int[Tensor, "*n c"]) -> Int[Tensor, "*n c"]:
    """The same rows with pad tokens for a text: what a model continues that is not told what to say."""
    if config.chat is not None:
        raise ValueError("only the plain format of sequences can go without its text, not a conversation")
    tokens = config.tokens
    marks = torch.tensor([tokens.audio_start, tokens.audio_end, tokens.slot], device=rows.device)
    rows = rows.clone()
    rows[..., 0][~torch.isin(rows[..., 0], marks)] = tokens.pad
    return rows


def frame_rows(config: TTSConfig, codes: Int[Tensor, "t k"], slot: int) -> Int[Tensor, "t c"]:
    """Rows of speech, with `slot` as their text.

    Codes of fewer codebooks than the model has are completed with pad codes, which a model run at that
    depth never reads.
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


def positions(config: TTSConfig, rows: Int[Tensor, "t c"], pace: float) -> Float[Tensor, " t"]:
    """Rotary positions of rows: their count, or for `config.shared_time` their place in time.

    There frame f stands at f + 1, audio_start at 0, and a row of text where the tokens before it have been
    spoken, at `pace` times the frames that they usually take: what is being spoken is always near, however
    long the text.
    """
    count = torch.arange(len(rows), dtype=torch.float32)
    if not config.shared_time:
        return count
    start = last_position(rows[None], config.tokens.audio_start)
    usual = torch.tensor(_usual_frames(config, rows[:, 0].tolist()))
    return torch.where(count < start, (usual.cumsum(0) - usual) * pace, count - start)


def speaking_pace(config: TTSConfig, ids: Sequence[int], frames: int) -> float:
    """How a recording of `frames` stretches the usual frames of its text, kept to what speech can be where
    recording and transcript do not agree."""
    pace = frames / max(sum(_usual_frames(config, ids)), 1.0)
    lowest, highest = (MIN_PACE, MAX_PACE) if config.text_frames is None else (1 / SLOWEST, SLOWEST)
    return min(max(pace, lowest), highest)


def _usual_frames(config: TTSConfig, ids: Sequence[int]) -> list[float]:
    return [1.0] * len(ids) if config.text_frames is None else [config.text_frames[i] for i in ids]


def left_pad(
    config: TTSConfig, sequences: Sequence[Int[Tensor, "_ c"]]
) -> tuple[Int[Tensor, "b t c"], Bool[Tensor, "b t"]]:
    """One batch, every sequence ending at the last position, and the mask that is True on its rows."""
    longest = max(len(rows) for rows in sequences)
    padding = text_rows(config, [config.tokens.pad] * longest)
    batch = torch.stack([torch.cat([padding[len(rows) :], rows]) for rows in sequences])
    lengths = torch.tensor([len(rows) for rows in sequences])
    return batch, torch.arange(longest) >= longest - lengths[:, None]


def shifted_targets(config: TTSConfig, rows: Int[Tensor, "b t c"]) -> Int[Tensor, "b t-1 c"]:
    """What the model should answer to `rows[:, :-1]`: the next row, and `IGNORED` where nothing is asked.

    Asked is what follows the last audio_start: the text channel learns slots, then the end; the code
    columns learn frames. Text is given, not learnt, and rows that are no frames have no codes.
    """
    start = last_position(rows, config.tokens.audio_start)
    targets = rows[:, 1:].clone()
    targets[..., 1:].masked_fill_(targets[..., 1:] == config.pad_code, IGNORED)
    position = torch.arange(targets.shape[1], device=rows.device)
    return targets.masked_fill((position < start[:, None])[..., None], IGNORED)


def last_position(rows: Int[Tensor, "b t c"], token: int) -> Int[Tensor, " b"]:
    """Where `token` stands last in the text channel of each sequence."""
    found = rows[..., 0] == token
    if not found.any(1).all():
        raise ValueError(
            f"sequence {int(found.any(1).long().argmin())} of the batch holds no text id {token}"
        )
    return rows.shape[1] - 1 - found.flip(1).long().argmax(1)
