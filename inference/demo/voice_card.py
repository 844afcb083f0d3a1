"""The card on the page where a voice comes from."""

import hashlib
import html
from pathlib import Path
from typing import Any

import gradio as gr

from inference.demo.common import EXAMPLES, LABELS, new_folder, new_wav, said, told
from inference.demo.recognizer import Recogniser
from inference.demo.spectrogram import spectrogram
from inference.synthesis.synthesizer import Synthesizer
from inference.voices.catvoice_file import SUFFIX, load_voice, read_voice, saved_voice, write_voice
from inference.voices.prompt_clip import LEAST_SECONDS, MOST_SECONDS, Clip, load_clip
from inference.voices.voice import Voice
from tokenizer.codes.coded_audio import decode_audio

Updates = dict[Any, Any]
"""What becomes of components."""
SPOILS = {"short": "clip_short", "quiet": "clip_quiet", "clipped": "clip_clipped", "noisy": "clip_noisy"}
CONSENT = "Whoever saved this voice said that it is their own, or that its owner agreed to its being cloned."


class VoiceCard:
    """Upload, microphone, examples or a voice file; what the clip says; advice; consent."""

    def __init__(self, synthesizer: Synthesizer, recogniser: Recogniser | None, language: gr.Textbox) -> None:
        self.synthesizer, self.recogniser, self.language = synthesizer, recogniser, language
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
        self.known = gr.State()
        """Checksum of the clip that everything else on the card is about: no event tells of a trimmed one."""
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
        optional = synthesizer.tts.config.chat is not None
        self.words = gr.Textbox(
            label=LABELS("words"),
            info=LABELS("words_optional" if optional else "words_info"),
            lines=2,
            elem_id="words",
        )
        if recogniser is None:
            gr.Markdown(LABELS("no_recogniser"), elem_id="no_recogniser")
        else:
            listener = gr.Button(LABELS("recognise"), size="sm", elem_id="recognise")
        self.consent = gr.Checkbox(label=LABELS("consent"), elem_id="consent")
        saver = gr.Button(LABELS("save_voice"), size="sm", elem_id="save_voice")
        self.file = gr.File(
            label=LABELS("voice_file"), visible=False, interactive=False, elem_id="voice_file"
        )

        self.parts: list[Any] = [language, self.consent, self.prompt, self.words, self.opened]
        """What `chosen` needs."""
        heard: list[Any] = [
            self.prompt,
            self.advice,
            self.picture,
            self.opened,
            self.known,
            self.file,
            self.examples,
        ]
        for event in (self.prompt.upload, self.prompt.stop_recording, self.prompt.input):
            told_of = event(self.hear, [language, self.prompt], heard, api_visibility="private")
            if recogniser is not None:
                told_of.success(
                    self.recognise_new,
                    [language, self.prompt, self.words],
                    self.words,
                    api_visibility="private",
                )
        self.prompt.change(
            self.hear_trimmed, [language, self.prompt, self.known], heard, api_visibility="private"
        )
        if recogniser is not None:
            listener.click(self.recognise, [language, self.prompt], self.words, api_visibility="private")
        self.prompt.clear(self.clear, None, heard, api_visibility="private")
        self.examples.input(
            self.take_example, [language, self.examples], [*heard, self.words], api_visibility="private"
        )
        opener.upload(self.open, [language, opener], [*heard, self.words], api_visibility="private")
        saver.click(self.save, self.parts, self.file, api_visibility="private")

    def hear(self, language: str, path: str | None) -> Updates:
        """A clip came or went: cut it, and say what could be better."""
        if path is None:
            return self.clear()
        with told(path):
            clip = load_clip(path, self.synthesizer.sample_rate, self.longest)
        kept = new_wav(clip.audio, clip.sample_rate, "voice") if clip.cut else path
        shown = {self.prompt: kept} if clip.cut else {}
        picture = gr.update(value=spectrogram(clip.audio, clip.sample_rate), visible=True)
        about = {self.known: checksum(kept), self.advice: advice_on(clip, language), self.picture: picture}
        return {**self.clear(), **shown, **about}

    def hear_trimmed(self, language: str, path: str | None, known: str | None) -> Any:
        """The clip is another one than the one that was heard: its visitor trimmed it."""
        if path is None or known is None or checksum(path) == known:
            return gr.skip()
        return self.hear(language, path)

    def clear(self) -> Updates:
        """Nothing is known of the clip."""
        return {
            self.opened: None,
            self.known: None,
            self.examples: None,
            self.advice: "",
            self.picture: gr.update(value=None, visible=False),
            self.file: gr.update(value=None, visible=False),
        }

    def recognise(self, language: str, path: str | None) -> str:
        """What the clip says, as far as the recogniser can tell."""
        assert self.recogniser is not None
        with told(path or ""):
            clip = self._clip(language, path)
            words = self.recogniser(clip.audio, clip.sample_rate)
            if not words:
                raise ValueError(said(language, "nothing_recognised"))
        return words

    def recognise_new(self, language: str, path: str | None, words: str) -> Any:
        """The same of a clip that just came, unless its words were written already."""
        return gr.skip() if path is None or words.strip() else self.recognise(language, path)

    def take_example(self, language: str, name: str | None) -> Updates:
        """A bundled voice and its words."""
        path = EXAMPLES.get(name or "")
        if path is None:
            return {}
        words = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
        return {
            **self.hear(language, str(path)),
            self.prompt: str(path),
            self.words: words,
            self.examples: name,
        }

    def open(self, language: str, path: str) -> Updates:
        """The voice of a file: exactly its codes, and their sound to listen to."""
        tokenizer = self.synthesizer.tokenizer
        with told(path):
            voice, saved = load_voice(path, tokenizer, self.synthesizer.tts.config), read_voice(path)
        audio = decode_audio(tokenizer, saved.coded).numpy()
        lines = [said(language, "from_a_voice_file", seconds=f"{saved.coded.seconds:.1f}")]
        if saved.consent:
            lines.append(said(language, "consent_was", consent=html.escape(saved.consent)))
        sound = new_wav(audio, self.synthesizer.sample_rate, "voice")
        return {
            **self.clear(),
            self.prompt: sound,
            self.known: checksum(sound),
            self.words: voice.text,
            self.opened: voice,
            self.advice: " ".join(lines),
            self.picture: gr.update(value=spectrogram(audio, self.synthesizer.sample_rate), visible=True),
        }

    def save(self, *parts: Any) -> dict[str, Any]:
        """The voice as a file to keep."""
        with told(parts[2] or ""):
            saved = saved_voice(self.synthesizer.voices, self.chosen(*parts), consent=CONSENT)
            file = new_folder() / f"voice{SUFFIX}"
            file.parent.mkdir(parents=True)
            write_voice(file, saved)
        return gr.update(value=str(file), visible=True)

    def chosen(
        self, language: str, consent: bool, path: str | None, words: str, opened: Voice | None
    ) -> Voice:
        """The voice to speak with; ValueError where there is none that may be used."""
        if path is None:
            raise ValueError(said(language, "no_voice_yet"))
        if not consent:
            raise ValueError(said(language, "no_consent_yet"))
        if opened is not None:
            return self.synthesizer.voice(opened, words)
        if not words.strip() and self.synthesizer.tts.config.chat is None:
            raise ValueError(said(language, "no_words_yet"))
        clip = self._clip(language, path)
        return self.synthesizer.voice((clip.audio, clip.sample_rate), words)

    def _clip(self, language: str, path: str | None) -> Clip:
        if path is None:
            raise ValueError(said(language, "no_voice_yet"))
        return load_clip(path, self.synthesizer.sample_rate, self.longest)


def checksum(path: str) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def advice_on(clip: Clip, language: str) -> str:
    """How long it is, whether it was cut, and what spoils it."""
    lines = [said(language, "clip_seconds", seconds=f"{clip.seconds:.1f}")]
    if clip.cut:
        lines.append(said(language, "clip_cut"))
    for advice in clip.advice:
        form = {"short": ".1f", "clipped": ".1%"}.get(advice.kind, ".0f")
        value = format(advice.value, form)
        lines.append(said(language, SPOILS[advice.kind], value=value, least=f"{LEAST_SECONDS:.0f}"))
    return " ".join(lines)
