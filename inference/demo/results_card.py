"""The card of the page with the takes so far: played, downloaded, extended in depth, compared, deleted."""

import gradio as gr

from inference.demo.common import LABELS, new_folder, new_wav, translate, user_errors
from inference.demo.session import DemoSession, SessionResult, Timing, extend_result, shorten
from inference.demo.spectrogram import spectrogram
from inference.demo.voice_card import Updates
from inference.engine.result import SynthesisResult
from inference.longform.join import extend_depth
from inference.synthesis.adapted_services import VoiceServices
from inference.synthesis.metadata import describe, write_result
from inference.synthesis.service import Service

STOP_LABELS = {
    "end": "stopped_end",
    "limit": "stopped_limit",
    "cancelled": "stopped_cancelled",
    "repetition": "stopped_repetition",
    "silence": "stopped_silence",
}
"""Keys in labels.json for why a take ended, by its stop reason."""
NOT_RECOGNIZED = "not_recognized"
"""The key for a take that came to its end, but that no attempt made intelligible."""


class ResultsCard:
    """The list of takes, and the controls of the take that is selected in it.

    Args:
        services: Extend takes in depth, with the model that spoke them.
        machine: What the model runs on, as the status line says it.
        language: The language of the page.
        session: The session of the user.
        status: The status line of the page.
    """

    def __init__(
        self,
        services: VoiceServices,
        machine: str,
        language: gr.Textbox,
        session: gr.State,
        status: gr.Markdown,
    ) -> None:
        self.services, self.models, self.machine = services, services.service.models, machine
        self.status = status
        max_depth = self.models.max_depth
        self.results = gr.Radio([], label=LABELS("takes"), visible=False, elem_id="takes")
        with gr.Column(visible=False) as self.result:
            self.whole = gr.Audio(label=LABELS("whole"), interactive=False, buttons=[], elem_id="whole")
            self.picture = gr.Image(
                label=LABELS("take_picture"), buttons=[], elem_id="picture", elem_classes="picture"
            )
            self.files = gr.File(
                label=LABELS("files"), file_count="multiple", interactive=False, elem_id="files"
            )
            with gr.Row():
                self.extend = gr.Button(
                    LABELS("extend_take"), size="sm", min_width=100, elem_id="extend_take"
                )
                self.forget = gr.Button(LABELS("forget"), size="sm", min_width=100, elem_id="forget")
            with gr.Accordion(LABELS("compare"), open=False, elem_id="compare"):
                with gr.Row():
                    self.depths = [
                        gr.Slider(1, max_depth, value=value, step=1, label=LABELS(name), elem_id=name)
                        for name, value in (("depth_a", 1), ("depth_b", max_depth))
                    ]
                self.compare = gr.Button(LABELS("compare_run"), size="sm", elem_id="compare_run")
                with gr.Row():
                    self.compared = [
                        gr.Audio(label=LABELS(name), interactive=False, buttons=[], elem_id=name)
                        for name in ("audio_a", "audio_b")
                    ]

        self.outputs = [self.results, self.result, self.whole, self.picture, self.files, status]
        selected = [language, session, self.results]
        self.results.input(self.select, selected, self.outputs, api_visibility="private")
        self.extend.click(self.extend_selected, selected, self.outputs, api_visibility="private")
        self.compare.click(
            self.compare_depths, [*selected, *self.depths], self.compared, api_visibility="private"
        )
        self.forget.click(self.forget_all, session, [*self.outputs, *self.compared], api_visibility="private")

    def show(self, language: str, session: DemoSession, result: SessionResult) -> Updates:
        """Show a take as the selected one.

        Args:
            language: The language of the page.
            session: The session of the user.
            result: The take.

        Returns:
            Updates of the components.
        """
        take, timing = result.whole, result.timing
        about: dict[str, object] = {
            "seed": result.seed,
            "device": self.machine,
            "first_audio_seconds": round(timing.first_seconds, 3),
            "rtf": round(timing.seconds / take.seconds, 3),
        }
        if result.plan.options.adapt_steps:
            about["adapt_steps"] = about["tuned_steps"] = result.plan.options.adapt_steps  # the old name too
        if take.segments:
            about["pieces"] = describe(take)["segments"]  # the old name, for this version
        paths = write_result(take, self.models.tokenizer, new_folder(), result.name, **about)
        choices = [(label_of(each, language), each.number) for each in reversed(session.results)]
        done = translate(
            language, "take_done", seconds=f"{take.seconds:.1f}", rate=f"{take.bitrate / 1000:g}"
        )
        speed = speed_of(language, timing, take.seconds)
        stopped = translate(language, ending_of(take))
        return {
            self.results: gr.update(choices=choices, value=result.number, visible=True),
            self.result: gr.update(visible=True),
            self.whole: str(paths[0]),
            self.picture: spectrogram(take.audio, take.sample_rate),
            self.files: [str(path) for path in paths],
            self.status: " \u00b7 ".join([self.machine, done, speed, stopped]),
        }

    def select(self, language: str, session: DemoSession, number: int | None) -> Updates:
        """Show the take of a number."""
        with user_errors():
            return self.show(language, session, _find(language, session, number))

    def extend_selected(self, language: str, session: DemoSession, number: int | None) -> Updates:
        """Extend the selected take to full depth, as a new take.

        Args:
            language: The language of the page.
            session: The session of the user.
            number: The selected take.

        Returns:
            Updates of the components.
        """
        session.begin()
        with user_errors():
            result = _find(language, session, number)
            extend_result(self._service(result), result, session)
        return self.show(language, session, session.results[-1])

    def compare_depths(
        self, language: str, session: DemoSession, number: int | None, *depths: float
    ) -> list[str]:
        """Write the selected take at two depths.

        Args:
            language: The language of the page.
            session: The session of the user.
            number: The selected take.
            *depths: The depths.

        Returns:
            The path of a wav file for each depth.
        """
        with user_errors():
            result = _find(language, session, number)
            service = self._service(result)
            takes = [extend_depth(service, result.whole, int(depth)) for depth in depths]
        return [new_wav(take.audio, take.sample_rate, f"depth-{take.depth}") for take in takes]

    def _service(self, result: SessionResult) -> Service:
        """Return the service that spoke the take, or one with an equal model."""
        return self.services.get(result.plan.requests[0].voice, result.plan.options.adapt_steps)

    def forget_all(self, session: DemoSession) -> Updates:
        """Delete all takes of the session."""
        session.results = []
        empty = dict.fromkeys([self.whole, self.picture, self.files, *self.compared])
        return {
            **empty,
            self.results: gr.update(choices=[], value=None, visible=False),
            self.result: gr.update(visible=False),
            self.status: self.machine,
        }


def label_of(result: SessionResult, language: str) -> str:
    """Return the line of a take in the list."""
    take = result.whole
    return translate(
        language,
        "take_label",
        number=result.number,
        origin=translate(language, "extended") if result.extended else "",
        depth=take.depth,
        seed=result.seed,
        seconds=f"{take.seconds:.1f}",
        stopped=translate(language, ending_of(take)),
        text=shorten(result.text),
    )


def ending_of(take: SynthesisResult) -> str:
    """Return the key in labels.json for how a take ended."""
    failed = take.stop_reason == "end" and not take.acceptable
    return NOT_RECOGNIZED if failed else STOP_LABELS[take.stop_reason]


def _find(language: str, session: DemoSession, number: int | None) -> SessionResult:
    result = session.find(number)
    if result is None:
        raise ValueError(translate(language, "no_take_yet"))
    return result


def speed_of(language: str, timing: Timing, seconds: float) -> str:
    """Return a line with the time to first audio, and the RTF of `seconds` of audio."""
    first, rtf = f"{timing.first_seconds:.2f}", f"{timing.seconds / seconds:.2f}"
    return translate(language, "speed", first=first, rtf=rtf)
