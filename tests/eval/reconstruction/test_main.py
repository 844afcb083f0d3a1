"""From files to tables: what has no value is counted, and a killed run goes on."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from eval.common.recordings import Recording
from eval.metrics.audio import METRIC_RATE, pesq_nb, pesq_wb, resample, stoi
from eval.metrics.wavlm_speaker import WavLMSpeakerEncoder
from eval.reconstruction import __main__ as reconstruction
from eval.reconstruction.__main__ import main, model_option
from eval.reconstruction.codecs import CatCodec, PlainCodec, Setting
from eval.reconstruction.measure import measure_file
from eval.reconstruction.opus import opus
from eval.reconstruction.tables import METRICS, full_table, metrics_of, paper_tables, summarize
from inference.synthesis.loading import DEFAULT_MODEL
from tests.helpers.wavlm_reference import small_weights
from tokenizer import AudioTokenizer, load_audio

SPEECH = DEFAULT_MODEL / "prompt.flac"


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wavlm") / "wavlm.pth"
    torch.save({"model": small_weights()}, path)
    return path


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Speech, silence, a fifth of a second, and what is no audio."""
    folder = tmp_path / "audio"
    folder.mkdir()
    speech = load_audio(SPEECH, METRIC_RATE).numpy()[16_000:32_000]
    for name, samples in {"1": speech, "2-silence": speech * 0, "3-short": speech[8000:11_200]}.items():
        soundfile.write(folder / f"{name}.wav", samples, METRIC_RATE)
    (folder / "4-text.wav").write_text("no audio")
    return folder


def test_pesq_and_stoi_are_those_of_the_packages() -> None:
    pesq, pystoi = pytest.importorskip("pesq"), pytest.importorskip("pystoi")
    clean = load_audio(SPEECH, METRIC_RATE).numpy()[16_000:48_000]
    coded = resample(opus(load_audio(SPEECH, 24_000).numpy()[24_000:72_000], 24_000, 6)[0], 24_000)
    assert pesq_wb(clean, coded, METRIC_RATE) == pesq.pesq(METRIC_RATE, clean, coded, "wb")
    assert pesq_nb(clean, coded, METRIC_RATE) == pesq.pesq(METRIC_RATE, clean, coded, "nb")
    assert stoi(clean, coded, METRIC_RATE) == pytest.approx(
        pystoi.stoi(clean, coded, METRIC_RATE, extended=False), abs=1e-12
    )
    assert 1.1 < pesq_wb(clean, coded, METRIC_RATE) < pesq_nb(clean, coded, METRIC_RATE) < 4.5


def test_every_metric_of_a_file_compares_it_with_what_the_codec_gave(wavlm: Path, audio: Path) -> None:
    pytest.importorskip("pesq")
    encoder, codec = WavLMSpeakerEncoder(wavlm), PlainCodec("opus", opus, (6,))
    speech = Recording(path=audio / "1.wav", name="1.wav", kind="speech")
    (record,) = measure_file([codec], encoder, speech)["records"]
    wide, narrow = load_audio(speech.path, 24_000).numpy(), load_audio(speech.path, METRIC_RATE).numpy()
    coded, bitrate = opus(wide, 24_000, 6)
    degraded = resample(coded, 24_000)
    assert (record["setting"], record["kind"], record["bitrate"]) == ("opus 6", "speech", bitrate)
    assert record["failures"] == {}
    assert record["similarity"] == encoder.similarity(narrow, METRIC_RATE, degraded, METRIC_RATE)
    assert record["pesq_wb"] == pesq_wb(narrow, degraded, METRIC_RATE)
    assert record["mel_distance"] == reconstruction_distance(wide, coded)
    sound = measure_file(
        [codec], encoder, Recording(path=speech.path, name="1.wav", kind="sound"), seconds=0.5
    )
    assert set(metrics_of("sound")) == set(sound["records"][0]) - {"setting", "kind", "bitrate", "failures"}
    assert sound["records"][0]["stft_distance"] is not None


def reconstruction_distance(wide: np.ndarray, coded: np.ndarray) -> float:
    from eval.metrics.spectral_distances import mel_distance

    return mel_distance(wide, coded, 24_000)


def row(setting: Setting, kind: str, **values: object) -> dict:
    empty = dict.fromkeys(metrics_of(kind), 2.0)
    return {"setting": setting.name, "kind": kind, "bitrate": 125.0, "failures": {}, **empty, **values}


def test_means_leave_out_undefined_values_but_count_them() -> None:
    one, two = Setting(codec="a", depth=1), Setting(codec="a", depth=2)
    records = [row(one, "speech"), row(one, "speech", stoi=None), row(two, "speech", stoi=None)]
    found = summarize(records, one, "speech")
    assert (found["files"], found["stoi"], found["pesq_wb"], found["failures"]) == (2, 2.0, 2.0, {"stoi": 1})
    cells = full_table([found], "speech").rows[0]
    assert cells[:3] == ["a, depth 1", 125, 2] and cells[-1] == {"stoi": 1}


def test_the_layout_of_the_paper() -> None:
    cat, opus6 = Setting(codec="cat", depth=8, frame_rate=12.5), Setting(codec="opus", kbps=6)
    records = [row(cat, "speech", bitrate=1000.0, similarity=None), row(cat, "music", bitrate=1000.0)]
    records += [row(opus6, "speech", bitrate=7000.4)]
    summary = [
        summarize(records, cat, "speech"),
        summarize(records, cat, "music"),
        summarize(records, opus6, "speech"),
    ]
    low, high = paper_tables(summary, "CAM++")
    assert (low.title, high.title) == ("below 1,500 bit/s", "above 6,000 bit/s")
    assert "SIM (CAM++)" in low.head
    assert list(low.rows[0]) == ["cat", 1000, 12.5, 8, None, 2.0, 2.0, 2.0, *["- / 2.000"] * 3, 1]
    assert list(high.rows[0])[:4] == ["opus 6", 7000, None, None]


def test_the_borders_of_the_ranges() -> None:
    titles = {}
    for bitrate in (1499, 1500, 2999, 3000, 6000, 6001):
        setting = Setting(codec="a", depth=1)
        (table,) = paper_tables([summarize([row(setting, "speech", bitrate=bitrate)], setting, "speech")], "")
        titles[bitrate] = table.title.removesuffix(" bit/s")
    assert list(titles.values()) == [
        "below 1,500",
        *["1,500 to 3,000"] * 2,
        *["3,000 to 6,000"] * 2,
        "above 6,000",
    ]


def test_failures_are_counted_and_a_killed_run_goes_on(
    audio: Path,
    wavlm: Path,
    codec: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("pesq")
    out = tmp_path / "results.json"
    command = ["--tokenizer", f"ours={codec}@2", "--opus", "6", "--audio", str(audio)]
    command += ["--wavlm", str(wavlm), "--out", str(out)]
    assert main(command) == 0
    whole, results = out.read_text(), json.loads(out.read_text())
    assert list(results["metric_models"]) == ["wavlm.pth"]
    assert len(results["files"]) == 4 * 2
    for summary in results["summary"]:
        assert summary["files"] == 4
        assert summary["failures"] == {
            "similarity": 2,  # silence, text; a fifth of a second has a voice
            "stoi": 3,
            "pesq_nb": 3,
            "pesq_wb": 3,
            "mel_distance_two": 1,  # text alone
            "mel_distance": 1,
            "stft_distance": 1,
        }
    tables = {table["title"]: table for table in results["tables"]}
    failures = tables["Metrics without a value: 28"]
    assert failures["head"] == ["kind", "setting", "metric", "reason", "files"]
    assert any("silent" in row[3] and row[2] == "SIM" for row in failures["rows"])
    assert any("not readable as audio" in row[3] for row in failures["rows"])
    assert sum("Codebooks of ours" in title for title in tables) == 1
    printed = capsys.readouterr().out
    assert all(title in printed for title in tables)

    with monkeypatch.context() as patch:
        patch.setattr(reconstruction, "tqdm", interrupted)
        with pytest.raises(KeyboardInterrupt):
            main(command)
    partial = tmp_path / "results.partial.jsonl"
    assert len(partial.read_text().splitlines()) == 2
    out.unlink()
    soundfile.write(audio / "1.wav", np.zeros(16_000), METRIC_RATE)  # is not read again
    assert main(command) == 0
    assert out.read_text() == whole and not partial.exists()


def test_the_picture_is_drawn_and_named(audio: Path, wavlm: Path, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    out, figure = tmp_path / "results.json", tmp_path / "figures" / "quality.png"
    command = ["--opus", "6,12", "--audio", str(audio), "--kinds", "sound", "--wavlm", str(wavlm)]
    assert main([*command, "--limit", "1", "--out", str(out), "--figure", str(figure)]) == 0
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert json.loads(out.read_text())["figures"] == ["figures/quality.png"]


def interrupted(items, **options):
    """Ctrl-C as the second item begins."""
    yield items[0]
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to measure"),
        (["--opus", "3"], r"--opus \(3,\): choose 6 to 256"),
        (["--mp3", "12"], r"--mp3 \(12,\): choose of 8"),
        (["--tokenizer", "a=CODEC@1", "--tokenizer", "a=CODEC@1"], "a, depth 1: given twice"),
        (["--tokenizer", "a=CODEC", "--depths", "40"], r"a at depths \[40\]"),
        (["--tokenizer", "a=CODEC"], r"a at depths \[\]"),
        (["--codec", "a=no/where/at/all@1"], "a=?.*no/where"),
        (["--opus", "6", "--kinds", "birds"], "--kinds birds: choose of speech, sound, music"),
        (["--opus", "6", "--out", "no/such/folder.json"], "no folder no/such"),
        (["--opus", "6", "--wavlm", "no.pth"], "no.pth"),
    ],
)
def test_mistakes_are_told_in_one_line(
    options: list[str],
    message: str,
    audio: Path,
    wavlm: Path,
    codec: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options = [option.replace("CODEC", str(codec)) for option in options]
    assert main(["--audio", str(audio), "--wavlm", str(wavlm), *options]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and re.search(f"^eval.reconstruction: .*{message}", error), error


def test_models_are_named() -> None:
    mimi = model_option("mimi=kyutai/mimi@8,32")
    assert (mimi.name, mimi.place, mimi.depths) == ("mimi", "kyutai/mimi", (8, 32))
    plain = model_option("folder@home/codec")
    assert (plain.name, plain.place, plain.depths) == ("folder@home/codec", "folder@home/codec", ())


def test_our_codec_counts_its_codes(codec: Path, wavlm: Path, audio: Path) -> None:
    ours = CatCodec("ours", AudioTokenizer.from_pretrained(codec).eval(), (1, 3))
    recording = Recording(path=audio / "1.wav", name="1.wav", kind="music")
    found = measure_file([ours], WavLMSpeakerEncoder(wavlm), recording)
    size, codes = found["codes"]["ours"]
    samples = torch.from_numpy(load_audio(recording.path, ours.sample_rate).numpy())[None]
    assert size == ours.model.config.codebook_size
    assert codes == ours.model.encode(samples, 3)[0].tolist()
    assert set(METRICS) - set(found["records"][0]) == {"similarity", "stoi", "pesq_nb", "pesq_wb"}
