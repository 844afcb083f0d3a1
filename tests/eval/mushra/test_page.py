"""A listening test in a real browser: a listener hears, rates and comes back."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

gr = pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")

from eval.mushra.analysis import RatingsFile, read_ratings  # noqa: E402
from eval.mushra.page import LOOK, build_page, order_of  # noqa: E402
from eval.mushra.trials import LOW, MID, REFERENCE, Trial  # noqa: E402

if TYPE_CHECKING:
    from gradio import Blocks

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SWITCHES = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
CONDITIONS = [REFERENCE, LOW, MID, "our-codec"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # gradio 6.31 with pandas 3


def test_the_order_depends_on_nothing_but_seed_listener_and_trial() -> None:
    names = [str(n) for n in range(8)]
    order = order_of(names, 1, "ann", "a.wav")
    assert order == order_of(names, 1, "ann", "a.wav") and sorted(order) == names
    others = [(2, "ann", "a.wav"), (1, "bob", "a.wav"), (1, "ann", "b.wav"), (1, "an", "na.wav")]
    assert order not in [order_of(names, *key) for key in others]


@pytest.fixture
def ratings(tmp_path: Path) -> RatingsFile:
    return RatingsFile(tmp_path / "ratings.jsonl")


@pytest.fixture
def address(
    ratings: RatingsFile, tmp_path: Path, voice: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Two trials of four conditions, served by a thread."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    sounds = {name: voice * (1 - n / 10) for n, name in enumerate(CONDITIONS)}
    trials = [Trial(name=name, sample_rate=24_000, conditions=sounds) for name in ("a.wav", "b.wav")]

    async def launch() -> "tuple[Blocks, str]":
        page = build_page(trials, ratings, seed=7)
        return page, page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **LOOK)[1]

    page, address = asyncio.run(launch())
    yield address
    page.close(verbose=False)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)")
def test_a_listener_rates_goes_and_comes_back(address: str, ratings: RatingsFile) -> None:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        page.click("#begin")
        page.wait_for_selector("text=type a name first")
        page.fill("#listener input, #listener textarea", "Ann")
        page.click("#begin")
        page.wait_for_selector("text=Page 1 of 2")
        page.wait_for_selector("#sound4 .waveform-container")
        page.wait_for_selector("#reference .waveform-container")
        html = page.content()
        assert not any(name in html for name in CONDITIONS), "the page tells nobody what is what"
        page.click("#next")
        page.wait_for_selector("text=rate the versions first")
        for number in range(1, 5):
            page.fill(f"#score{number} input[type=number]", str(20 * number))
        page.click("#next")
        page.wait_for_selector("text=Page 2 of 2")
        first = order_of(["a.wav", "b.wav"], 7, "Ann", "")[0]
        (rating,) = read_ratings(ratings.path)
        assert (rating.listener, rating.trial, rating.seed) == ("Ann", first, 7)
        assert rating.order == order_of(CONDITIONS, 7, "Ann", first)
        assert rating.scores == {name: 20.0 * (rating.order.index(name) + 1) for name in CONDITIONS}
        assert list(json.loads(ratings.path.read_text())["scores"]) == CONDITIONS
        assert page.input_value("#score1 input[type=number]") == "0"

        page.reload()
        page.fill("#listener input, #listener textarea", "Ann")
        page.click("#begin")
        page.wait_for_selector("text=Page 2 of 2")
        page.fill("#score2 input[type=number]", "95")
        page.click("#next")
        page.wait_for_selector("text=That was the last page")
        assert {rating.trial for rating in read_ratings(ratings.path)} == {"a.wav", "b.wav"}
        browser.close()
