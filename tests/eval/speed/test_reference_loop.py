from dataclasses import replace

import pytest
import torch

from cat_tts import CatTTS, SamplingOptions, TTSConfig, generate
from cat_tts.config import tiny
from eval.speed.reference_loop import published_loop


@pytest.mark.parametrize("config", [tiny(), replace(tiny(), adapter_dim=20, full_text_head=True)])
@pytest.mark.parametrize("depth", [1, 6])
def test_makes_the_same_codes(config: TTSConfig, depth: int) -> None:
    model = CatTTS(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    rows = torch.randint(config.codebook_size, (2, 9, 1 + config.num_codebooks))
    greedy = SamplingOptions(temperature=0.0, decision_temperature=0.0)
    ours = generate(
        model,
        rows,
        None,
        depth=depth,
        seeds=torch.tensor([0, 0]),
        max_frames=8,
        min_frames=8,
        options=greedy,
    )
    plain = published_loop(model, rows, depth, 8)
    assert torch.equal(torch.stack(list(ours), 1), plain)
    assert len(plain[..., 1:].unique()) > 3
