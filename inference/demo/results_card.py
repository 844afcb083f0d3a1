"""The part of the page with the takes so far: heard, downloaded, mastered, compared, forgotten."""

import gradio as gr

from inference.demo.common import LABELS, new_folder, new_wav, said, told
from inference.demo.session import Kept, Session, Timing, at_depth, deepen, shortened
from inference.demo.spectrogram import spectrogram
from inference.demo.voice_card import Updates
from inference.synthesis.adapted_services import VoiceServices
from inference.synthesis.metadata import describe, write_take
from inference.synthesis.service import Service

OVER = {
    "end": "over_end",
    "limit": "over_limit",
    "cancelled": "over_cancelled",
    "repetition": "over_repetition",
    "silence": "over_silence",
}
"""How a take ended, by its stop reason."""


class TakesCard:
    """A list, and all that can be done with the take that is chosen in it."""

    def __init__(
        self,
        services: VoiceServices,
        machine: str,
        language: gr.Textbox,
        session: gr.State,
        status: gr.Markdown,
    ) -> None:
        self.services, self.synthesizer, self.machine = services, services.service.synthesizer, machine
        self.status = status
        deepest = self.synthesizer.max_depth
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

        self.shown = [self.takes, self.result, self.whole, self.picture, self.files, status]
        chosen = [language, session, self.takes]
        self.takes.input(self.choose, chosen, self.shown, api_visibility="private")
        self.master.click(self.deepen, chosen, self.shown, api_visibility="private")
        self.compare.click(self.both, [*chosen, *self.depths], self.compared, api_visibility="private")
        self.forget.click(self.forget_all, session, [*self.shown, *self.compared], api_visibility="private")

    def show(self, language: str, session: Session, kept: Kept) -> Updates:
        """A take as the chosen one."""
        take, timing = kept.take, kept.timing
        about: dict[str, object] = {
            "device": self.machine,
            "first_audio_seconds": round(timing.first_seconds, 3),
            "rtf": round(timing.seconds / take.seconds, 3),
        }
        if kept.tuned is not None:
            about["tuned_steps"] = kept.tuned
        if not kept.plan.alone:
            script = zip(kept.pieces, kept.plan.script.pieces, strict=False)
            about["lead_seconds"] = kept.plan.script.lead_seconds
            about["pieces"] = [
                describe(piece) | {"pause_seconds": part.pause_seconds} for piece, part in script
            ]
        paths = write_take(take, self.synthesizer.tokenizer, new_folder(), kept.name, **about)
        choices = [(label_of(kept, language), kept.number) for kept in reversed(session.takes)]
        made = said(language, "take_made", seconds=f"{take.seconds:.1f}", rate=f"{take.bitrate / 1000:g}")
        speed, over = speed_of(language, timing, take.seconds), said(language, OVER[take.stop_reason])
        return {
            self.takes: gr.update(choices=choices, value=kept.number, visible=True),
            self.result: gr.update(visible=True),
            self.whole: str(paths[0]),
            self.picture: spectrogram(take.audio, take.sample_rate),
            self.files: [str(path) for path in paths],
            self.status: " \u00b7 ".join([self.machine, made, speed, over]),
        }

    def choose(self, language: str, session: Session, number: int | None) -> Updates:
        with told():
            return self.show(language, session, _chosen(language, session, number))

    def deepen(self, language: str, session: Session, number: int | None) -> Updates:
        """The chosen take at full depth, as a new one."""
        session.begin()
        with told():
            kept = _chosen(language, session, number)
            deepen(self._service(kept), kept, session)
        return self.show(language, session, session.takes[-1])

    def both(self, language: str, session: Session, number: int | None, *depths: float) -> list[str]:
        """The chosen take at two depths."""
        with told():
            kept = _chosen(language, session, number)
            made = [at_depth(self._service(kept), kept, int(depth)) for depth in depths]
        return [new_wav(take.audio, take.sample_rate, f"depth-{take.depth}") for take in made]

    def _service(self, kept: Kept) -> Service:
        """The one that made it, or one just like it."""
        return self.services.of(kept.plan.requests[0].voice, kept.tuned)

    def forget_all(self, session: Session) -> Updates:
        session.takes = []
        empty = dict.fromkeys([self.whole, self.picture, self.files, *self.compared])
        return {
            **empty,
            self.takes: gr.update(choices=[], value=None, visible=False),
            self.result: gr.update(visible=False),
            self.status: self.machine,
        }


def label_of(kept: Kept, language: str) -> str:
    """A take in the list."""
    take = kept.take
    return said(
        language,
        "take_label",
        number=kept.number,
        origin=said(language, "mastered") if kept.mastered else "",
        depth=take.depth,
        seed=take.seed,
        seconds=f"{take.seconds:.1f}",
        stopped=said(language, OVER[take.stop_reason]),
        text=shortened(kept.text),
    )


def _chosen(language: str, session: Session, number: int | None) -> Kept:
    kept = session.take(number)
    if kept is None:
        raise ValueError(said(language, "no_take_yet"))
    return kept


def speed_of(language: str, timing: Timing, seconds: float) -> str:
    first, rtf = f"{timing.first_seconds:.2f}", f"{timing.seconds / seconds:.2f}"
    return said(language, "speed", first=first, rtf=rtf)
