from pathlib import Path

import pytest
import torch

from cat_tts import CatTTS, SamplingOptions
from cat_tts.sequences.rows import positions, prompt_rows
from tokenizer import AudioTokenizer, load_audio
from training.tts.samples import Sample, Samples, speak, swap_prompts

GREEDY = SamplingOptions(temperature=0.0, decision_temperature=0.0)


@pytest.fixture(scope="module")
def samples(bundle: Path) -> list[Sample]:
    codes = torch.randint(0, 32, (2, 9, 6), generator=torch.Generator().manual_seed(2))
    spoken_text = [
        {"text": "the red fox", "codes": codes[0], "frames": 9},
        {"text": "a dog", "codes": codes[1], "frames": 9},
    ]
    return swap_prompts(spoken_text)


def test_each_text_is_said_in_the_voice_of_another(samples: list[Sample]) -> None:
    assert [(one.prompt_text, one.text) for one in samples] == [
        ("a dog", "the red fox"),
        ("the red fox", "a dog"),
    ]
    assert not torch.equal(samples[0].prompt, samples[1].prompt)
    (single,) = swap_prompts([{"text": "a dog", "codes": [[1, 2], [3, 4]], "frames": 2}])
    assert (single.text, single.prompt_text, single.prompt.tolist()) == ("a dog", "a dog", [[1, 2], [3, 4]])


@torch.no_grad()
def test_greedy_speech_is_what_teacher_forcing_finds_likeliest(bundle: Path, samples: list[Sample]) -> None:
    model, text = CatTTS.from_pretrained(bundle / "tts")
    prompt = samples[0].prompt
    codes = speak(model, text, "a dog sings", prompt, rate=3.0, depth=6, seed=0, max_frames=5, options=GREEDY)
    assert len(codes) == 5
    whole = prompt_rows(model.config, text, "a dog sings", torch.cat([prompt, codes]))
    places = positions(model.config, whole, 3.0)
    states = model.states(model.embed(whole[None], 6), positions=places[None])[0]
    _, logits = model.frame_logits(states[-6:-1], whole[-5:])
    assert torch.equal(logits[..., :32].argmax(-1), codes)


def test_samples_are_written_at_two_depths(bundle: Path, samples: list[Sample], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard.writer import SummaryWriter

    model, text = CatTTS.from_pretrained(bundle / "tts")
    tokenizer = AudioTokenizer.from_pretrained(bundle / "tokenizer", "decoder")
    spoken = Samples(tmp_path, tokenizer, samples)
    with SummaryWriter(tmp_path / "tensorboard") as writer:
        spoken.write(20, model, text, writer)
    spoken.write(30, model, text)

    observed = load_audio(tmp_path / "samples" / "step_0000000" / "0_prompt.wav")
    wanted = tokenizer.decode(samples[0].prompt[None])[0].clamp(-1, 1)
    torch.testing.assert_close(observed, wanted, atol=1e-4, rtol=0)
    names = ["0_depth_1.wav", "0_depth_6.wav", "1_depth_1.wav", "1_depth_6.wav"]
    for step in (20, 30):
        folder = tmp_path / "samples" / f"step_00000{step}"
        found = sorted(path.name for path in folder.iterdir())
        assert set(found) <= set(names) and len(found) >= 3  # a take may stop before its first frame
        assert all(len(load_audio(folder / name)) % tokenizer.config.frame_size == 0 for name in found)
    same = [(tmp_path / "samples" / f"step_00000{step}" / found[0]).read_bytes() for step in (20, 30)]
    assert same[0] == same[1]  # the seed is the sample's, not the step's

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"0_prompt", "1_prompt", *(name.removesuffix(".wav") for name in found)} <= set(
        events.Tags()["audio"]
    )
    (shown,) = events.Tensors("0_text/text_summary")
    assert shown.tensor_proto.string_val == [b"the red fox"]
