"""The card on the page where a voice comes from."""

from typing import Any

import gradio as gr

from inference.clip import MOST_SECONDS, load_clip
from inference.demo import EXAMPLE, LABELS, new_wav, told
from inference.prompt import PromptAudio
from inference.spectrogram import spectrogram
from inference.synthesizer import Synthesizer

Updates = dict[Any, Any]
"""What becomes of components."""


class VoiceCard:
    """Upload, microphone or example; what the clip says; advice; consent."""

    def __init__(self, synthesizer: Synthesizer) -> None:
        self.synthesizer = synthesizer
        self.longest = min(MOST_SECONDS, synthesizer.max_prompt_seconds)
        self.prompt = gr.Audio(
            label=LABELS("prompt"),
            sources=["upload", "microphone"],
            type="filepath",
            buttons=[],
            elem_id="prompt",
        )
        example = gr.Button(LABELS("example"), size="sm", elem_id="example")
        self.advice = gr.Markdown(elem_id="advice")
        self.picture = gr.Image(
            label=LABELS("prompt_picture"),
            buttons=[],
            visible=False,
            elem_classes="picture",
        )
        optional = synthesizer.tts.config.chat is not None
        self.words = gr.Textbox(
            label=LABELS("words"),
            info=LABELS("words_optional" if optional else "words_info"),
            lines=2,
            elem_id="words",
        )
        self.consent = gr.Checkbox(label=LABELS("consent"), elem_id="consent")

        heard = [self.prompt, self.advice, self.picture]
        for event in (self.prompt.upload, self.prompt.stop_recording, self.prompt.input):
            event(self.hear, self.prompt, heard, api_visibility="private")
        self.prompt.clear(lambda: self.hear(None), None, heard, api_visibility="private")
        example.click(self.take_example, None, [*heard, self.words], api_visibility="private")

    def hear(self, path: str | None) -> Updates:
        """A clip came or went: cut it, and say what could be better."""
        if path is None:
            return {self.advice: "", self.picture: gr.update(value=None, visible=False)}
        with told():
            clip = load_clip(path, self.synthesizer.sample_rate, self.longest)
        lines, shown = [f"{clip.seconds:.1f} s.", *clip.advice], {}
        if clip.cut:
            lines.insert(1, "It was cut in a pause: write what is left of it.")
            shown[self.prompt] = new_wav(clip.audio, clip.sample_rate, "voice")
        picture = gr.update(value=spectrogram(clip.audio, clip.sample_rate), visible=True)
        return {**shown, self.advice: " ".join(lines), self.picture: picture}

    def take_example(self) -> Updates:
        """The bundled voice and its words."""
        path = str(EXAMPLE)
        return {**self.hear(path), self.prompt: path, self.words: EXAMPLE.with_suffix(".txt").read_text()}

    def chosen(self, path: str | None, consent: bool) -> PromptAudio:
        """The prompt to speak with; ValueError where there is none that may be used."""
        if path is None:
            raise ValueError("there is no voice yet: upload or record a clip, or use the example voice")
        if not consent:
            raise ValueError("tick the box under the voice first: it needs the consent of its owner")
        clip = load_clip(path, self.synthesizer.sample_rate, self.longest)
        return clip.audio, clip.sample_rate
