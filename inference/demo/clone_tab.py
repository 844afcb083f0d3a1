"""The tab of the page for cloning a voice."""

import random
import shutil
from collections.abc import Iterator
from typing import Any

import gradio as gr

from inference.demo.common import LABELS, translate, user_errors
from inference.demo.recognizer import Recognizer
from inference.demo.results_card import ResultsCard, speed_of
from inference.demo.session import AudioChunk, DemoSession, depth_presets, expected_seconds, speak, wav_bytes
from inference.demo.voice_card import Updates, VoiceCard
from inference.device import attention_name
from inference.engine.options import SynthesisOptions
from inference.longform.plan import SpeechPlan, plan
from inference.server.limits import Limits
from inference.synthesis.adapted_services import VoiceServices
from inference.synthesis.speed_estimate import Speed
from inference.text.normalization import normalize
from inference.text.segmentation import split
from inference.voices.catvoice_format import SavedVoice
from inference.voices.voice import Voice

MAX_SEED = 2**31 - 1
ADAPT_STEPS = 5
"""Training steps on the voice, if the user wants the model to be adapted to it."""
MAX_SECONDS = Limits().max_answer_seconds
"""Longest speech, estimated from its text, pauses included."""
MAX_CHARACTERS = 20_000
"""Longest text."""


class CloneTab:
    """A voice, a text, a depth and a seed; the take segment by segment, and all takes so far.

    Args:
        services: Synthesize the takes, by the model as it is or adapted to a voice.
        speed: Predicts the RTF of a depth.
        recognizer: Transcribes prompts, if there is one.
        language: The language of the page.
    """

    def __init__(
        self, services: VoiceServices, speed: Speed, recognizer: Recognizer | None, language: gr.Textbox
    ) -> None:
        self.language = language
        self.services, self.speed, self.models = services, speed, services.service.models
        device, dtype = self.models.device, self.models.dtype
        names = [str(device), str(dtype).removeprefix("torch."), attention_name(device, dtype)]
        self.machine = " \u00b7 ".join(names)
        self.streams = shutil.which("ffmpeg") is not None
        """Whether segments are played as they come: Gradio encodes them with this program."""
        self.session = gr.State(DemoSession())
        if not self.streams:
            gr.Markdown(LABELS("no_ffmpeg"), elem_id="no_ffmpeg")
        with gr.Row():
            with gr.Column():
                self.voice = VoiceCard(self.models, recognizer, language)
                self.text = gr.Textbox(
                    label=LABELS("text"),
                    info=LABELS("text_info"),
                    lines=4,
                    max_length=MAX_CHARACTERS,
                    elem_id="text",
                )
                self.count = gr.Markdown(elem_id="count")
                self.normalize_button = gr.Button(LABELS("show_normalized"), size="sm", elem_id="normalize")
                self.normalized_text = gr.Textbox(
                    show_label=False,
                    container=False,
                    interactive=False,
                    visible=False,
                    elem_id="normalized_text",
                )
            with gr.Column():
                self._lay_out_controls()
                self._lay_out_results()
        self._wire()

    def _lay_out_controls(self) -> None:
        max_depth = self.models.max_depth
        self.depth = gr.Slider(
            1,
            max_depth,
            value=max_depth,
            step=1,
            label=LABELS("depth"),
            info=LABELS("depth_info"),
            elem_id="depth",
        )
        self.rate = gr.Markdown(elem_id="rate")
        with gr.Row():
            self.preset_buttons = {
                name: gr.Button(LABELS(name), size="sm", min_width=60, elem_id=name)
                for name in depth_presets(max_depth)
            }
        self.seed = gr.Number(
            0, precision=0, minimum=0, maximum=MAX_SEED, label=LABELS("seed"), elem_id="seed"
        )
        with gr.Row():
            self.new_seed = gr.Button(LABELS("new_seed"), size="sm", min_width=100, elem_id="new_seed")
            self.lock_seed = gr.Checkbox(
                label=LABELS("lock_seed"), min_width=100, container=False, elem_id="lock_seed"
            )
        self.adapt = gr.Checkbox(label=LABELS("adapt"), info=LABELS("adapt_info"), elem_id="adapt")
        with gr.Row():
            self.generate = gr.Button(
                LABELS("generate"), variant="primary", min_width=100, elem_id="generate"
            )
            self.stop = gr.Button(
                LABELS("stop"), variant="stop", min_width=100, interactive=False, elem_id="stop"
            )
        self.status = gr.Markdown(self.machine, elem_id="status")

    def _lay_out_results(self) -> None:
        self.stream = gr.Audio(
            label=LABELS("stream"),
            streaming=True,
            autoplay=True,
            interactive=False,
            buttons=[],
            visible=self.streams,
            elem_id="stream",
        )
        self.results = ResultsCard(self.services, self.machine, self.language, self.session, self.status)

    def _wire(self) -> None:
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        self.depth.change(
            self.rate_of, [self.language, self.depth], self.rate, trigger_mode="always_last", **quick
        )
        self.text.change(
            self.count_of, [self.language, self.text], self.count, trigger_mode="always_last", **quick
        )
        self.normalize_button.click(
            self.show_normalized, self.text, self.normalized_text, api_visibility="private"
        )
        for name, button in self.preset_buttons.items():
            depth = depth_presets(self.models.max_depth)[name]
            button.click(lambda depth=depth: depth, None, self.depth, **quick)
        self.new_seed.click(lambda: random.randint(0, MAX_SEED), None, self.seed, **quick)

        gr.on(
            [self.generate.click, self.text.submit],
            self.speak,
            [self.session, *self.voice.inputs, self.text, self.depth, self.seed, self.lock_seed, self.adapt],
            [*self.results.outputs, self.stream, self.seed, self.generate, self.stop],
            show_progress="hidden",
            trigger_mode="once",
            api_visibility="private",
        )
        self.stop.click(DemoSession.stop, self.session, None, **quick)

    def count_of(self, language: str, text: str) -> str:
        """Return a line with the length of a text, and the number of its segments."""
        if not text:
            return ""
        seconds = expected_seconds(text, self.models.tokenizer.config.frame_rate)
        line = translate(language, "characters", count=len(text), seconds=f"{seconds:.1f}")
        try:
            segments = len(split(text).segments)
        except ValueError:  # a pause that is being typed, or no words yet
            return line
        return f"{line} \u00b7 {translate(language, 'segments', count=segments)}" if segments > 1 else line

    def show_normalized(self, text: str) -> dict[str, Any]:
        """Show the text with numbers, dates and units in words, as it is spoken."""
        with user_errors():
            return gr.update(value=normalize(text), visible=bool(text.strip()))

    def rate_of(self, language: str, depth: float) -> str:
        """Return a line with the bitrate and the predicted RTF of a depth."""
        rate = f"{self.models.tokenizer.config.bitrate(int(depth)) / 1000:g}"
        return translate(language, "rate_and_rtf", rate=rate, rtf=f"{self.speed.rtf(int(depth)):.2f}")

    def speak(self, session: DemoSession, *inputs: Any) -> Iterator[Updates]:
        """Stream a take, then show the whole of it; after an error the page can be used as before.

        Args:
            session: The session of the user.
            *inputs: The values of the other input components, see `_wire`.

        Yields:
            Updates of the components.
        """
        try:
            yield from self._speak(session, *inputs)
        except Exception:
            yield {**self.idle(), self.status: self.machine}
            raise

    def _speak(
        self,
        session: DemoSession,
        language: str,
        consent: bool,
        prompt: str | None,
        transcript: str,
        opened_voice: SavedVoice | None,
        text: str,
        depth: float,
        seed: float | None,
        locked: bool,
        adapting: bool,
    ) -> Iterator[Updates]:
        session.begin()
        number = int(seed) if locked and seed is not None else random.randint(0, MAX_SEED)
        yield {
            self.seed: number,
            self.generate: gr.update(interactive=False),
            self.stop: gr.update(interactive=True),
            self.status: f"{self.machine} \u00b7 {translate(language, 'reading_voice')}",
        }
        with user_errors(prompt or ""):
            voice = self.voice.selected_voice(language, consent, prompt, transcript, opened_voice)
        with user_errors():
            steps = ADAPT_STEPS if adapting else 0
            planned = self._plan(language, text, voice, depth=int(depth), seed=number, adapt_steps=steps)
            count_before = session.count
            if adapting:
                yield {self.status: f"{self.machine} \u00b7 {translate(language, 'adapting')}"}
            service = self.services.get(voice, steps)
            yield {self.status: f"{self.machine} \u00b7 {translate(language, 'synthesizing')}"}
            for chunk in speak(service, planned, session):
                update: Updates = {self.status: self._progress(language, planned, chunk)}
                if self.streams:
                    update[self.stream] = wav_bytes(chunk.audio, self.models.sample_rate)
                yield update
        if session.count == count_before:
            yield {
                **self.idle(),
                self.status: f"{self.machine} \u00b7 {translate(language, 'nothing_spoken')}",
            }
        else:
            yield {**self.idle(), **self.results.show(language, session, session.results[-1])}

    def _plan(self, language: str, text: str, voice: Voice, **options: Any) -> SpeechPlan:
        """Plan a take; ValueError for a text that cannot be spoken or is too long."""
        if not text.strip():
            raise ValueError(translate(language, "no_text_yet"))
        seconds = expected_seconds(text, self.models.tokenizer.config.frame_rate)
        if len(text) <= MAX_CHARACTERS:
            mode = "continuation" if voice.text.strip() else "reference"
            planned = plan(self.models, text, voice, SynthesisOptions(mode=mode, **options))
            seconds = planned.expected_seconds
            if seconds <= MAX_SECONDS:
                return planned
        raise ValueError(
            translate(language, "text_too_long", seconds=f"{seconds:.0f}", max_seconds=f"{MAX_SECONDS:.0f}")
        )

    def _progress(self, language: str, planned: SpeechPlan, chunk: AudioChunk) -> str:
        segments, seconds = len(planned.requests), f"{chunk.seconds:.1f}"
        if segments > 1:
            line = translate(
                language, "speaking_segment", segment=chunk.segment + 1, segments=segments, seconds=seconds
            )
        else:
            line = translate(language, "speaking", seconds=seconds)
        return f"{self.machine} \u00b7 {line} \u00b7 {speed_of(language, chunk.timing, chunk.seconds)}"

    def idle(self) -> Updates:
        """Return the updates of the buttons when nothing is being spoken."""
        return {self.generate: gr.update(interactive=True), self.stop: gr.update(interactive=False)}
