"""Train a TTS model to prefer those of its candidates that can be understood (DPO).

    python -m training.preference.candidates candidates --model BUNDLE --codes codes
    python -m training.preference.dpo RUN --candidates candidates --codes codes --tts BUNDLE/tts --asr
    asr/model

A CAT-ASR scores the candidates (`cat_tts.asr.ctc_score`); of each comparison the best candidate is preferred
to the worst, the second best to the second worst, and so on, where their scores differ enough. The loss is
that of direct preference optimisation (Rafailov et al. 2023, equation 7), computed from log-probabilities per
frame so that length is no merit, plus the cross-entropy of the chosen candidates. Measure the result with
another recognizer than the one that ranked.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from cat_tts import CatTTS
from cat_tts.asr.ctc_score import MIN_CTC_SCORE, ctc_score
from cat_tts.asr.model import CatASR
from cat_tts.sequences.formats import build_example
from cat_tts.sequences.rows import IGNORED, join_texts, speaking_rate
from cat_tts.text.tokenizers import TextTokenizer
from training.common.distributed import optimizer_step
from training.common.renamed_options import rename_options
from training.common.run import StopRequest, key, log_metrics, wsd_schedule
from training.data.code_shards import Codes, read_codes
from training.preference.candidates import Comparison, read_comparisons

logger = logging.getLogger(__name__)

RENAMED_OPTIONS = {"--takes": "--candidates", "--spoken": "--cross-entropy-weight"}
WARMUP, DECAY, MAX_GRAD_NORM = 10, 0.3, 1.0
"""Warm-up steps and decaying part of the learning rate; largest norm of a gradient."""


@dataclass(frozen=True, kw_only=True)
class DpoOptions:
    """Options of one run, which is short and starts from the beginning when it is called again."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN/model becomes the trained model."""
    candidates: Path
    """Folder that training.preference.candidates wrote."""
    codes: Path
    """The code shards that the candidates' prompts come from."""
    tts: Path
    """The model that generated the candidates."""
    asr: Path
    """The CAT-ASR that ranks them."""
    margin: float = 0.1
    """Least difference of the two CTC scores of a pair, in nats a phoneme."""
    beta: float = 5.0
    """How little the model may depart from what it was: factor of the log-probabilities per frame."""
    codebooks: int = 4
    """The preference loss looks at the first ones, which decide on the words; the cross-entropy at all."""
    cross_entropy_weight: float = 0.2
    """Weight of the cross-entropy of the chosen candidates."""
    steps: int = 300
    pairs_per_step: int = 16
    learning_rate: float = 5e-5
    validation: int = 40
    """Comparisons that are held out."""
    save_every: int = 50
    seed: int = 0


class Pair(NamedTuple):
    """Two candidates of a comparison: the chosen one, and the rejected one."""

    comparison: Comparison
    candidates: tuple[int, int]
    """Numbers of the chosen and the rejected candidate."""
    reference_scores: tuple[float, float] = (0.0, 0.0)
    """`frame_scores` of the two by the reference model, which is the one that generated them."""


class Sequences(NamedTuple):
    """A batch of sequences, padded on the right."""

    rows: Int[Tensor, "b t c"]
    targets: Int[Tensor, "b t c"]
    """`IGNORED` except at the frames of the candidates."""
    positions: Float[Tensor, "b t"]
    depth: Int[Tensor, " b"]


def train_dpo(options: DpoOptions) -> CatTTS:
    """Rank the candidates, train, write RUN/model and return it.

    Raises:
        ValueError: too few pairs are left to train and validate on.
    """
    model, text_tokenizer = CatTTS.from_pretrained(options.tts)
    asr_model, _ = CatASR.from_pretrained(options.asr)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, asr_model, codes = model.float().to(device), asr_model.to(device), read_codes(options.codes)
    comparisons = tqdm(read_comparisons(options.candidates), desc="ranking")
    ranked = [rank_pairs(asr_model, comparison, options.margin) for comparison in comparisons]
    training, held_out = (
        [pair for pairs in part for pair in pairs]
        for part in (ranked[options.validation :], ranked[: options.validation])
    )
    if len(training) < options.pairs_per_step or not held_out:
        raise ValueError(
            f"{len(training)} pairs to train on and {len(held_out)} held out: generate more candidates, "
            "or lower the margin"
        )
    logger.info("%d pairs to train on, %d held out", len(training), len(held_out))
    objective = DpoObjective(model, text_tokenizer, codes, options)
    training, held_out = objective.with_reference_scores(training), objective.with_reference_scores(held_out)
    optimizer = torch.optim.AdamW(model.parameters(), options.learning_rate, weight_decay=0.0)
    options.run.mkdir(parents=True, exist_ok=True)
    (options.run / "metrics.jsonl").unlink(missing_ok=True)
    with StopRequest() as stop:
        for step in tqdm(range(options.steps)):
            draw = np.random.default_rng(key(options.seed, step))
            drawn = draw.choice(len(training), options.pairs_per_step, replace=False)
            losses = objective.losses([training[i] for i in drawn])
            (losses.preference + options.cross_entropy_weight * losses.cross_entropy).backward()
            factor = wsd_schedule(step, steps=options.steps, warmup=WARMUP, decay=DECAY)
            norm = optimizer_step([optimizer], options.learning_rate * factor, MAX_GRAD_NORM)
            done = step + 1
            log_metrics(options.run, {"step": done, **losses.named("train"), "train/grad_norm": float(norm)})
            if done % options.save_every == 0 or done == options.steps or stop:
                log_metrics(options.run, {"step": done, **objective.validate(held_out)})
                model.save_pretrained(options.run / "model", text_tokenizer)
            if stop:
                break
    return model.eval()


class DpoLosses(NamedTuple):
    """Means over the pairs of a batch."""

    preference: Float[Tensor, ""]
    cross_entropy: Float[Tensor, ""]
    """Cross-entropy of all codes of the chosen candidates, in nats."""
    accuracy: Float[Tensor, ""]
    """Part of the pairs whose chosen candidate has gained more than the rejected one."""

    def named(self, part: str) -> dict[str, float]:
        """Return the losses as metrics, under `part/name`."""
        return {f"{part}/{name}": value.item() for name, value in self._asdict().items()}


class DpoObjective:
    """Computes the losses of pairs with the model that is trained.

    Args:
        model: the model; the reference model as long as it has not been trained.
        text_tokenizer: the model's text tokenizer.
        codes: the code shards that hold the prompts.
        options: beta, codebooks and the size of a batch.
    """

    def __init__(
        self, model: CatTTS, text_tokenizer: TextTokenizer, codes: Codes, options: DpoOptions
    ) -> None:
        self.model, self.text_tokenizer, self.codes, self.options = model, text_tokenizer, codes, options

    @torch.no_grad()
    def with_reference_scores(self, pairs: list[Pair]) -> list[Pair]:
        """Return the pairs with the scores that the model gives them now."""
        scored = []
        for chunk in tqdm(self._batches(pairs), desc="reference scores"):
            batch = sequences(self.model, self.text_tokenizer, self.codes, chunk)
            scores, _ = frame_scores(self.model, batch, self.options.codebooks)
            both = scores.unflatten(0, (-1, 2)).tolist()
            scored += [
                pair._replace(reference_scores=(a, b)) for pair, (a, b) in zip(chunk, both, strict=True)
            ]
        return scored

    def losses(self, pairs: Sequence[Pair]) -> DpoLosses:
        """Return the losses of a batch of pairs (Rafailov et al. 2023, equation 7, per frame)."""
        batch = sequences(self.model, self.text_tokenizer, self.codes, pairs)
        scores, cross_entropy = frame_scores(self.model, batch, self.options.codebooks)
        reference = scores.new_tensor([pair.reference_scores for pair in pairs])
        chosen, rejected = (self.options.beta * (scores.unflatten(0, (-1, 2)) - reference)).unbind(1)
        preference = -F.logsigmoid(chosen - rejected).mean()
        return DpoLosses(preference, cross_entropy, (chosen > rejected).float().mean())

    @torch.no_grad()
    def validate(self, pairs: list[Pair]) -> dict[str, float]:
        """Return the means of the losses over the batches of held-out pairs."""
        losses = [self.losses(chunk) for chunk in self._batches(pairs)]
        means = DpoLosses(*(torch.stack(values).mean() for values in zip(*losses, strict=True)))
        return means.named("validation")

    def _batches(self, pairs: list[Pair]) -> list[list[Pair]]:
        size = self.options.pairs_per_step
        return [pairs[i : i + size] for i in range(0, len(pairs), size)]


def rank_pairs(asr_model: CatASR, comparison: Comparison, margin: float) -> list[Pair]:
    """Pair the best candidate with the worst, the second best with the second worst, and so on.

    A candidate that did not end by itself scores `MIN_CTC_SCORE`.

    Args:
        asr_model: scores how well the text can be recognized.
        comparison: at least two candidates, or there is no pair.
        margin: pairs whose scores differ by less, in nats a phoneme, are left out.
    """
    candidates = [torch.from_numpy(codes.copy()) for codes in comparison.candidates]
    usable = len(candidates) > 1 and asr_model.ctc_targets(comparison.text)
    if not usable:
        return []
    ctc_scores = ctc_score(asr_model, candidates, comparison.text)
    scores = [
        max(score, MIN_CTC_SCORE) if ended else MIN_CTC_SCORE
        for score, ended in zip(ctc_scores, comparison.ended, strict=True)
    ]
    order = sorted(range(len(candidates)), key=lambda i: -scores[i])
    pairs = zip(order[: len(order) // 2], order[::-1], strict=False)
    return [Pair(comparison, (a, b)) for a, b in pairs if scores[a] - scores[b] >= margin]


def sequences(model: CatTTS, text_tokenizer: TextTokenizer, codes: Codes, pairs: Sequence[Pair]) -> Sequences:
    """Build the sequences of pairs: pair i at 2i (chosen) and 2i + 1 (rejected) of the batch."""
    config, device = model.config, model.text_embedding.weight.device
    rows, targets, places, depth = [], [], [], []
    for comparison, candidates, _ in pairs:
        prompt = codes[comparison.prompt]
        prompt_codes = torch.tensor(prompt["codes"], dtype=torch.long)[:, : comparison.depth]
        rate = speaking_rate(config, text_tokenizer.encode(prompt["text"]), len(prompt_codes))
        for candidate in candidates:
            generated = torch.from_numpy(comparison.candidates[candidate].astype(np.int64))
            joined = join_texts(prompt["text"], comparison.text)
            spoken = torch.cat([prompt_codes, generated])
            example = build_example(config, text_tokenizer, joined, spoken, rate=rate)
            wanted = example.targets
            wanted[: len(wanted) - len(generated) - 1] = IGNORED
            if not comparison.ended[candidate]:
                wanted[-1] = IGNORED
            rows.append(example.rows)
            targets.append(wanted)
            places.append(example.positions)
            depth.append(comparison.depth)
    return Sequences(
        pad_sequence(rows, True).to(device),
        pad_sequence(targets, True, IGNORED).to(device),
        pad_sequence(places, True).to(device),
        torch.tensor(depth, device=device),
    )


def frame_scores(
    model: CatTTS, batch: Sequences, codebooks: int
) -> tuple[Float[Tensor, " b"], Float[Tensor, ""]]:
    """Return the log-probability of each candidate per frame, and the cross-entropy of the chosen ones.

    Args:
        model: the TTS model.
        batch: what `sequences` builds.
        codebooks: the log-probability is that of the decision and the first so many codes of each frame.

    Returns:
        Scores [b] in nats a frame, and the mean cross-entropy in nats a code of all codes of the candidates
        at even places of the batch.
    """
    states = model.states(model.embed(batch.rows, batch.depth), positions=batch.positions)
    wanted = batch.targets[..., 0] != IGNORED
    item = wanted.nonzero()[:, 0]
    targets = batch.targets[wanted]
    decision, codes = model.frame_logits(states[wanted], targets)
    ends = (targets[:, 0] == model.config.tokens.audio_end).long()
    code_losses = F.cross_entropy(
        codes.float().flatten(0, 1), targets[:, 1:].flatten(), reduction="none", ignore_index=IGNORED
    )
    code_losses = code_losses.unflatten(0, (len(targets), -1))
    decision_losses = F.cross_entropy(decision.float(), ends, reduction="none")
    losses = code_losses[:, :codebooks].sum(1) + decision_losses
    total = losses.new_zeros(len(batch.rows)).index_add(0, item, losses)
    chosen = (targets[:, 1:] != IGNORED) & (item % 2 == 0)[:, None]
    return -total / wanted.sum(1), code_losses[chosen].mean()


def main(argv: list[str] | None = None) -> None:
    """Run the command line: `python -m training.preference.dpo --help`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = rename_options(sys.argv[1:] if argv is None else argv, RENAMED_OPTIONS)
    train_dpo(tyro.cli(DpoOptions, args=arguments, description=__doc__))


if __name__ == "__main__":
    main()
