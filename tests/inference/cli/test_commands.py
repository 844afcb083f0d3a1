"""`cat-tts encode`, `decode`, `voice` and `doctor`, and voice files and codes in `clone`."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from inference import Synthesizer
from inference.cli.main import main
from inference.engine.options import UNWATCHED, SynthesisOptions
from inference.synthesis.save import save_result
from inference.voices.catvoice_file import read_voice
from tests.helpers.answering import answering
from tokenizer import AudioTokenizer, decode_audio, encode_audio, load_audio, read_codes
from tokenizer.io.audio import AI_GENERATED

PROMPT_TEXT, TEXT = "What the recording says.", "Good morning, old fox."


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Command = Callable[..., Result]


@pytest.fixture
def cat_tts(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`cat-tts` in an empty working directory, on the CPU."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, device: str | None = "cpu") -> Result:
        capfd.readouterr()
        code = 0
        try:
            main([*map(str, words), *(["--device", device] if device else [])])
        except SystemExit as exit:
            assert isinstance(exit.code, int)
            code = exit.code
        printed = capfd.readouterr()
        return Result(code, printed.out, printed.err)

    return run


def done(result: Result) -> str:
    assert (result.code, result.err) == (0, "")
    return result.out


def refused(result: Result, message: str) -> None:
    assert result.code == 2 and result.out == "" and len(result.err.splitlines()) == 1
    assert re.match(f"cat-tts: {message}", result.err), result.err


def comment(path: Path) -> str:
    with soundfile.SoundFile(path) as file:
        return file.comment


def test_there_and_back(cat_tts: Command, bundle: Path, prompt_file: Path, tmp_path: Path) -> None:
    """The audio is what the tokenizer decodes, as long as the recording, and not marked as generated."""
    printed = done(cat_tts("encode", prompt_file, "-o", "a.cat", "--model", bundle))
    size = (tmp_path / "a.cat").stat().st_size
    assert re.fullmatch(
        rf"a\.cat: 1\.20 s at 24000 Hz, depth 6, 375 bit/s, tokenizer [0-9a-f]{{16}}, {size} bytes\n", printed
    )
    tokenizer = AudioTokenizer.from_pretrained(bundle / "tokenizer")
    coded = read_codes(tmp_path / "a.cat")
    assert torch.equal(coded.codes, encode_audio(tokenizer, load_audio(prompt_file)).codes)
    for depth in (1, 6):
        done(cat_tts("decode", "a.cat", "-o", "a.wav", "--depth", depth, "--model", bundle / "tokenizer"))
        samples, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
        assert rate == 24_000 and len(samples) == 28_800 and comment(tmp_path / "a.wav") == ""
        decoded = decode_audio(tokenizer, coded, depth).clamp(-1, 1).numpy()
        assert np.abs(samples - decoded).max() < 1e-4


def test_a_lower_depth_is_a_cut_file(
    cat_tts: Command, bundle: Path, prompt_file: Path, tmp_path: Path
) -> None:
    done(cat_tts("encode", prompt_file, "-o", "all.cat", "--model", bundle))
    done(cat_tts("encode", prompt_file, "-o", "two.cat", "--depth", 2, "--model", bundle))
    two = (tmp_path / "two.cat").read_bytes()
    assert (tmp_path / "all.cat").read_bytes()[: len(two)] == two
    done(cat_tts("decode", "two.cat", "-o", "cut.flac", "--model", bundle))
    done(cat_tts("decode", "all.cat", "-o", "depth.flac", "--depth", 2, "--model", bundle))
    assert (tmp_path / "cut.flac").read_bytes() == (tmp_path / "depth.flac").read_bytes()


def test_a_voice_file_speaks_as_its_prompt(
    cat_tts: Command, bundle: Path, prompt_file: Path, tmp_path: Path
) -> None:
    options = ["--model", bundle, "--consent", "Ann:\n  all of it", "--language", "en"]
    saved = done(
        cat_tts("voice", "save", prompt_file, "--prompt-text", PROMPT_TEXT, "-o", "a.catvoice", *options)
    )
    info = done(cat_tts("voice", "info", "a.catvoice", device=None))
    assert info == saved
    lines = info.splitlines()
    assert re.fullmatch(
        r"a\.catvoice: \d\.\d\d s at 24000 Hz, depth 6, 375 bit/s, tokenizer \w+, \d+ bytes", lines[0]
    )
    level = read_voice(tmp_path / "a.catvoice").level_db
    assert lines[1:] == [
        f"level: {level:.1f} dBFS",
        "language: en",
        f"transcript: {PROMPT_TEXT}",
        "consent: Ann: all of it",
        "decoder adaptation: none",
    ]
    common = ["--text", TEXT, "--max-seconds", 0.4, "--model", bundle]
    done(cat_tts("clone", "a.catvoice", *common, "-o", "file.wav"))
    done(cat_tts("clone", prompt_file, "--prompt-text", PROMPT_TEXT, *common, "-o", "prompt.wav"))
    assert (tmp_path / "file.wav").read_bytes() == (tmp_path / "prompt.wav").read_bytes()


def test_addresses(cat_tts: Command, bundle: Path, prompt_file: Path, tmp_path: Path) -> None:
    """A recording and a voice file speak from an http address as from a file."""
    head, common = b"HTTP/1.0 200 OK\r\n\r\n", ["--model", bundle]
    text = ["--text", TEXT, "--max-seconds", 0.4]
    words = ["--prompt-text", PROMPT_TEXT]
    done(cat_tts("voice", "save", prompt_file, *words, "-o", "file.catvoice", *common))
    with answering() as serve:
        address = serve(head, prompt_file.read_bytes())
        done(cat_tts("voice", "save", address, *words, "-o", "far.catvoice", *common))
        saved = (tmp_path / "far.catvoice").read_bytes()
        assert saved == (tmp_path / "file.catvoice").read_bytes()
        done(cat_tts("clone", prompt_file, *words, *text, "-o", "file.wav", *common))
        done(cat_tts("clone", serve(head, prompt_file.read_bytes()), *words, *text, "-o", "a.wav", *common))
        done(cat_tts("clone", serve(head, saved), *text, "-o", "b.wav", *common))
        refused(
            cat_tts("clone", serve(b"HTTP/1.0 404 Gone\r\n\r\n"), *words, *text, "--model", "gone"),
            r"http://127\.0\.0\.1:\d+/a\.wav: cannot be downloaded \(HTTP Error 404: Gone\); check the",
        )
    spoken = [(tmp_path / f"{name}.wav").read_bytes() for name in ("file", "a", "b")]
    assert spoken[0] == spoken[1] == spoken[2]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_what_was_spoken_by_a_model_says_so(
    cat_tts: Command, bundle: Path, prompt_file: Path, tmp_path: Path, suffix: str
) -> None:
    common = ["--prompt-text", PROMPT_TEXT, "--text", TEXT, "--max-seconds", 0.4, "--model", bundle]
    done(cat_tts("clone", prompt_file, *common, "-o", f"a.{suffix}"))
    assert comment(tmp_path / f"a.{suffix}") == AI_GENERATED


def test_codes_of_generated_speech_decode_to_files_that_say_so(
    cat_tts: Command, bundle: Path, prompt_file: Path, tmp_path: Path
) -> None:
    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    take = synthesizer.synthesize(
        TEXT,
        synthesizer.load_voice(prompt_file, PROMPT_TEXT),
        SynthesisOptions(depth=3, max_seconds=0.4, policy=UNWATCHED),
    )
    save_result(tmp_path / "a.cat", take, synthesizer.tokenizer)
    printed = done(cat_tts("decode", "a.cat", "-o", "a.ogg", "--model", bundle))
    assert "depth 3, 188 bit/s" in printed and printed.endswith(", AI-generated\n")
    assert comment(tmp_path / "a.ogg") == AI_GENERATED


NO_MODEL = ["--model", "no model"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encode", "gone.wav", "-o", "a.cat"], r"gone\.wav: no such file"),
        (["encode", "junk", "-o", "a.cat"], "junk: not readable as audio"),
        (["encode", "good.wav", "-o", "a.wav"], r"a\.wav: unknown kind of code file; end the name with one"),
        (["encode", "good.wav", "-o", "gone/a.cat"], r"gone/a\.cat: the folder gone does not exist"),
        (["encode", "good.wav", "-o", "a.cat"], "no model: no such model folder"),
        (["decode", "gone.cat", "-o", "a.wav"], r"gone\.cat: no such file"),
        (["decode", "junk", "-o", "a.wav"], r"junk: not a \.cat file"),
        (["decode", "cut.cat", "-o", "a.wav"], r"cut\.cat: cut off inside layer 6: .* for 5 layers"),
        (["decode", "good.cat", "-o", "a.cat"], r"a\.cat: unknown kind of audio file"),
        (["decode", "good.cat", "-o", "a.wav", "--depth", "7"], "depth 7: these codes have 6 layers"),
        (["voice", "save", "good.wav", "-o", "a.voice"], r"a\.voice: unknown kind of voice file"),
        (["voice", "save", "gone.wav", "-o", "a.catvoice"], r"gone\.wav: no such file"),
        (["voice", "save", "good.catvoice", "-o", "a.catvoice"], r"good\.catvoice: is a voice file already"),
        (
            ["voice", "save", "good.wav", "-o", "a.catvoice", "--language", "?"],
            r"the language '\?' is no tag",
        ),
        (["clone", "gone.catvoice", "--text", TEXT], r"gone\.catvoice: no such file"),
        (["clone", "junk.catvoice", "--text", TEXT], r"junk\.catvoice: not a \.catvoice file"),
        (["clone", "good.catvoice", "--text", ""], "the text is empty"),
        (
            ["clone", "good.catvoice", "--text", TEXT, "--prompt-text", "No."],
            f"this voice says '{PROMPT_TEXT}', not 'No.': leave it out",
        ),
        (["clone", "good.catvoice", "--text", TEXT, "-o", "gone/a.wav"], "gone/a.wav: the folder gone does"),
        (["clone", "good.catvoice", "--text", TEXT], "no model: no such model folder"),
    ],
)
def test_mistakes_that_need_no_model(
    cat_tts: Command, files: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    before = sorted(tmp_path.iterdir())
    refused(cat_tts(*words, *NO_MODEL), message)
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def files(bundle: Path, prompt_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, its codes and its voice, cut and other bytes under such names."""
    folder = tmp_path_factory.mktemp("files")
    shutil.copy(prompt_file, folder / "good.wav")
    common = ["--model", str(bundle), "--device", "cpu"]
    main(["encode", str(prompt_file), "-o", str(folder / "good.cat"), *common])
    output = str(folder / "good.catvoice")
    main(["voice", "save", str(prompt_file), "--prompt-text", PROMPT_TEXT, "-o", output, *common])
    (folder / "cut.cat").write_bytes((folder / "good.cat").read_bytes()[:-1])
    for name in ("junk", "junk.catvoice"):
        (folder / name).write_bytes(b"junk" * 99)
    return folder


def test_mistakes_that_need_the_model(
    cat_tts: Command, bundle: Path, codec: Path, files: Path, tmp_path: Path
) -> None:
    common, good = ["--model", bundle], files / "good.wav"
    refused(cat_tts("encode", good, "-o", "a.cat", "--depth", 7, *common), "depth=7 but this tokenizer has 6")
    refused(
        cat_tts("decode", files / "good.cat", "-o", "a.wav", "--model", codec),
        r".*good\.cat: made by the tokenizer \w{16}, but this one is \w{16}: choose the model that made it",
    )
    refused(
        cat_tts("clone", files / "good.catvoice", "--text", TEXT, *common, "--tokenizer", codec),
        r".*good\.catvoice: made by the tokenizer \w{16}, but this one is",
    )
    refused(cat_tts("voice", "save", good, "-o", "a.catvoice", *common), "the prompt text is empty")
    refused(cat_tts("voice", "info", files / "junk", device=None), r".*junk: not a \.catvoice file")
    assert not list(tmp_path.iterdir())


def test_doctor(cat_tts: Command, bundle: Path, tmp_path: Path) -> None:
    printed = done(cat_tts("doctor", "--model", bundle))
    for line in [
        r"Python 3\.\d+\.\d+, .*, \d+ CPUs",
        r"packages: torch \d.*, transformers \d.*",
        r"optional: flash-attn (missing|\d\S*) \(faster attention on CUDA\)",
        r"device: cpu \(threads: 1\), float32",
        r"attention: tokenizer SDPA, TTS SDPA",
        r"TTS: 0\.\d M parameters, temporal \d x \d+, depth \d x \d+, 6 codebooks, prompts of up to 8 s",
        r"tokenizer: 0\.\d M parameters, 6 codebooks of 32, 24000 Hz, 12\.5 frames/s, 62\.5 bit/s a codebook",
        r"ok: \d\.\d\d s of audio, first audio after \d\.\d\d s, RTF \d+\.\d\d",
        r"ok: the stream is the take, sample for sample",
        r"ok: audio decoded at once is the stream, within \d\.\de-\d\d",
        r"ok: 4\.95 s of prompt went through \d+ bytes of codes",
        r"peak memory: \d+ MB",
        r"all is well",
    ]:
        assert re.search(f"^{line}$", printed, re.MULTILINE), (line, printed)
    assert "BROKEN" not in printed and not list(tmp_path.iterdir())


def test_doctor_sees_what_is_broken(cat_tts: Command, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "sick")
    weights = tmp_path / "sick" / "tokenizer" / "model.safetensors"
    state = load_file(weights)
    state["decoder.0.layers.0.ffn_out.weight"].fill_(torch.nan)
    save_file(state, weights)
    result = cat_tts("doctor", "--model", "sick")
    assert result.code == 1 and "all is well" not in result.out
    assert re.search(r"^BROKEN: speak: .* with NaN or infinite samples$", result.out, re.MULTILINE)
    assert "BROKEN: pack: the prompt does not come back from its codes" in result.out


def test_doctor_without_a_model(cat_tts: Command) -> None:
    result = cat_tts("doctor", *NO_MODEL)
    assert result.code == 1 and result.out.startswith("Python 3.")
    broken = [line for line in result.out.splitlines() if line.startswith("BROKEN")]
    assert len(broken) == 2 and all("no such model folder" in line for line in broken)
