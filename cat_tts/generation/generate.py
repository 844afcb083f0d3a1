"""Whole takes of a batch at once: a plain loop over `FrameDecoder`."""

from collections.abc import Iterator

from jaxtyping import Bool, Float, Int
from torch import Tensor

from cat_tts.generation.frame_decoder import Continuation, FrameDecoder
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
) -> Iterator[Int[Tensor, "b e"]]:
    """New rows, one at a time: text id and `depth` codes of every sequence.

    A sequence has ended where the text id is `audio_end`; from that row on its codes are pads and mean
    nothing. The loop ends when all have, or after `max_frames`. Where sequences differ in length, `rows` is
    padded on the left, False in `mask`. `any_text` is that of `FrameDecoder`.
    """
    decoder = FrameDecoder(model, len(rows), any_text=any_text)
    for i, row in enumerate(rows):
        kept = slice(None) if mask is None else mask[i]
        take = Continuation(
            rows=row[kept],
            positions=None if positions is None else positions[i][kept],
            depth=depth,
            seed=int(seeds[i]),
            options=options,
            min_frames=min_frames,
            max_frames=max_frames,
        )
        assert decoder.join(take) == i
    while decoder.active:
        made = decoder.step()
        new = rows.new_full((len(rows), 1 + depth), model.config.pad_code)
        new[:, 0] = model.config.tokens.audio_end
        for i, row in made.items():
            new[i] = row
        yield new
