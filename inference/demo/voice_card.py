"""The card of the page for choosing a voice."""

import html
from typing import Any

import gradio as gr

from inference.demo.common import (
    EXAMPLES,
    LABELS,
    file_checksum,
    new_folder,
    new_wav,
    translate,
    user_errors,
)
from inference.demo.prompt_advice import advice_on
from inference.demo.recognizer import Recognizer
from inference.demo.spectrogram import spectrogram
from inference.synthesis.models import SpeechModels
from inference.voices.catvoice_file import read_voice, saved_voice, write_voice
from inference.voices.catvoice_format import SUFFIX, SavedVoice
from inference.voices.prompt_clip import MAX_CLIP_SECONDS, PromptClip, load_clip
from inference.voices.voice import Voice
from tokenizer.codes.coded_audio import decode_audio

Updates = dict[Any, Any]
"""New values and properties of components, by component."""
CONSENT = "Whoever saved this voice said that it is their own, or that its owner agreed to its being cloned."
"""The consent that is written into voice files; the page saves none without it."""


class VoiceCard:
    """A recording, an example or a voice file; its transcript; advice on it; consent.

    Args:
        models: Encode voices.
        recognizer: Transcribes recordings, if there is one.
        language: The language of the page.
    """

    def __init__(self, models: SpeechModels, recognizer: Recognizer | None, language: gr.Textbox) -> None:
        self.models, self.recognizer, self.language = models, recognizer, language
        self.max_seconds = min(MAX_CLIP_SECONDS, models.max_prompt_seconds)
        self.prompt = gr.Audio(
            label=LABELS("prompt"),
            sources=["upload", "microphone"],
            type="filepath",
            buttons=[],
            elem_id="prompt",
        )
        self.opened_voice = gr.State()
        """The voice of a voice file, as long as the prompt is its decoded audio."""
        self.prompt_checksum = gr.State()
        """Checksum of the recording that is shown, since Gradio has no event for a trimmed one."""
        with gr.Row(elem_id="sources"):
            self.examples = gr.Dropdown(
                list(EXAMPLES), value=None, label=LABELS("examples"), min_width=240, elem_id="examples"
            )
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
        optional = models.tts.config.chat is not None
        self.transcript = gr.Textbox(
            label=LABELS("transcript"),
            info=LABELS("transcript_optional" if optional else "transcript_info"),
            lines=2,
            elem_id="transcript",
        )
        if recognizer is None:
            gr.Markdown(LABELS("no_recognizer"), elem_id="no_recognizer")
        else:
            recognize_button = gr.Button(LABELS("recognize"), size="sm", elem_id="recognize")
        self.consent = gr.Checkbox(label=LABELS("consent"), elem_id="consent")
        saver = gr.Button(LABELS("save_voice"), size="sm", elem_id="save_voice")
        self.file = gr.File(
            label=LABELS("voice_file"), visible=False, interactive=False, elem_id="voice_file"
        )

        self.inputs: list[Any] = [language, self.consent, self.prompt, self.transcript, self.opened_voice]
        """The components that `selected_voice` reads."""
        outputs: list[Any] = [
            self.prompt,
            self.advice,
            self.picture,
            self.opened_voice,
            self.prompt_checksum,
            self.file,
            self.examples,
        ]
        for event in (self.prompt.upload, self.prompt.stop_recording, self.prompt.input):
            loaded = event(self.load_prompt, [language, self.prompt], outputs, api_visibility="private")
            if recognizer is not None:
                loaded.success(
                    self.recognize_new,
                    [language, self.prompt, self.transcript],
                    self.transcript,
                    api_visibility="private",
                )
        self.prompt.change(
            self.load_trimmed_prompt,
            [language, self.prompt, self.prompt_checksum],
            outputs,
            api_visibility="private",
        )
        if recognizer is not None:
            recognize_button.click(
                self.recognize, [language, self.prompt], self.transcript, api_visibility="private"
            )
        self.prompt.clear(self.clear, None, outputs, api_visibility="private")
        self.examples.input(
            self.load_example,
            [language, self.examples],
            [*outputs, self.transcript],
            api_visibility="private",
        )
        opener.upload(
            self.open_voice_file, [language, opener], [*outputs, self.transcript], api_visibility="private"
        )
        saver.click(self.save_voice_file, self.inputs, self.file, api_visibility="private")

    def load_prompt(self, language: str, path: str | None) -> Updates:
        """Show a recording, cut to the longest prompt, and advice on it.

        Args:
            language: The language of the page.
            path: The recording, or None if it was removed.

        Returns:
            Updates of the components.
        """
        if path is None:
            return self.clear()
        with user_errors(path):
            clip = load_clip(path, self.models.sample_rate, self.max_seconds)
        shown_path = new_wav(clip.audio, clip.sample_rate, "voice") if clip.cut else path
        shown = {self.prompt: shown_path} if clip.cut else {}
        picture = gr.update(value=spectrogram(clip.audio, clip.sample_rate), visible=True)
        advice = {self.prompt_checksum: file_checksum(shown_path), self.advice: advice_on(clip, language)}
        return {**self.clear(), **shown, **advice, self.picture: picture}

    def load_trimmed_prompt(self, language: str, path: str | None, prompt_checksum: str | None) -> Any:
        """Show a recording that the user trimmed; do nothing if it is the one that is shown.

        Args:
            language: The language of the page.
            path: The recording.
            prompt_checksum: The checksum of the recording that is shown.

        Returns:
            Updates of the components.
        """
        if path is None or prompt_checksum is None or file_checksum(path) == prompt_checksum:
            return gr.skip()
        return self.load_prompt(language, path)

    def clear(self) -> Updates:
        """Return the updates that remove everything about the recording."""
        return {
            self.opened_voice: None,
            self.prompt_checksum: None,
            self.examples: None,
            self.advice: "",
            self.picture: gr.update(value=None, visible=False),
            self.file: gr.update(value=None, visible=False),
        }

    def recognize(self, language: str, path: str | None) -> str:
        """Transcribe the recording.

        Args:
            language: The language of the page.
            path: The recording.

        Returns:
            The transcript.

        Raises:
            gr.Error: There is no recording, or no speech in it.
        """
        assert self.recognizer is not None
        with user_errors(path or ""):
            clip = self._clip(language, path)
            transcript = self.recognizer(clip.audio, clip.sample_rate)
            if not transcript:
                raise ValueError(translate(language, "nothing_recognized"))
        return transcript

    def recognize_new(self, language: str, path: str | None, transcript: str) -> Any:
        """Transcribe a new recording, unless there is a transcript already."""
        return gr.skip() if path is None or transcript.strip() else self.recognize(language, path)

    def load_example(self, language: str, name: str | None) -> Updates:
        """Show an example voice and its transcript.

        Args:
            language: The language of the page.
            name: A name in `EXAMPLES`.

        Returns:
            Updates of the components.
        """
        path = EXAMPLES.get(name or "")
        if path is None:
            return {}
        transcript = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
        return {
            **self.load_prompt(language, str(path)),
            self.prompt: str(path),
            self.transcript: transcript,
            self.examples: name,
        }

    def open_voice_file(self, language: str, path: str) -> Updates:
        """Show the voice of a voice file, which is used with exactly its codes, and their audio.

        Args:
            language: The language of the page.
            path: The voice file.

        Returns:
            Updates of the components.
        """
        with user_errors(path):
            self.models.load_voice(saved := read_voice(path))  # refuses one of another model
        audio = decode_audio(self.models.tokenizer, saved.coded).numpy()
        lines = [translate(language, "from_a_voice_file", seconds=f"{saved.coded.seconds:.1f}")]
        if saved.consent:
            lines.append(translate(language, "consent_was", consent=html.escape(saved.consent)))
        sound = new_wav(audio, self.models.sample_rate, "voice")
        return {
            **self.clear(),
            self.prompt: sound,
            self.prompt_checksum: file_checksum(sound),
            self.transcript: saved.text,
            self.opened_voice: saved,
            self.advice: " ".join(lines),
            self.picture: gr.update(value=spectrogram(audio, self.models.sample_rate), visible=True),
        }

    def save_voice_file(self, *inputs: Any) -> dict[str, Any]:
        """Save the selected voice to a file.

        Args:
            *inputs: The values of the components `inputs`.

        Returns:
            The update that offers the file.
        """
        with user_errors(inputs[2] or ""):
            saved = saved_voice(self.models.voices, self.selected_voice(*inputs), consent=CONSENT)
            file = new_folder() / f"voice{SUFFIX}"
            file.parent.mkdir(parents=True)
            write_voice(file, saved)
        return gr.update(value=str(file), visible=True)

    def selected_voice(
        self, language: str, consent: bool, path: str | None, transcript: str, opened_voice: SavedVoice | None
    ) -> Voice:
        """Return the voice to speak with.

        Args:
            language: The language of the page.
            consent: Whether the user ticked the box.
            path: The recording, if there is one.
            transcript: What it says.
            opened_voice: The voice of a voice file, if one was opened.

        Returns:
            The voice.

        Raises:
            ValueError: There is no voice, no consent or no transcript.
        """
        if path is None:
            raise ValueError(translate(language, "no_voice_yet"))
        if not consent:
            raise ValueError(translate(language, "no_consent_yet"))
        if opened_voice is not None:
            return self.models.load_voice(opened_voice, transcript)
        if not transcript.strip() and self.models.tts.config.chat is None:
            raise ValueError(translate(language, "no_transcript_yet"))
        clip = self._clip(language, path)
        return self.models.load_voice((clip.audio, clip.sample_rate), transcript)

    def _clip(self, language: str, path: str | None) -> PromptClip:
        if path is None:
            raise ValueError(translate(language, "no_voice_yet"))
        return load_clip(path, self.models.sample_rate, self.max_seconds)
