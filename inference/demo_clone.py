"""The tab of the page where takes are made."""

import random
import shutil
from collections.abc import Iterator
from typing import Any

import gradio as gr

from inference.demo import LABELS, new_folder, new_wav, told
from inference.demo_voice import Updates, VoiceCard
from inference.hardware import attention_name
from inference.normalisation import DIRECTIVE, normalise
from inference.service import Service
from inference.sidecar import write_take
from inference.spectrogram import spectrogram
from inference.speed import Speed
from inference.studio import (
    STOPPED,
    Kept,
    Session,
    Timing,
    deepen,
    presets,
    remade,
    speak,
    usual_seconds,
    wav_bytes,
)
from inference.voice import Voice

MOST_SEED = 2**31 - 1


class CloneTab:
    """A voice, a text, a depth and a seed; the take while it is made, and all takes so far."""

    def __init__(self, service: Service, speed: Speed) -> None:
        self.service, self.speed, self.synthesizer = service, speed, service.synthesizer
        device, dtype = self.synthesizer.device, self.synthesizer.dtype
        names = [str(device), str(dtype).removeprefix("torch."), attention_name(device, dtype)]
        self.machine = " · ".join(names)
        self.streams = shutil.which("ffmpeg") is not None
        """Gradio encodes what is played while it is made with this program."""
        self.session = gr.State(Session())
        if not self.streams:
            gr.Markdown(LABELS("no_ffmpeg"), elem_id="no_ffmpeg")
        with gr.Row():
            with gr.Column():
                self.voice = VoiceCard(self.synthesizer)
                self.text = gr.Textbox(label=LABELS("text"), lines=4, elem_id="text")
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
        with gr.Row():
            self.presets = {
                name: gr.Button(LABELS(name), size="sm", min_width=60, elem_id=name)
                for name in presets(deepest)
            }
        self.rate = gr.Markdown(self.rate_of(deepest), elem_id="rate")
        self.seed = gr.Number(
            0, precision=0, minimum=0, maximum=MOST_SEED, label=LABELS("seed"), elem_id="seed"
        )
        with gr.Row():
            self.dice = gr.Button(LABELS("dice"), size="sm", min_width=100, elem_id="dice")
            self.lock = gr.Checkbox(label=LABELS("lock"), min_width=100, container=False, elem_id="lock")
        with gr.Row():
            self.generate = gr.Button(
                LABELS("generate"), variant="primary", min_width=100, elem_id="generate"
            )
            self.stop = gr.Button(
                LABELS("stop"), variant="stop", min_width=100, interactive=False, elem_id="stop"
            )
        self.status = gr.Markdown(self.machine, elem_id="status")

    def _lay_out_results(self) -> None:
        deepest = self.synthesizer.max_depth
        self.live = gr.Audio(
            label=LABELS("live"),
            streaming=True,
            autoplay=True,
            interactive=False,
            buttons=[],
            visible=self.streams,
            elem_id="live",
        )
        self.takes = gr.Radio([], label=LABELS("takes"), visible=False, elem_id="takes")
        with gr.Column(visible=False) as self.result:
            self.whole = gr.Audio(label=LABELS("whole"), interactive=False, buttons=[], elem_id="whole")
            self.picture = gr.Image(
                label=LABELS("take_picture"), buttons=[], elem_id="picture", elem_classes="picture"
            )
            self.files = gr.File(
                label=LABELS("files"), file_count="multiple", interactive=False, elem_id="files"
            )
            with gr.Row():
                self.master = gr.Button(
                    LABELS("master_take"), size="sm", min_width=100, elem_id="master_take"
                )
                self.forget = gr.Button(LABELS("forget"), size="sm", min_width=100, elem_id="forget")
            with gr.Accordion(LABELS("compare"), open=False, elem_id="compare"):
                with gr.Row():
                    self.depths = [
                        gr.Slider(1, deepest, value=value, step=1, label=LABELS(name), elem_id=name)
                        for name, value in (("depth_a", 1), ("depth_b", deepest))
                    ]
                self.compare = gr.Button(LABELS("compare_run"), size="sm", elem_id="compare_run")
                with gr.Row():
                    self.compared = [
                        gr.Audio(label=LABELS(name), interactive=False, buttons=[], elem_id=name)
                        for name in ("audio_a", "audio_b")
                    ]

    def _wire(self) -> None:
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        self.text.change(self.count_of, self.text, self.count, trigger_mode="always_last", **quick)
        self.spell.click(self.spell_out, self.text, self.spelt, api_visibility="private")
        self.depth.change(self.rate_of, self.depth, self.rate, trigger_mode="always_last", **quick)
        for name, button in self.presets.items():
            depth = presets(self.synthesizer.max_depth)[name]
            button.click(lambda depth=depth: depth, None, self.depth, **quick)
        self.dice.click(lambda: random.randint(0, MOST_SEED), None, self.seed, **quick)

        shown = [self.takes, self.result, self.whole, self.picture, self.files, self.status]
        gr.on(
            [self.generate.click, self.text.submit],
            self.speak,
            [self.session, *self.voice.parts, self.text, self.depth, self.seed, self.lock],
            [*shown, self.live, self.seed, self.generate, self.stop],
            show_progress="hidden",
            trigger_mode="once",
            api_visibility="private",
        )
        self.stop.click(Session.stop, self.session, None, **quick)
        self.takes.input(self.choose, [self.session, self.takes], shown, api_visibility="private")
        self.master.click(self.deepen, [self.session, self.takes], shown, api_visibility="private")
        self.compare.click(
            self.both, [self.session, self.takes, *self.depths], self.compared, api_visibility="private"
        )
        self.forget.click(self.forget_all, self.session, [*shown, *self.compared], api_visibility="private")

    def count_of(self, text: str) -> str:
        """How long a text is."""
        seconds = usual_seconds(text, self.synthesizer.tokenizer.config.frame_rate)
        return f"{len(text)} characters · about {seconds:.1f} s" if text else ""

    def spell_out(self, text: str) -> dict[str, Any]:
        """The text with numbers, dates and units in words, which is what a take is made of."""
        with told():
            return gr.update(value=normalise(text), visible=bool(text.strip()))

    def rate_of(self, depth: float) -> str:
        """What a depth costs."""
        bitrate = self.synthesizer.tokenizer.config.bitrate(int(depth))
        return f"{bitrate / 1000:g} kbit/s · predicted RTF {self.speed.rtf(int(depth)):.2f}"

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
        consent: bool,
        prompt: str | None,
        words: str,
        opened: Voice | None,
        text: str,
        depth: float,
        seed: float | None,
        locked: bool,
    ) -> Iterator[Updates]:
        session.begin()
        number = int(seed) if locked and seed is not None else random.randint(0, MOST_SEED)
        yield {
            self.seed: number,
            self.generate: gr.update(interactive=False),
            self.stop: gr.update(interactive=True),
            self.status: f"{self.machine} · reading the voice",
        }
        with told(prompt or ""):
            voice = self.voice.chosen(consent, prompt, words, opened)
            if DIRECTIVE.search(text):
                raise ValueError(
                    "the text has a [pause]: the command cat-tts clone knows it, this page does not"
                )
        with told():
            request = self.synthesizer.request(
                normalise(text),
                voice,
                depth=int(depth),
                seed=number,
                mode="continuation" if voice.text.strip() else "reference",
            )
            before = session.made
            for piece in speak(self.service, request, session):
                told_so_far = f"speaking, {piece.seconds:.1f} s · {_speed(piece.timing, piece.seconds)}"
                update: Updates = {self.status: f"{self.machine} · {told_so_far}"}
                if self.streams:
                    update[self.live] = wav_bytes(piece.audio, self.synthesizer.sample_rate)
                yield update
        if session.made == before:
            yield {**self.rest(), self.status: f"{self.machine} · stopped by you, nothing was spoken"}
        else:
            yield {**self.rest(), **self.show(session, session.takes[-1])}

    def rest(self) -> Updates:
        """Nothing is being spoken."""
        return {self.generate: gr.update(interactive=True), self.stop: gr.update(interactive=False)}

    def show(self, session: Session, kept: Kept) -> Updates:
        """A take as the chosen one."""
        take = kept.take
        timing = {
            "first_audio_seconds": round(kept.timing.first_seconds, 3),
            "rtf": round(kept.timing.seconds / take.seconds, 3),
        }
        paths = write_take(
            take, self.synthesizer.tokenizer, new_folder(), kept.name, device=self.machine, **timing
        )
        choices = [(kept.label, kept.number) for kept in reversed(session.takes)]
        return {
            self.takes: gr.update(choices=choices, value=kept.number, visible=True),
            self.result: gr.update(visible=True),
            self.whole: str(paths[0]),
            self.picture: spectrogram(take.audio, take.sample_rate),
            self.files: [str(path) for path in paths],
            self.status: f"{self.machine} · {take.seconds:.1f} s at {take.bitrate / 1000:g} kbit/s · "
            f"{_speed(kept.timing, take.seconds)} · stopped: {STOPPED[take.stop_reason]}",
        }

    def choose(self, session: Session, number: int | None) -> Updates:
        with told():
            return self.show(session, session.take(number))

    def deepen(self, session: Session, number: int | None) -> Updates:
        """The chosen take at full depth, as a new one."""
        session.begin()
        with told():
            deepen(self.service, session.take(number).take, session)
        return self.show(session, session.takes[-1])

    def both(self, session: Session, number: int | None, *depths: float) -> list[str]:
        """The chosen take at two depths."""
        with told():
            take = session.take(number).take
            made = [remade(self.service, take, int(depth)) for depth in depths]
        return [new_wav(take.audio, take.sample_rate, f"depth-{take.depth}") for take in made]

    def forget_all(self, session: Session) -> Updates:
        session.takes = []
        empty = dict.fromkeys([self.whole, self.picture, self.files, *self.compared])
        return {
            **empty,
            self.takes: gr.update(choices=[], value=None, visible=False),
            self.result: gr.update(visible=False),
            self.status: self.machine,
        }


def _speed(timing: Timing, seconds: float) -> str:
    return f"first audio after {timing.first_seconds:.2f} s · RTF {timing.seconds / seconds:.2f}"
