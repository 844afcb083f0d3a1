"""Voices through the API: added, listed, spoken with, deleted; and what is no voice."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from inference import Synthesizer
from inference.server.limits import Limits
from tests.helpers.serving import FRAME_BYTES, SHORT_TEXT_FRAMES, RunningServer, error_of, running

TRANSCRIPT = "What the recording says."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("voices")


@pytest.fixture(scope="module")
def server(unending: Synthesizer, folder: Path) -> Iterator[RunningServer]:
    limits = Limits(max_upload_bytes=200_000, max_characters=200)
    with running(unending, folder, slots=2, limits=limits) as server:
        yield server


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with server.http() as http:
        yield http


def names(http: httpx.Client) -> list[str]:
    return [voice["id"] for voice in http.get("/v1/voices").json()["data"]]


def bring(http: httpx.Client, recording: bytes, **fields: Any) -> httpx.Response:
    data = {"name": "ann", "transcript": TRANSCRIPT, "consent": "Ann said yes.", **fields}
    data = {name: value for name, value in data.items() if value is not None}
    return http.post("/v1/voices", data=data, files={"audio_sample": ("a.wav", recording, "audio/wav")})


def test_the_openai_client_brings_a_voice(
    server: RunningServer, http: httpx.Client, prompt_file: Path
) -> None:
    voices = server.client.audio.voices
    created = voices.create(
        name="bob",
        audio_sample=("prompt.wav", prompt_file.read_bytes()),
        consent="Bob said yes.",
        extra_body={"transcript": TRANSCRIPT},
    )
    assert (created.id, created.name, created.object, created.type) == (
        "bob",
        "bob",
        "audio.voice",
        "audio_sample",
    )
    assert names(http) == ["default", "bob"]
    bob = server.speak(voice="bob")
    assert len(bob) == FRAME_BYTES * SHORT_TEXT_FRAMES and bob != server.speak()
    assert bob == server.speak(voice={"id": "bob"})
    deleted = voices.delete("bob")
    assert deleted.deleted and deleted.id == "bob" and names(http) == ["default"]
    with pytest.raises(openai.NotFoundError):
        voices.delete("bob")


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"name": None}, 400, "name"),
        ({"consent": None}, 400, "consent"),
        ({"consent": " "}, 400, None),
        ({"transcript": None}, 400, "transcript"),
        ({"transcript": "a" * 201}, 400, "transcript"),
        ({"name": "default"}, 409, "name"),
        ({"name": "../../etc/passwd"}, 400, None),
        ({"name": "a/b"}, 400, None),
        ({"name": "con\0"}, 400, None),
        ({"language": "not a tag"}, 400, None),
    ],
)
def test_wrong_fields(
    http: httpx.Client,
    folder: Path,
    prompt_file: Path,
    change: dict[str, Any],
    status: int,
    param: str | None,
) -> None:
    answer = bring(http, prompt_file.read_bytes(), **change)
    assert (answer.status_code, error_of(answer)["param"]) == (status, param), answer.text
    assert not list(folder.iterdir()) and not list(folder.parent.glob("*.catvoice"))


def test_recordings_that_are_none(http: httpx.Client, folder: Path) -> None:
    for recording in (b"", b"no audio", b"RIFF" + bytes(100), bytes(100_000)):
        answer = bring(http, recording)
        error = error_of(answer)
        assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_audio", "audio_sample")
        assert str(folder) not in error["message"] and "/tmp" not in error["message"]
    answer = bring(http, bytes(300_000))
    assert (answer.status_code, error_of(answer)["code"]) == (413, "body_too_large")
    assert names(http) == ["default"]


@pytest.mark.parametrize("turns", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_uploads(http: httpx.Client, folder: Path, prompt_file: Path, turns: int) -> None:
    """A form whose bytes were changed, cut out and doubled: a voice or 4xx, and no file of any other name."""
    rng = random.Random(turns)
    fields = {"name": "ann", "transcript": TRANSCRIPT, "consent": "Yes."}
    files = {"audio_sample": ("a.wav", prompt_file.read_bytes()[:20_000], "audio/wav")}
    request = http.build_request("POST", "/v1/voices", data=fields, files=files)
    good, kind = request.read(), {"Content-Type": request.headers["Content-Type"]}
    for _ in range(turns):
        form = bytearray(good)
        for _ in range(rng.choice([1, 1, 3, 20])):
            first = rng.randrange(min(len(form), rng.choice([400, 600, 1 << 20])))
            last = min(len(form), first + rng.choice([1, 4, 50]))
            match rng.randrange(3):
                case 0:
                    form[first:last] = rng.randbytes(last - first)
                case 1:
                    del form[first:last]
                case 2:
                    form[first:first] = form[first:last]
        answer = http.post("/v1/voices", content=bytes(form), headers=kind)
        if answer.status_code == 200:
            assert http.delete(f"/v1/voices/{answer.json()['id']}").status_code == 200
        else:
            assert 400 <= answer.status_code < 500, answer.text
            assert "/tmp" not in error_of(answer)["message"]
    assert names(http) == ["default"] and not list(folder.iterdir())


def test_malformed_forms(http: httpx.Client) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    fields = {"name": "a", "transcript": "b", "consent": "c", "audio_sample": "text"}
    for answer in (
        http.post("/v1/voices", content=b"--x\r\nrubbish", headers=kind),
        http.post("/v1/voices", content=b"rubbish", headers={"Content-Type": "multipart/form-data"}),
        http.post("/v1/voices", json={"name": "a"}),
        http.post("/v1/voices", data=fields),
        http.post("/v1/voices"),
    ):
        assert answer.status_code == 400, answer.text
        error_of(answer)


def test_path_tricks(http: httpx.Client, folder: Path) -> None:
    (folder.parent / "victim.catvoice").write_bytes(b"keep")
    for name in ("..%2Fvictim", "../victim", "%2e%2e%2fvictim", "victim%00", ".", "%2Fetc%2Fpasswd"):
        answer = http.delete(f"/v1/voices/{name}")
        assert answer.status_code in (404, 405), name
        error_of(answer)
    assert http.delete("/v1/voices/default").status_code == 403
    assert (folder.parent / "victim.catvoice").read_bytes() == b"keep"
    (folder.parent / "victim.catvoice").unlink()


def test_without_a_folder(unending: Synthesizer, prompt_file: Path) -> None:
    with running(unending, slots=1) as server, server.http() as http:
        answer = bring(http, prompt_file.read_bytes())
        assert (answer.status_code, error_of(answer)["code"]) == (403, "voices_read_only")
        assert names(http) == ["default"]
