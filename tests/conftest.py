"""What every test shares: one thread, a fixed seed, no GPU tests without a GPU, model folders, a corpus."""

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import torch
from jaxtyping import config as shape_config

from tests.helpers import shape_checks  # first: it checks what is imported after it

# isort: split
import cat_tts.config
import tokenizer.config
from cat_tts import CatTTS
from cat_tts.text.tokenizers import train_sentencepiece
from tests.helpers.command import PROMPT_TEXT, TEXT, Command, clone_command
from tests.helpers.corpus import write_corpus
from tests.helpers.paths import GOLDEN, ROOT
from tests.helpers.voxbox import Planted, voxbox
from tokenizer import AudioTokenizer
from training.data.manifest import write_manifest
from training.data.voxbox import voxbox as read_voxbox

if TYPE_CHECKING:
    from inference import Synthesizer
    from inference.demo.clone_tab import CloneTab
    from inference.synthesis.service import Service

VOCABULARY = """
the a red blue old young quick lazy fox dog bird cat jumps runs sings sleeps over under near river house
garden tree stone softly loudly today tomorrow good morning evening what recording says
"""

os.environ["ACCELERATE_USE_CPU"] = "true"
torch.set_num_threads(1)  # the models are tiny: more threads only wait for each other


@pytest.fixture(autouse=True)
def as_ever() -> None:
    """The seed, and one thread also behind tests that load libraries which change that."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def checked_shapes(request: pytest.FixtureRequest) -> None:
    """Shapes are checked in the tests of the packages that are wrapped; elsewhere it would take too long."""
    package = request.path.relative_to(ROOT / "tests").parts[0]
    shape_config.update("jaxtyping_disable", package not in shape_checks.PACKAGES)


@pytest.fixture
def unchecked_shapes(checked_shapes: None) -> None:
    """Checks of shapes are off, for tests that pass wrong ones to functions which refuse them themselves."""
    shape_config.update("jaxtyping_disable", True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this project's layout: tiny random models, with weights large enough that all they read
    matters; to go on or to stop is the toss of a coin."""
    torch.manual_seed(0)
    folder, rng = tmp_path_factory.mktemp("bundle"), random.Random(0)
    sentences = [" ".join(rng.choices(VOCABULARY.split(), k=rng.randrange(4, 9))) for _ in range(400)]
    model = CatTTS(cat_tts.config.tiny())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
        model.depth.decision_head.weight.zero_()
    text = train_sentencepiece(sentences, folder / "text.model", model.config.text_vocab_size)
    model.save_pretrained(folder / "tts", text)
    codec = AudioTokenizer(replace(tokenizer.config.tiny(), layer_scale=0.5))
    for name, weight in codec.state_dict().items():
        if name.startswith("quantizer.") and name.endswith("bias"):
            weight.mul_(0.1)
        elif name == "encoder.0.project_in.weight":
            weight.mul_(8)
    codec.save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A TTS model and an audio tokenizer in the published layouts, with small random weights."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copytree(GOLDEN / "tts_local_small", folder, dirs_exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / "prompt" / name, folder)
    return folder, GOLDEN / "tok_small"


@pytest.fixture(scope="session")
def voice() -> np.ndarray:
    """1.2 s of something that rises, falls and is rough like a voice, float32 samples at 24 kHz."""
    time = np.arange(28_800) / 24_000
    buzz = sum(np.sin(2 * np.pi * 140 * n * time + 3 * np.sin(9 * time)) / n for n in range(1, 9))
    return (0.1 * buzz * (1 + 0.6 * np.sin(2 * np.pi * 4 * time))).astype(np.float32)


@pytest.fixture(scope="session")
def prompt_file(voice: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`voice` in a file."""
    path = tmp_path_factory.mktemp("prompt") / "prompt.wav"
    soundfile.write(path, voice, 24_000)
    return path


@pytest.fixture
def clone(
    bundle: Path,
    prompt_file: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    """`cat-tts clone` in an empty working directory, with the tiny models."""
    monkeypatch.chdir(tmp_path)
    usual = {"text": TEXT, "prompt_text": PROMPT_TEXT, "model": bundle, "device": "cpu", "output": "out.wav"}
    return clone_command(usual, prompt_file, capfd)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a small synthetic corpus."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def datasets_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `datasets` makes of Parquet files goes where all other temporary files go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="module")
def gradio_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What Gradio keeps of a page goes there too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        yield


@pytest.fixture(scope="module")
def unending(bundle: Path) -> "Synthesizer":
    """Speaks until it is stopped, or its text's length limit is reached."""
    from inference import Synthesizer
    from tests.helpers.serving import NEVER_STOP

    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    synthesizer.sampling = NEVER_STOP
    return synthesizer


@pytest.fixture(scope="module")
def unreliable(bundle: Path) -> "Synthesizer":
    """Some of its takes end by themselves, and some reach their limit."""
    from inference import Synthesizer

    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    weight = synthesizer.tts.depth.decision_head.weight
    with torch.no_grad():
        weight.copy_(0.8 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return synthesizer


@pytest.fixture(scope="module")
def two_slot_service(bundle: Path) -> "Iterator[Service]":
    from inference import Synthesizer
    from inference.synthesis.service import Service

    with Service(Synthesizer.from_pretrained(bundle, device="cpu"), slots=2) as service:
        yield service


@pytest.fixture(scope="module")
def tab(two_slot_service: "Service") -> "CloneTab":
    """The page's first tab, before a user has done anything, on a machine with ffmpeg."""
    import gradio

    from inference.demo.clone_tab import CloneTab
    from inference.synthesis.adapted_services import VoiceServices
    from tests.helpers.page import SPEED, on_a_page, recognize_three_words

    with pytest.MonkeyPatch.context() as patch:  # the page only asks whether it is there; gradio would run it
        patch.setattr("shutil.which", lambda name: name)
        services = VoiceServices(two_slot_service)
        return on_a_page(lambda: CloneTab(services, SPEED, recognize_three_words, gradio.Textbox()))[0]


@pytest.fixture(scope="session")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random tokenizer, such that the audio decides its codes and not the biases."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("codec")
    model = AudioTokenizer(tokenizer.config.tiny())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("quantizer.") and name.endswith(".bias"):
                parameter.zero_()
            elif name.startswith("encoder.") and parameter.dim() > 1:
                parameter.normal_(std=0.25)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def codes(corpus: Path, codec: Path, datasets_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The codes of `corpus` by `codec`."""
    from training.prepare import PrepareOptions, prepare  # slow to import, and few tests need it

    folder = tmp_path_factory.mktemp("codes")
    prepare(PrepareOptions(out=folder, manifest=corpus, tokenizer=str(codec), clips_per_shard=20))
    return folder


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Planted]]:
    """By layout, the manifest of the VoxBox fixture and what is wrong with it."""
    made = {}
    for layout in ("tar", "files"):
        root = tmp_path_factory.mktemp("voxbox")
        planted = voxbox(root, layout)
        write_manifest(root / "manifest.jsonl", read_voxbox(root, Counter()))
        made[layout] = (root / "manifest.jsonl", planted)
    return made
