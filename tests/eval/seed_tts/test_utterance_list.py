"""Lists in all the forms that Seed-TTS-Eval knows, and the lines that are refused."""

from pathlib import Path

import pytest

from eval.seed_tts.utterance_list import FORMS, UtteranceLine, read_list, spoken_prompts


def write(folder: Path, *lines: str) -> Path:
    (folder / "prompt-wavs").mkdir(exist_ok=True)
    (folder / "prompt-wavs" / "a.wav").touch()
    (folder / "meta.lst").write_text("\n".join(lines), encoding="utf-8")
    return folder / "meta.lst"


def test_lines_of_two_to_five_fields(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt-wavs" / "a.wav"
    path = write(
        tmp_path,
        "\ufeffu2|two",
        "",
        "u3.wav|three\u2028lines|prompt-wavs/a.wav",
        'u4|He said, "no".|prompt-wavs/a.wav| Caf\u00e9 it is.  ',
        f"u5.wav|spoken|{prompt}|five|b.wav",
    )
    assert read_list(path) == [
        UtteranceLine(utt="u2", target_text="two"),
        UtteranceLine(utt="u3", target_text="three\u2028lines", prompt_audio=prompt),
        UtteranceLine(
            utt="u4", target_text=" Caf\u00e9 it is.", prompt_text='He said, "no".', prompt_audio=prompt
        ),
        UtteranceLine(utt="u5.wav", target_text="five", prompt_text="spoken", prompt_audio=prompt),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u1", "1 fields, or an empty one"),
        ("u1|a|prompt-wavs/a.wav|b|c.wav|d", "6 fields, or an empty one"),
        ("u1||prompt-wavs/a.wav|b", "4 fields, or an empty one"),
        ("../u1|b", "cannot be the name of a file"),
        ("..|b", "cannot be the name of a file"),
        ("u0|b", "repeats the utterance u0"),
        ("u1|a|prompt-wavs/z.wav|b", r"there is no prompt .*z\.wav"),
        ("u1|a|prompt-wavs|b", "there is no prompt"),
        ("u1|a|prompt-wavs/a.wav|...", "no word after normalisation"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, "u0|a|prompt-wavs/a.wav|fine", line)
    with pytest.raises(ValueError, match=rf"meta\.lst:2: .*{message}") as caught:
        read_list(path)
    assert "\n" not in str(caught.value)


def test_an_empty_list_and_one_without_transcripts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no line"):
        read_list(write(tmp_path, "", " "))
    with pytest.raises(ValueError, match=r"u3 has no transcript.*utt\|prompt_text\|prompt_wav\|text"):
        spoken_prompts(read_list(write(tmp_path, "u3|three|prompt-wavs/a.wav")))
    assert set(FORMS) == {2, 3, 4, 5}
