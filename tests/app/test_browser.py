"""The page in a real browser: what a user sees, hears and presses."""

import asyncio
import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

gr = pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")

import app  # noqa: E402
from inference import Synthesizer  # noqa: E402
from inference.demo.common import EXAMPLE, TRANSLATIONS  # noqa: E402
from inference.demo.results_card import NOT_RECOGNIZED, STOP_LABELS  # noqa: E402
from inference.synthesis.service import Service  # noqa: E402
from tokenizer.codes.cat_file import read_codes  # noqa: E402

if TYPE_CHECKING:
    from gradio import Blocks
    from playwright.sync_api import Browser, Page, Route

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # gradio 6.31 with pandas 3
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)"),
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg, to play streamed takes"),
]
DISABLED = ("gpu", "quic", "background-networking", "component-update", "sync")
SWITCHES = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in DISABLED)]
SWITCHES += [f"--use-fake-{name}-for-media-stream" for name in ("ui", "device")]  # it beeps
LONG_TEXT = "[pause 0.2s] " + "The quick brown fox sleeps under the old garden house today. " * 8
TIMEOUT_MS = 60_000


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Of the embedded model: a tiny one is through with a text before the browser has asked for its audio."""
    with Service(Synthesizer.from_pretrained(device="cpu"), slots=2) as service:
        yield service


@pytest.fixture(scope="module")
def address(service: Service, gradio_files: None) -> Iterator[str]:
    """Where the page is served, by a thread.

    Gradio opens event loops, and leaves them open, wherever none is running.
    """

    async def launch() -> "tuple[Blocks, str]":
        assert isinstance(service.models, Synthesizer)
        demo = app.build_demo(service.models, service, lambda audio, rate: "One two three.")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = {"server_name": "127.0.0.1", "server_port": port, "prevent_thread_lock": True, "quiet": True}
        return demo, demo.launch(**server, **app.APPEARANCE)[1]

    demo, address = asyncio.run(launch())
    yield address
    demo.close(verbose=False)


@pytest.fixture(scope="module")
def browser(address: str) -> "Iterator[Browser]":
    """Opened after the page: Playwright occupies the event loop of this thread."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: "Browser", address: str) -> Iterator[Callable[..., "Page"]]:
    """Opens the page as a new user, without a network; at the end no request may have left the page."""
    contexts, strayed, broken = [], [], []

    def stay(route: "Route") -> None:
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            strayed.append(route.request.url)
            route.abort()

    def open_page(**options) -> "Page":
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(TIMEOUT_MS)
        context.route("**/*", stay)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#generate")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert (strayed, broken) == ([], [])


def prepare(page: "Page", text: str, example: int = 1) -> None:
    """An example voice, the consent and a text."""
    page.click("#examples input")
    page.click(f"ul[role=listbox] li:nth-child({example})")
    page.wait_for_function("document.querySelector('#transcript textarea').value")
    page.check("#consent input")
    page.fill("#text textarea", text)


def wait_for_the_end(page: "Page") -> str:
    """Wait for the end of a take, for whatever reason: this model may be bad."""
    keys = [*STOP_LABELS.values(), NOT_RECOGNIZED]
    page.wait_for_function(
        """overs => overs.some(over => document.querySelector('#status .prose').innerText.endsWith(over))""",
        arg=[labels[key] for labels in TRANSLATIONS.values() for key in keys],
    )
    return page.inner_text("#status .prose")


def wait_for_status(page: "Page", part: str) -> str:
    page.wait_for_function(
        "part => document.querySelector('#status .prose')?.innerText.includes(part)", arg=part
    )
    return page.inner_text("#status .prose")


def test_upload_type_choose_a_depth_and_generate(visit, prompt_file: Path) -> None:
    page = visit()
    page.wait_for_function(
        "document.querySelector('#rate').innerText.includes('1.5 kbit/s \u00b7 predicted RTF ')"
    )
    page.set_input_files("#prompt input[type=file]", prompt_file)
    page.wait_for_function("document.querySelector('#advice').innerText.includes('It lasts 1.2 s')")
    page.wait_for_function("document.querySelector('#transcript textarea').value == 'One two three.'")
    page.fill("#transcript textarea", "What it says.")
    page.fill("#text textarea", "Good morning.")
    page.wait_for_function("document.querySelector('#count').innerText.includes('13 characters')")
    page.click("#fast")
    page.wait_for_function("document.querySelector('#rate').innerText.includes('0.375 kbit/s')")

    page.click("#generate")
    page.wait_for_selector("text=tick the box under the voice first")
    page.check("#consent input")
    page.click("#generate")
    status = wait_for_the_end(page)
    assert "at 0.375 kbit/s" in status and "first audio after" in status and "RTF" in status
    assert "depth 3, seed" in page.inner_text("#takes")
    page.wait_for_selector("#whole .waveform-container")
    with page.expect_download() as download:
        page.click("#files a[download$='.wav']")
    assert Path(download.value.path()).read_bytes()[:4] == b"RIFF"
    with page.expect_download() as download:
        page.click("#files a[download$='.json']")
    assert json.loads(Path(download.value.path()).read_text())["text"] == "Good morning."
    with page.expect_download() as download:
        page.click("#files a[download$='.cat']")
    assert read_codes(download.value.path()).depth == 3

    first = page.input_value("#seed input")
    page.check("#lock_seed input")
    page.click("#new_seed")
    page.wait_for_function("first => document.querySelector('#seed input').value != first", arg=first)
    seed = page.input_value("#seed input")
    page.click("#generate")
    page.wait_for_function("document.querySelectorAll('#takes input').length == 2")
    assert f"depth 3, seed {seed}" in page.inner_text("#takes label:first-child")

    page.click("#save_voice")
    with page.expect_download() as download:
        page.click("#voice_file a[download]")
    file = prompt_file.with_name("saved.catvoice")
    download.value.save_as(file)
    page.set_input_files("input[accept*=catvoice]", file)
    page.wait_for_function("document.querySelector('#advice').innerText.includes('from a voice file')")
    page.click("#generate")
    page.wait_for_function("document.querySelectorAll('#takes input').length == 3")
    assert f"depth 3, seed {seed}" in page.inner_text("#takes label:first-child")

    page.click("#extend_take")
    page.wait_for_function("document.querySelectorAll('#takes input').length == 4")
    assert "(mastered): depth 12" in page.inner_text("#takes label:first-child")
    page.wait_for_selector("#files a[download^='take-4-']")
    page.click("#takes label:last-child")
    page.wait_for_selector("#files a[download^='take-1-']")
    assert "at 0.375 kbit/s" in page.inner_text("#status .prose")

    page.click("#compare button")
    page.click("#compare_run")
    for part in ("#audio_a", "#audio_b"):
        page.wait_for_selector(f"{part} .waveform-container")

    page.click("#forget")
    page.wait_for_selector("#takes", state="hidden")
    page.wait_for_selector("#whole", state="hidden")
    assert "RTF" not in page.inner_text("#status .prose")


def test_audio_is_played_before_the_take_is_whole_and_stop_stops(visit, service: Service) -> None:
    page, segments = visit(), []
    page.on("response", lambda got: segments.append(got.url) if got.url.endswith(".aac") else None)
    prepare(page, LONG_TEXT)
    page.click("#generate")
    wait_for_status(page, "synthesizing the first segment")
    assert segments == []
    page.wait_for_function(
        """document.querySelector('#stream audio')?.currentTime > 0.1
           && document.querySelector('#status .prose').innerText.includes('speaking')"""
    )
    played = re.search("speaking, segment ([1-4]) of 4", page.inner_text("#status .prose"))
    assert segments and played
    wait_for_status(page, f"speaking, segment {int(played[1]) + 1} of 4")
    page.click("#stop")
    assert wait_for_the_end(page).endswith("stopped by you")
    assert service.engine.active == 0
    page.wait_for_selector("#whole .waveform-container")
    page.wait_for_selector("#generate:enabled")
    page.wait_for_selector("#stop:disabled")


def test_two_users_at_once_and_one_who_leaves(visit, service: Service) -> None:
    pages = [visit(), visit()]
    for page in pages:
        prepare(page, "Now. " + LONG_TEXT * 4)  # stopped in a pause, nothing would have been spoken
        page.click("#generate")
    for page in pages:
        wait_for_status(page, "speaking")
    for active in (2, 1):  # between two segments a take has no slot for a moment
        give_up = time.monotonic() + TIMEOUT_MS / 1000
        while service.engine.active != active:
            assert time.monotonic() < give_up
            pages[1].wait_for_timeout(50)
        if active == 2:
            pages[0].context.close()
    pages[1].click("#stop")
    wait_for_status(pages[1], "stopped by you")
    pages[1].wait_for_function("document.querySelectorAll('#takes input').length == 1")


def test_a_phone_in_the_dark_in_chinese(visit) -> None:
    page = visit(viewport={"width": 390, "height": 844}, color_scheme="dark", locale="zh-CN")
    page.wait_for_function("document.querySelector('#generate').innerText == '\u751f\u6210'")
    page.click("#generate")
    page.wait_for_selector("text=\u8fd8\u6ca1\u6709\u58f0\u97f3")  # there is no voice yet
    prepare(page, "Good morning. [pause 0.5s] It is late.", example=5)
    page.click("#generate")
    status = wait_for_the_end(page)
    assert "\u5b9e\u65f6\u7387" in status and "RTF" not in status
    assert page.inner_text("#advice") == "4.4 \u79d2\u3002"
    assert "\u9884\u8ba1" in page.inner_text("#rate") and "2 \u6bb5" in page.inner_text("#count")
    assert "\u79cd\u5b50" in page.inner_text("#takes")
    page.wait_for_selector("#whole .waveform-container")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    assert max(page.evaluate(brightness)) < 60
    for name in ("generate", "stop", "depth", "text", "prompt", "whole"):
        box = page.locator(f"#{name}").bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390, name


def test_a_voice_from_the_microphone(visit) -> None:
    page = visit(permissions=["microphone"])
    page.click("#prompt [aria-label='Record audio']")
    page.click("#prompt .record-button")
    page.wait_for_timeout(1500)
    page.click("#prompt .stop-button")
    page.wait_for_function("document.querySelector('#advice').innerText.includes('It lasts ')")
    page.wait_for_selector("#prompt .waveform-container")
    page.wait_for_function("document.querySelector('#transcript textarea').value == 'One two three.'")
    page.check("#consent input")
    page.fill("#text textarea", "Good morning.")
    page.click("#generate")
    wait_for_the_end(page)


def test_a_text_is_shown_as_it_is_spoken(visit) -> None:
    page = visit()
    page.fill("#text textarea", "It is 5 o'clock.")
    page.click("#normalize")
    page.wait_for_function(
        "document.querySelector('#normalized_text textarea')?.value == 'It is five o\\'clock.'"
    )


def test_the_codec_alone(visit) -> None:
    page = visit()
    page.get_by_role("tab", name="Codec").click()
    page.set_input_files("#recording input[type=file]", EXAMPLE)
    page.wait_for_selector("#recording .waveform-container")
    page.click("#measure")
    page.wait_for_selector("#decoded .waveform-container")
    assert "0.125" in page.inner_text("#rates")
    page.click("#codec_depth input[type=range]", position={"x": 2, "y": 5})
    page.wait_for_selector("text=/^0.125 kbit.s$/")
    page.wait_for_selector("#decoded a[download='depth-1.wav']")
