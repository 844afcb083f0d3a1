"""The tab of the page for the audio tokenizer alone."""

from typing import Any

import gradio as gr

from inference.demo.codec_report import EncodedRecording, decode_at, depth_costs, encode_file
from inference.demo.common import LABELS, new_wav, translate, user_errors
from inference.demo.spectrogram import spectrogram
from inference.demo.voice_card import Updates
from tokenizer import AudioTokenizer


class CodecTab:
    """A recording, its codes, and its audio and cost at each depth.

    Args:
        tokenizer: The audio tokenizer.
        language: The language of the page.
    """

    def __init__(self, tokenizer: AudioTokenizer, language: gr.Textbox) -> None:
        self.tokenizer = tokenizer
        max_depth = tokenizer.config.num_codebooks
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
                self.costs = gr.Dataframe(
                    label=LABELS("depth_costs"),
                    interactive=False,
                    visible=False,
                    elem_id="rates",
                )
            with gr.Column():
                self.depth = gr.Slider(
                    1, max_depth, value=max_depth, step=1, label=LABELS("depth"), elem_id="codec_depth"
                )
                self.rate = gr.Markdown(self.rate_of(max_depth))
                self.decoded = gr.Audio(
                    label=LABELS("decoded"), interactive=False, buttons=["download"], elem_id="decoded"
                )
                self.pictures = [
                    gr.Image(label=LABELS(name), buttons=[], visible=False, elem_classes="picture")
                    for name in ("recording_picture", "decoded_picture")
                ]
        shown: list[Any] = [self.coded, self.costs, self.decoded, *self.pictures]
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
        """Return the bitrate of a depth, as a text."""
        return f"{self.tokenizer.config.bitrate(int(depth)) / 1000:g} kbit/s"

    def encode(self, language: str, path: str | None, depth: float) -> Updates:
        """Encode a recording.

        Args:
            language: The language of the page.
            path: The audio file, if there is one yet.
            depth: The depth to decode it at.

        Returns:
            Updates of the components.
        """
        with user_errors(path or ""):
            if path is None:
                raise ValueError(translate(language, "no_recording_yet"))
            coded = encode_file(self.tokenizer, path)
        table = [
            [
                cost.depth,
                cost.bit_per_second / 1000,
                cost.num_bytes,
                f"{cost.times_smaller:.0f}",
                f"{cost.distance_db:.1f}",
            ]
            for cost in depth_costs(self.tokenizer, coded)
        ]
        headers = translate(language, "depth_costs_head").split("|")
        original = gr.update(value=spectrogram(coded.audio, coded.sample_rate), visible=True)
        return {
            **self.decode(coded, depth),
            self.coded: coded,
            self.costs: gr.update(value={"headers": headers, "data": table}, visible=True),
            self.pictures[0]: original,
        }

    def decode(self, coded: EncodedRecording | None, depth: float) -> Updates:
        """Decode the recording at a depth.

        Args:
            coded: The recording, if there is one yet.
            depth: How many codebooks to decode.

        Returns:
            Updates of the components.
        """
        if coded is None:
            return {self.decoded: None}
        audio = decode_at(self.tokenizer, coded, int(depth))
        return {
            self.decoded: new_wav(audio, coded.sample_rate, f"depth-{int(depth)}"),
            self.pictures[1]: gr.update(value=spectrogram(audio, coded.sample_rate), visible=True),
        }
