"""The card on the page where a voice comes from."""

import html
from typing import Any

import gradio as gr

from inference.clip import MOST_SECONDS, load_clip
from inference.demo import EXAMPLE, LABELS, new_folder, new_wav, told
from inference.spectrogram import spectrogram
from inference.synthesizer import Synthesizer
from inference.voice import Voice
from inference.voice_file import SUFFIX, load_voice, read_voice, saved_voice, write_voice
from tokenizer.coded_audio import decode_audio

Updates = dict[Any, Any]
"""What becomes of components."""
CONSENT = "Whoever saved this voice said that it is their own, or that its owner agreed to its being cloned."


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
        self.opened = gr.State()
        """The voice of a voice file, while the prompt is what it sounds like."""
        with gr.Row():
            example = gr.Button(LABELS("example"), size="sm", min_width=100, elem_id="example")
            opener = gr.UploadButton(
                LABELS("open_voice"),  # pyright: ignore[reportArgumentType]
                file_types=[SUFFIX],
                size="sm",
                min_width=100,
                elem_id="open_voice",
            )
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
        saver = gr.Button(LABELS("save_voice"), size="sm", elem_id="save_voice")
        self.file = gr.File(
            label=LABELS("voice_file"), visible=False, interactive=False, elem_id="voice_file"
        )

        self.parts: list[Any] = [self.consent, self.prompt, self.words, self.opened]
        """What `chosen` needs."""
        heard: list[Any] = [self.prompt, self.advice, self.picture, self.opened, self.file]
        for event in (self.prompt.upload, self.prompt.stop_recording, self.prompt.input):
            event(self.hear, self.prompt, heard, api_visibility="private")
        self.prompt.clear(lambda: self.hear(None), None, heard, api_visibility="private")
        example.click(self.take_example, None, [*heard, self.words], api_visibility="private")
        opener.upload(self.open, opener, [*heard, self.words], api_visibility="private")
        saver.click(self.save, self.parts, self.file, api_visibility="private")

    def hear(self, path: str | None) -> Updates:
        """A clip came or went: cut it, and say what could be better."""
        gone: Updates = {self.opened: None, self.file: gr.update(value=None, visible=False)}
        if path is None:
            return {**gone, self.advice: "", self.picture: gr.update(value=None, visible=False)}
        with told(path):
            clip = load_clip(path, self.synthesizer.sample_rate, self.longest)
        lines, shown = [f"{clip.seconds:.1f} s.", *clip.advice], {}
        if clip.cut:
            lines.insert(1, "It was cut in a pause: write what is left of it.")
            shown[self.prompt] = new_wav(clip.audio, clip.sample_rate, "voice")
        picture = gr.update(value=spectrogram(clip.audio, clip.sample_rate), visible=True)
        return {**gone, **shown, self.advice: " ".join(lines), self.picture: picture}

    def take_example(self) -> Updates:
        """The bundled voice and its words."""
        path = str(EXAMPLE)
        return {**self.hear(path), self.prompt: path, self.words: EXAMPLE.with_suffix(".txt").read_text()}

    def open(self, path: str) -> Updates:
        """The voice of a file: exactly its codes, and their sound to listen to."""
        tokenizer = self.synthesizer.tokenizer
        with told(path):
            voice, saved = load_voice(path, tokenizer, self.synthesizer.tts.config), read_voice(path)
        audio = decode_audio(tokenizer, saved.coded).numpy()
        consent = f" Consent: {html.escape(saved.consent)}" if saved.consent else ""
        return {
            self.prompt: new_wav(audio, self.synthesizer.sample_rate, "voice"),
            self.words: voice.text,
            self.opened: voice,
            self.advice: f"{saved.coded.seconds:.1f} s, from a voice file.{consent}",
            self.picture: gr.update(value=spectrogram(audio, self.synthesizer.sample_rate), visible=True),
            self.file: gr.update(value=None, visible=False),
        }

    def save(self, consent: bool, path: str | None, words: str, opened: Voice | None) -> dict[str, Any]:
        """The voice as a file to keep."""
        with told(path or ""):
            voice = self.chosen(consent, path, words, opened)
            saved = saved_voice(self.synthesizer.tokenizer, voice, consent=CONSENT)
            file = new_folder() / f"voice{SUFFIX}"
            file.parent.mkdir(parents=True)
            write_voice(file, saved)
        return gr.update(value=str(file), visible=True)

    def chosen(self, consent: bool, path: str | None, words: str, opened: Voice | None) -> Voice:
        """The voice to speak with; ValueError where there is none that may be used."""
        if path is None:
            raise ValueError("there is no voice yet: upload or record a clip, or use the example voice")
        if not consent:
            raise ValueError("tick the box under the voice first: it needs the consent of its owner")
        if opened is not None:
            return self.synthesizer.voice(opened, words)
        if not words.strip() and self.synthesizer.tts.config.chat is None:
            raise ValueError("the prompt text is empty: write what the clip says")
        clip = load_clip(path, self.synthesizer.sample_rate, self.longest)
        return self.synthesizer.voice((clip.audio, clip.sample_rate), words)
