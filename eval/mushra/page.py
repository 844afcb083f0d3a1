"""The page of a MUSHRA test, which asks for the listener's name, then shows one trial after the other."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from gradio.themes import Default

from eval.mushra.analysis import Rating, RatingsFile
from eval.mushra.trials import REFERENCE, Trial
from inference.demo.common import new_wav, user_errors

LOOK: dict[str, Any] = {
    "theme": Default(primary_hue="teal", font=["system-ui", "sans-serif"]),
    "footer_links": ["settings"],
    "run_history": False,
    "ssr_mode": False,
}
"""Options that Gradio takes in `launch`, and not with the page."""
WELCOME = """# Listening test

Each page has one reference and several versions of it, in no order that means anything. Rate how close each
version comes to the reference:

**80-100** excellent, **60-80** good, **40-60** fair, **20-40** poor, **0-20** bad.

One version *is* the reference. Use headphones, set the level once, and listen as often as you like.
"""
THANKS = "# Thank you\n\nThat was the last page: you can close it."


@dataclass(frozen=True, kw_only=True)
class ListenerSession:
    """The progress of one listener: the trials still to come, and when the page was opened."""

    listener: str
    todo: tuple[int, ...]
    opened: float


def order_of(names: Sequence[str], seed: int, listener: str, trial: str) -> list[str]:
    """Return the order of names for a listener, the same whenever they come back.

    Args:
        names: What is ordered: conditions, or trials.
        seed: Seed of the test.
        listener: Name of the listener.
        trial: Name of the trial; empty for the order of trials.
    """
    return random.Random(f"{seed}\n{listener}\n{trial}").sample(list(names), len(names))


def build_page(trials: Sequence[Trial], ratings: RatingsFile, seed: int) -> gr.Blocks:
    """Build the page, to be launched with `LOOK`.

    It must not be given a `delete_cache`, as its sounds are written once.

    Args:
        trials: The trials of the test, at least one.
        ratings: Where ratings are stored.
        seed: Determines the order of trials and conditions.

    Returns:
        The page with its queue.
    """
    conditions = list(trials[0].conditions)
    # The hidden reference is a file of its own, or its address would give it away.
    sounds = [
        {name: new_wav(audio, trial.sample_rate, "sound") for name, audio in trial.conditions.items()}
        for trial in trials
    ]
    shown = [new_wav(trial.conditions[REFERENCE], trial.sample_rate, "reference") for trial in trials]

    with gr.Blocks(title="Listening test", analytics_enabled=False) as page:
        session = gr.State()
        text = gr.Markdown(WELCOME, elem_id="text")
        with gr.Row() as entrance:
            name = gr.Textbox(label="Your name, or any word that is yours alone", elem_id="listener")
            begin = gr.Button("Begin", variant="primary", elem_id="begin")
        with gr.Column(visible=False) as room:
            reference = gr.Audio(label="Reference", interactive=False, buttons=[], elem_id="reference")
            players, sliders = [], []
            for number, _ in enumerate(conditions, 1):
                with gr.Row():
                    label = f"Version {number}"
                    players.append(
                        gr.Audio(label=label, interactive=False, buttons=[], elem_id=f"sound{number}")
                    )
                    sliders.append(gr.Slider(0, 100, step=1, label=label, elem_id=f"score{number}"))
            done = gr.Button("Next", variant="primary", elem_id="next")

        def view(now: ListenerSession) -> list[Any]:
            """Return the values of the page's components for a session."""
            if not now.todo:
                return [now, THANKS, gr.update(visible=False), gr.update(visible=False), None] + [
                    gr.skip() for _ in (*players, *sliders)
                ]
            trial = now.todo[0]
            order = order_of(conditions, seed, now.listener, trials[trial].name)
            count = len(trials) - len(now.todo) + 1
            title = f"# Page {count} of {len(trials)}\n\nHow close does each version come to the reference?"
            return [
                now,
                title,
                gr.update(visible=False),
                gr.update(visible=True),
                shown[trial],
                *(sounds[trial][condition] for condition in order),
                *(0 for _ in sliders),
            ]

        def enter(listener: str) -> list[Any]:
            """Return the first page, or the next one of a listener who was here before."""
            with user_errors():
                listener = " ".join(listener.split())
                if not listener:
                    raise ValueError("type a name first")
            rated = ratings.rated(listener)
            names = order_of([trial.name for trial in trials], seed, listener, "")
            places = {trial.name: number for number, trial in enumerate(trials)}
            todo = tuple(places[name] for name in names if name not in rated)
            return view(ListenerSession(listener=listener, todo=todo, opened=time.time()))

        def keep(now: ListenerSession, *scores: float) -> list[Any]:
            """Store the scores of this page, and return the next one."""
            with user_errors():
                if not any(scores):
                    raise ValueError("rate the versions first")
            trial = trials[now.todo[0]].name
            order = order_of(conditions, seed, now.listener, trial)
            found = dict(zip(order, map(float, scores), strict=True))
            ratings.append(
                Rating(
                    listener=now.listener,
                    trial=trial,
                    seed=seed,
                    order=order,
                    scores={condition: found[condition] for condition in conditions},
                    seconds=round(time.time() - now.opened, 1),
                )
            )
            return view(replace(now, todo=now.todo[1:], opened=time.time()))

        outputs = [session, text, entrance, room, reference, *players, *sliders]
        # What a progress bar has covered stays covered after an error.
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        gr.on([begin.click, name.submit], enter, name, outputs, **quiet)
        done.click(keep, [session, *sliders], outputs, **quiet)
    return page.queue(max_size=64)
