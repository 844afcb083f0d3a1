"""Generate the codes of a whole batch: a plain loop over `FrameDecoder`."""

from collections.abc import Iterator

from jaxtyping import Bool, Float, Int
from torch import Tensor

from cat_tts.generation.continuation import Continuation
from cat_tts.generation.frame_decoder import FrameDecoder
from cat_tts.generation.sampling import SamplingOptions
from cat_tts.model.tts import CatTTS


def generate(
    model: CatTTS,
    rows: Int[Tensor, "b t c"],
    mask: Bool[Tensor, "b t"] | None,
    *,
    depth: int,
    seeds: Int[Tensor, " b"],
    max_frames: int,
    options: SamplingOptions,
    positions: Float[Tensor, "b t"] | None = None,
    min_frames: int = 1,
    any_text: bool = False,
    speaker: Float[Tensor, "b e"] | None = None,
) -> Iterator[Int[Tensor, "b e"]]:
    """Generate new rows of a batch, one row of every sequence at a time (paper 3.3).

    Args:
        model: The TTS model.
        rows: Rows [b, t, 1 + K] of the prompts, padded on the left where they differ in length.
        mask: Mask [b, t], False on padding; None where there is none.
        depth: How many codebooks to generate.
        seeds: Seeds [b].
        max_frames: Frames after which the loop ends at the latest; it ends when all sequences have.
        options: How codes are sampled.
        positions: Rotary positions [b, t] of the rows; None: their index.
        min_frames: Frames before which no sequence stops.
        any_text: As for `FrameDecoder`.
        speaker: Voice vectors [b, e] of the prompts; None adds nothing.

    Yields:
        Text id and codes [b, 1 + depth] of the next row. A sequence has ended where the text id is
        `audio_end`; from that row on its codes are pads.
    """
    decoder = FrameDecoder[int](model, len(rows), any_text=any_text)
    for i, row in enumerate(rows):
        valid = slice(None) if mask is None else mask[i]
        continuation = Continuation(
            rows=row[valid],
            positions=None if positions is None else positions[i][valid],
            depth=depth,
            seed=int(seeds[i]),
            options=options,
            min_frames=min_frames,
            max_frames=max_frames,
            speaker=None if speaker is None else speaker[i],
        )
        decoder.join(continuation, i)
    while decoder.active:
        new = rows.new_full((len(rows), 1 + depth), model.config.pad_code)
        new[:, 0] = model.config.tokens.audio_end
        for sequence in decoder.step():
            new[sequence.owner] = sequence.row
            if sequence.ended:
                decoder.leave(sequence)
        yield new
