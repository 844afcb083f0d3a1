"""Measure the cost of 8-bit weights: teacher-forced loss on real speech, with float and rounded weights.

    python -m eval.ablations.int8 --meta seedtts_style_en/meta.lst --out int8.json

Every prompt of the list is encoded, and the model predicts its codes from its transcript and the codes before
them, once as it is and once with each of its matrices as `weights="int8"` reads them.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from cat_tts import CatTTS
from cat_tts.generation.int8_linear import round_to_int8
from cat_tts.sequences.formats import build_example
from eval.common.results import command_line, markdown_table, mean, positive, require_place, write_json
from eval.seed_tts.utterance_list import read_list, spoken_prompts
from inference import Synthesizer


def round_weights(tts: CatTTS) -> None:
    """Replace each matrix that generates frames, in place, by what 8 bits keep of it.

    Args:
        tts: The model; every linear layer of its temporal and depth transformers changes.
    """
    with torch.no_grad():
        for part in (tts.temporal, tts.depth):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    module.weight.copy_(round_to_int8(module.weight))


@torch.inference_mode()
def losses(synthesizer: Synthesizer, prompts: list[tuple[str, Path]]) -> list[dict[str, float]]:
    """Measure the cross-entropy of the codes and of the decision, for each prompt.

    Args:
        synthesizer: The model.
        prompts: Transcript and recording of each prompt.

    Returns:
        For each prompt, the cross-entropy in nats a code (`codes`) and of the decision (`decision`).
    """
    config, found = synthesizer.tts.config, []
    for words, path in tqdm(prompts, unit="prompt"):
        codes = synthesizer.load_voice(path, words, adapt_decoder=False).codes
        example = build_example(config, synthesizer.text_tokenizer, words, codes)
        loss = synthesizer.tts(
            example.rows[None],
            None,
            example.targets[None],
            torch.tensor([config.num_codebooks]),
            example.positions[None],
        )
        found.append({"codes": loss.codes.item(), "decision": loss.decision.item()})
    return found


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when it ran, 2 with one line on the standard error stream when it could not."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m eval.ablations.int8", description="The cost of 8-bit weights."
    )
    parser.add_argument("--model", help="folder or hub id (default: the model of this repository)")
    parser.add_argument(
        "--meta", type=Path, required=True, help="list utt|prompt_text|prompt_wav|target_text"
    )
    parser.add_argument("--limit", type=positive, help="only the first so many lines")
    parser.add_argument("--out", type=Path, help="JSON file for the losses")
    options = parser.parse_args(argv)
    try:
        require_place(options.out)
        prompts = spoken_prompts(read_list(options.meta)[: options.limit])
        synthesizer = Synthesizer.from_pretrained(options.model, device="cpu")
    except (ValueError, OSError) as error:
        print(f"eval.ablations.int8: {error}", file=sys.stderr)
        return 2
    results = {"float": losses(synthesizer, prompts)}
    round_weights(synthesizer.tts)
    results["int8"] = losses(synthesizer, prompts)
    means = {
        name: {part: mean(loss[part] for loss in found) for part in ("codes", "decision")}
        for name, found in results.items()
    }
    print(markdown_table(["weights", "codes", "decision"], [[k, *v.values()] for k, v in means.items()]))
    if options.out:
        command = command_line("eval.ablations.int8", argv)
        write_json(options.out, {"command": command, "means": means, "prompts": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
