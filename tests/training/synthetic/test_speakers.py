import pytest

from training.synthetic.speakers import MAX_FOREIGN_SHARE, hibari_speakers, kokoro_speakers


def test_speakers_depend_on_seed_and_number_alone() -> None:
    few, many, others = kokoro_speakers(5, 0), kokoro_speakers(200, 0), kokoro_speakers(5, 1)
    assert many[:5] == few != others
    assert len({speaker.name for speaker in many}) == len(set(many)) == 200


def test_speakers_are_blends_of_one_sex_resampled() -> None:
    speakers = kokoro_speakers(200, 0)
    for number, speaker in enumerate(speakers):
        voices = [voice for voice, _ in (*speaker.voice_blend, *speaker.prosody_blend)]
        assert {voice[1] for voice in voices} == {"fm"[number % 2]}
        assert sum(weight for _, weight in speaker.voice_blend) == pytest.approx(1, abs=5e-3)
        assert sum(w for voice, w in speaker.voice_blend if voice[0] not in "ab") <= MAX_FOREIGN_SHARE
        assert {voice[0] for voice, _ in speaker.prosody_blend} == {"b" if speaker.british else "a"}
        assert 0.88 <= speaker.alpha <= 1.12 and 0.85 <= speaker.speed <= 1.15
    assert 30 <= sum(speaker.british for speaker in speakers) <= 90
    foreign = [speaker for speaker in speakers if speaker.voice_blend[-1][0][0] not in "ab"]
    assert 70 <= len(foreign) <= 130


def test_one_voice_becomes_women_and_men() -> None:
    speakers = hibari_speakers(50, 0)
    assert speakers[:5] == hibari_speakers(5, 0) != hibari_speakers(5, 1)
    women, men = speakers[::2], speakers[1::2]
    assert all(0.95 <= s.alpha <= 1.18 and 160 <= s.pitch <= 260 for s in women)
    assert all(0.80 <= s.alpha <= 0.93 and 85 <= s.pitch <= 150 for s in men)
    assert len({speaker.name for speaker in speakers}) == 50 and not any(s.british for s in speakers)


def test_no_speakers_are_refused() -> None:
    with pytest.raises(ValueError, match="count=0 speakers: give 1 or more"):
        kokoro_speakers(0, 0)
