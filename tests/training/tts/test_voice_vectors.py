from dataclasses import replace

import pytest
import torch

from cat_tts import CatTTS
from cat_tts.config import tiny
from cat_tts.speakers import voice_vector
from cat_tts.speakers.voice_vector import VoiceVectorEncoder
from tests.training.tts.test_batches import CONFIG, MANY, LetterTokenizer
from training.tts.batches import DropoutConfig, TTSBatch, TTSBatchConfig, TTSBatches
from training.tts.monitor import validate
from training.tts.voice_vectors import VoiceClips, condition_on_voice, voice_clips, voice_vectors

DEPTH = torch.tensor([2, 6, 4])


def tiny_encoder() -> VoiceVectorEncoder:
    return VoiceVectorEncoder(voice_vector.tiny()).eval().requires_grad_(False)


def three_clips() -> list[torch.Tensor]:
    return [torch.randint(32, (frames, 6)) for frames in (9, 4, 7)]


def batches(speaker_dropout: float, speaker_dim: int | None = 8) -> TTSBatches:
    config, dropout = replace(CONFIG, speaker_dim=speaker_dim), DropoutConfig(speaker_dropout=speaker_dropout)
    size = TTSBatchConfig(rows=60, max_frames=25)
    return TTSBatches(MANY, config, LetterTokenizer(), size, dropout, seed=0, steps=1000)


def test_clips_by_hand() -> None:
    clips = voice_clips([*three_clips()[:2], torch.ones(2, 6).long()], torch.tensor([False, True, False]))
    assert clips.frames.tolist() == [9, 0, 2] and clips.codes.shape == (3, 9, 6)
    assert clips.codes[2].tolist() == [[1] * 6] * 2 + [[0] * 6] * 7
    assert voice_clips(three_clips()).frames.tolist() == [9, 4, 7]


def test_each_vector_is_of_its_clip_at_its_depth() -> None:
    encoder, clips = tiny_encoder(), three_clips()
    found = voice_vectors(encoder, voice_clips(clips), DEPTH)
    wanted = [encoder(clip[None, :, :k])[0] for clip, k in zip(clips, DEPTH.tolist(), strict=True)]
    assert found is not None
    torch.testing.assert_close(found, torch.stack(wanted), atol=1e-5, rtol=1e-4)


def test_what_is_dropped_has_zeros_and_changes_nothing_else() -> None:
    encoder, clips = tiny_encoder(), three_clips()
    found = voice_vectors(encoder, voice_clips(clips, torch.tensor([False, True, False])), DEPTH)
    wanted = voice_vectors(encoder, voice_clips(clips), DEPTH)
    assert found is not None and wanted is not None
    assert not found[1].any()
    torch.testing.assert_close(found[[0, 2]], wanted[[0, 2]], atol=1e-5, rtol=1e-4)
    none = voice_vectors(encoder, voice_clips(clips, torch.ones(3, dtype=torch.bool)), DEPTH)
    assert none is not None and none.shape == (3, 8) and not none.any()
    assert voice_vectors(None, voice_clips(clips), DEPTH) is None
    assert voice_vectors(encoder, None, DEPTH) is None


def test_an_encoder_of_fewer_codebooks_reads_those_it_has() -> None:
    encoder, clips = VoiceVectorEncoder(replace(voice_vector.tiny(), num_codebooks=3)).eval(), three_clips()
    found = voice_vectors(encoder, voice_clips(clips), DEPTH)
    assert found is not None
    torch.testing.assert_close(found[1], encoder(clips[1][None, :, :3])[0], atol=1e-5, rtol=1e-4)


def clip_and_spoken(batch: TTSBatch) -> list[tuple[list[int], list[int]]]:
    """First codes of each clip, and the utterances that its sequence speaks, in order."""
    assert batch.clips is not None
    clips = [codes[:n, 0].tolist() for codes, n in zip(batch.clips.codes, batch.clips.frames, strict=True)]
    slots = [rows[rows[:, 0] == CONFIG.tokens.slot][:, 1].tolist() for rows in batch.rows]
    return [(clip, list(dict.fromkeys(spoken))) for clip, spoken in zip(clips, slots, strict=True)]


def test_the_clip_of_a_sequence_is_its_prompt_or_itself() -> None:
    made, counts = batches(0.0), set()
    for step in range(20):
        (batch,) = made[step]
        for clip, spoken in clip_and_spoken(batch):
            assert clip == [spoken[0]] * int(made.frames[spoken[0]])
            counts.add(len(spoken))
    assert counts == {1, 2}


def test_a_part_of_the_sequences_goes_without_a_vector() -> None:
    made, plain = batches(0.25), batches(0.25, speaker_dim=None)
    dropped = []
    for step in range(200):
        (batch,), (same,) = made[step], plain[step]
        assert torch.equal(batch.rows, same.rows) and torch.equal(batch.depth, same.depth)
        assert same.clips is None and batch.clips is not None
        assert torch.equal(batch.clips.frames, made[step][0].clips.frames)  # pyright: ignore[reportOptionalMemberAccess]
        dropped += (batch.clips.frames == 0).tolist()
    assert sum(dropped) / len(dropped) == pytest.approx(0.25, abs=0.04)
    kept_out = made.collate([(0,), (1,)])
    assert kept_out.clips is not None and kept_out.clips.frames.tolist() == made.frames[:2].tolist()
    moved = kept_out.to(torch.device("cpu"))
    assert isinstance(moved.clips, VoiceClips) and torch.equal(moved.clips.codes, kept_out.clips.codes)


def test_validation_reads_vectors_at_its_depth() -> None:
    config, encoder = replace(tiny(), num_codebooks=3, codebook_size=64, speaker_dim=8), tiny_encoder()
    encoder = VoiceVectorEncoder(replace(encoder.config, codebook_size=64, num_codebooks=3)).eval()
    made, model = batches(0.0), CatTTS(config).eval()
    assert model.speaker_projection is not None
    model.speaker_projection.weight.detach().normal_()
    batch = made.collate([(0,), (1,)])
    assert batch.clips is not None
    for depth in (1, 3):
        depths = torch.full((2,), depth)
        speaker = encoder(batch.clips.codes[..., :depth], batch.clips.frames)
        wanted = model(batch.rows, None, batch.targets, depths, batch.positions, speaker=speaker)
        found = validate(model, [batch], depth, encoder)["validation/loss/codes"]
        assert found == pytest.approx(float(wanted.codes.detach()), abs=1e-5)
        assert validate(model, [batch], depth)["validation/loss/codes"] != pytest.approx(found, abs=1e-5)


def test_models_and_encoders_that_do_not_fit_are_refused() -> None:
    encoder, model = tiny_encoder(), CatTTS(tiny())
    condition_on_voice(model, None, adapters_only=True)
    assert model.config.speaker_dim is None
    with pytest.raises(ValueError, match="no projection of voice vectors yet"):
        condition_on_voice(model, encoder, adapters_only=True)
    condition_on_voice(model, encoder, adapters_only=False)
    projection = model.speaker_projection
    assert model.config.speaker_dim == 8 and projection is not None
    condition_on_voice(model, encoder, adapters_only=True)
    assert model.speaker_projection is projection
    with pytest.raises(ValueError, match="voice vectors of 8 numbers: name their encoder"):
        condition_on_voice(model, None, adapters_only=False)
    wider = VoiceVectorEncoder(replace(voice_vector.tiny(), vector_dim=9))
    with pytest.raises(ValueError, match="of 8 numbers, those of this speaker_encoder have 9"):
        condition_on_voice(model, wider, adapters_only=False)
