"""The tab of the page where the tokenizer alone is heard."""

from typing import Any

import gradio as gr

from inference.demo.codec_report import Coded, decode_at, encode_file, rates
from inference.demo.common import LABELS, new_wav, said, told
from inference.demo.spectrogram import spectrogram
from inference.demo.voice_card import Updates
from tokenizer import AudioTokenizer


class CodecTab:
    """A recording, its codes, and what each depth makes of them."""

    def __init__(self, tokenizer: AudioTokenizer, language: gr.Textbox) -> None:
        self.tokenizer = tokenizer
        deepest = tokenizer.config.num_codebooks
        gr.Markdown(LABELS("codec_info"))
        self.coded = gr.State()
        with gr.Row():
            with gr.Column():
                recording = gr.Audio(
                    label=LABELS("recording"),
                    sources=["upload", "microphone"],
                    type="filepath",
                    buttons=[],
                    elem_id="recording",
                )
                measure = gr.Button(LABELS("measure"), variant="primary", elem_id="measure")
                self.rates = gr.Dataframe(
                    label=LABELS("rates"),
                    interactive=False,
                    visible=False,
                    elem_id="rates",
                )
            with gr.Column():
                self.depth = gr.Slider(
                    1, deepest, value=deepest, step=1, label=LABELS("depth"), elem_id="codec_depth"
                )
                self.rate = gr.Markdown(self.rate_of(deepest))
                self.decoded = gr.Audio(
                    label=LABELS("decoded"), interactive=False, buttons=["download"], elem_id="decoded"
                )
                self.pictures = [
                    gr.Image(label=LABELS(name), buttons=[], visible=False, elem_classes="picture")
                    for name in ("recording_picture", "decoded_picture")
                ]
        shown: list[Any] = [self.coded, self.rates, self.decoded, *self.pictures]
        measure.click(self.encode, [language, recording, self.depth], shown, api_visibility="private")
        self.depth.change(
            self.rate_of, self.depth, self.rate, queue=False, show_progress="hidden", api_visibility="private"
        )
        # While the slider is dragged, or typed into, only the latest depth waits for its turn.
        self.depth.change(
            self.decode,
            [self.coded, self.depth],
            shown,
            trigger_mode="always_last",
            api_visibility="private",
        )

    def rate_of(self, depth: float) -> str:
        return f"{self.tokenizer.config.bitrate(int(depth)) / 1000:g} kbit/s"

    def encode(self, language: str, path: str | None, depth: float) -> Updates:
        """All that is to be known of a recording."""
        with told(path or ""):
            if path is None:
                raise ValueError(said(language, "no_recording_yet"))
            coded = encode_file(self.tokenizer, path)
        table = [
            [
                row.depth,
                row.bit_per_second / 1000,
                row.num_bytes,
                f"{row.times_smaller:.0f}",
                f"{row.distance_db:.1f}",
            ]
            for row in rates(self.tokenizer, coded)
        ]
        headers = said(language, "rates_head").split("|")
        original = gr.update(value=spectrogram(coded.audio, coded.sample_rate), visible=True)
        return {
            **self.decode(coded, depth),
            self.coded: coded,
            self.rates: gr.update(value={"headers": headers, "data": table}, visible=True),
            self.pictures[0]: original,
        }

    def decode(self, coded: Coded | None, depth: float) -> Updates:
        """The recording at a depth; nothing before there is one."""
        if coded is None:
            return {self.decoded: None}
        audio = decode_at(self.tokenizer, coded, int(depth))
        return {
            self.decoded: new_wav(audio, coded.sample_rate, f"depth-{int(depth)}"),
            self.pictures[1]: gr.update(value=spectrogram(audio, coded.sample_rate), visible=True),
        }
