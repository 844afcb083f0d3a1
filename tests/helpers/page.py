"""The page's parts without a browser."""

import asyncio
from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np

from inference.demo.clone_tab import CloneTab
from inference.demo.common import EXAMPLE
from inference.demo.session import DemoSession
from inference.synthesis.speed_estimate import Speed

SPEED = Speed(base=0.01, per_codebook=0.005, frame_rate=12.5)
TRANSCRIPT = "What it says."


def recognize_three_words(audio: np.ndarray, sample_rate: int) -> str:
    """A recogniser that hears nothing where it is very quiet."""
    return "One two three." if np.abs(audio).max() > 0.01 else ""


def on_a_page(make: Callable[[], Any]) -> tuple[Any, set[str]]:
    """Build a part of a page; return it and the ids on the page.

    Outside a running event loop, Gradio would open one for every page and never close it.
    """

    async def build() -> tuple[Any, set[str]]:
        with gr.Blocks(analytics_enabled=False) as page:
            part = make()
        return part, {block.elem_id for block in page.blocks.values() if block.elem_id}

    return asyncio.run(build())


def spoken(tab: CloneTab, session: DemoSession, **changed: Any) -> list[dict]:
    inputs = {
        "language": "en",
        "consent": True,
        "prompt": str(EXAMPLE),
        "transcript": TRANSCRIPT,
        "opened_voice": None,
        "text": "Good morning.",
        "depth": 3,
        "seed": 5,
        "locked": True,
        "adapting": False,
    }
    return list(tab.speak(session, *(inputs | changed).values()))
