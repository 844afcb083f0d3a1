"""The tab of the page where takes are made."""

import random
import shutil
from collections.abc import Iterator
from typing import Any

import gradio as gr

from inference.demo.common import LABELS, said, told
from inference.demo.recognizer import Recogniser
from inference.demo.results_card import TakesCard, speed_of
from inference.demo.session import Piece, Session, presets, speak, usual_seconds, wav_bytes
from inference.demo.voice_card import Updates, VoiceCard
from inference.device import attention_name
from inference.longform.plan import Plan, plan
from inference.server.limits import Limits
from inference.synthesis.adapted_services import VoiceServices
from inference.synthesis.speed_estimate import Speed
from inference.text.normalization import normalise
from inference.text.segmentation import split
from inference.voices.voice import Voice

MOST_SEED = 2**31 - 1
TUNING_STEPS = 5
MOST_SECONDS = Limits().max_answer_seconds
MOST_CHARACTERS = 20_000


class CloneTab:
    """A voice, a text, a depth and a seed; the take while it is made, and all takes so far."""

    def __init__(
        self, services: VoiceServices, speed: Speed, recogniser: Recogniser | None, language: gr.Textbox
    ) -> None:
        self.language = language
        self.services, self.speed, self.synthesizer = services, speed, services.service.synthesizer
        device, dtype = self.synthesizer.device, self.synthesizer.dtype
        names = [str(device), str(dtype).removeprefix("torch."), attention_name(device, dtype)]
        self.machine = " \u00b7 ".join(names)
        self.streams = shutil.which("ffmpeg") is not None
        """Gradio encodes what is played while it is made with this program."""
        self.session = gr.State(Session())
        if not self.streams:
            gr.Markdown(LABELS("no_ffmpeg"), elem_id="no_ffmpeg")
        with gr.Row():
            with gr.Column():
                self.voice = VoiceCard(self.synthesizer, recogniser, language)
                self.text = gr.Textbox(
                    label=LABELS("text"),
                    info=LABELS("text_info"),
                    lines=4,
                    max_length=MOST_CHARACTERS,
                    elem_id="text",
                )
                self.count = gr.Markdown(elem_id="count")
                self.spell = gr.Button(LABELS("spell"), size="sm", elem_id="spell")
                self.spelt = gr.Textbox(
                    show_label=False, container=False, interactive=False, visible=False, elem_id="spelt"
                )
            with gr.Column():
                self._lay_out_controls()
                self._lay_out_results()
        self._wire()

    def _lay_out_controls(self) -> None:
        deepest = self.synthesizer.max_depth
        self.depth = gr.Slider(
            1,
            deepest,
            value=deepest,
            step=1,
            label=LABELS("depth"),
            info=LABELS("depth_info"),
            elem_id="depth",
        )
        self.rate = gr.Markdown(elem_id="rate")
        with gr.Row():
            self.presets = {
                name: gr.Button(LABELS(name), size="sm", min_width=60, elem_id=name)
                for name in presets(deepest)
            }
        self.seed = gr.Number(
            0, precision=0, minimum=0, maximum=MOST_SEED, label=LABELS("seed"), elem_id="seed"
        )
        with gr.Row():
            self.dice = gr.Button(LABELS("dice"), size="sm", min_width=100, elem_id="dice")
            self.lock = gr.Checkbox(label=LABELS("lock"), min_width=100, container=False, elem_id="lock")
        self.tune = gr.Checkbox(label=LABELS("tune"), info=LABELS("tune_info"), elem_id="tune")
        with gr.Row():
            self.generate = gr.Button(
                LABELS("generate"), variant="primary", min_width=100, elem_id="generate"
            )
            self.stop = gr.Button(
                LABELS("stop"), variant="stop", min_width=100, interactive=False, elem_id="stop"
            )
        self.status = gr.Markdown(self.machine, elem_id="status")

    def _lay_out_results(self) -> None:
        self.live = gr.Audio(
            label=LABELS("live"),
            streaming=True,
            autoplay=True,
            interactive=False,
            buttons=[],
            visible=self.streams,
            elem_id="live",
        )
        self.takes = TakesCard(self.services, self.machine, self.language, self.session, self.status)

    def _wire(self) -> None:
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        self.depth.change(
            self.rate_of, [self.language, self.depth], self.rate, trigger_mode="always_last", **quick
        )
        self.text.change(
            self.count_of, [self.language, self.text], self.count, trigger_mode="always_last", **quick
        )
        self.spell.click(self.spell_out, self.text, self.spelt, api_visibility="private")
        for name, button in self.presets.items():
            depth = presets(self.synthesizer.max_depth)[name]
            button.click(lambda depth=depth: depth, None, self.depth, **quick)
        self.dice.click(lambda: random.randint(0, MOST_SEED), None, self.seed, **quick)

        gr.on(
            [self.generate.click, self.text.submit],
            self.speak,
            [self.session, *self.voice.parts, self.text, self.depth, self.seed, self.lock, self.tune],
            [*self.takes.shown, self.live, self.seed, self.generate, self.stop],
            show_progress="hidden",
            trigger_mode="once",
            api_visibility="private",
        )
        self.stop.click(Session.stop, self.session, None, **quick)

    def count_of(self, language: str, text: str) -> str:
        """How long a text is, and in how many pieces it is spoken."""
        if not text:
            return ""
        seconds = usual_seconds(text, self.synthesizer.tokenizer.config.frame_rate)
        line = said(language, "characters", count=len(text), seconds=f"{seconds:.1f}")
        try:
            pieces = len(split(text).pieces)
        except ValueError:  # a pause that is being written, or no words yet
            return line
        return f"{line} \u00b7 {said(language, 'pieces', count=pieces)}" if pieces > 1 else line

    def spell_out(self, text: str) -> dict[str, Any]:
        """The text with numbers, dates and units in words, which is what a take is made of."""
        with told():
            return gr.update(value=normalise(text), visible=bool(text.strip()))

    def rate_of(self, language: str, depth: float) -> str:
        """What a depth costs."""
        rate = f"{self.synthesizer.tokenizer.config.bitrate(int(depth)) / 1000:g}"
        return said(language, "rate_and_rtf", rate=rate, rtf=f"{self.speed.rtf(int(depth)):.2f}")

    def speak(self, session: Session, *given: Any) -> Iterator[Updates]:
        """A take, streamed; then the whole of it. After an error the page can be used as before."""
        try:
            yield from self._speak(session, *given)
        except Exception:
            yield {**self.rest(), self.status: self.machine}
            raise

    def _speak(
        self,
        session: Session,
        language: str,
        consent: bool,
        prompt: str | None,
        words: str,
        opened: Voice | None,
        text: str,
        depth: float,
        seed: float | None,
        locked: bool,
        tuning: bool,
    ) -> Iterator[Updates]:
        session.begin()
        number = int(seed) if locked and seed is not None else random.randint(0, MOST_SEED)
        yield {
            self.seed: number,
            self.generate: gr.update(interactive=False),
            self.stop: gr.update(interactive=True),
            self.status: f"{self.machine} \u00b7 {said(language, 'reading_voice')}",
        }
        with told(prompt or ""):
            voice = self.voice.chosen(language, consent, prompt, words, opened)
        with told():
            planned = self._plan(language, text, voice, int(depth), number)
            before, steps = session.made, TUNING_STEPS if tuning else None
            if tuning:
                yield {self.status: f"{self.machine} \u00b7 {said(language, 'tuning')}"}
            for piece in speak(self.services.of(voice, steps), planned, session, steps):
                update: Updates = {self.status: self._progress(language, planned, piece)}
                if self.streams:
                    update[self.live] = wav_bytes(piece.audio, self.synthesizer.sample_rate)
                yield update
        if session.made == before:
            yield {**self.rest(), self.status: f"{self.machine} \u00b7 {said(language, 'nothing_spoken')}"}
        else:
            yield {**self.rest(), **self.takes.show(language, session, session.takes[-1])}

    def _plan(self, language: str, text: str, voice: Voice, depth: int, seed: int) -> Plan:
        """ValueError for what cannot be spoken, or would take all day."""
        if not text.strip():
            raise ValueError(said(language, "no_text_yet"))
        seconds = usual_seconds(text, self.synthesizer.tokenizer.config.frame_rate)
        if len(text) <= MOST_CHARACTERS:
            mode = "continuation" if voice.text.strip() else "reference"
            spoken = normalise(text)
            planned = plan(self.synthesizer, spoken, voice, depth=depth, seed=seed, mode=mode)
            seconds = planned.usual_seconds
            if seconds <= MOST_SECONDS:
                return planned
        raise ValueError(
            said(language, "text_too_long", seconds=f"{seconds:.0f}", most=f"{MOST_SECONDS:.0f}")
        )

    def _progress(self, language: str, planned: Plan, piece: Piece) -> str:
        pieces, seconds = len(planned.requests), f"{piece.seconds:.1f}"
        if pieces > 1:
            line = said(language, "speaking_piece", piece=piece.piece + 1, pieces=pieces, seconds=seconds)
        else:
            line = said(language, "speaking", seconds=seconds)
        return f"{self.machine} \u00b7 {line} \u00b7 {speed_of(language, piece.timing, piece.seconds)}"

    def rest(self) -> Updates:
        """Nothing is being spoken."""
        return {self.generate: gr.update(interactive=True), self.stop: gr.update(interactive=False)}
