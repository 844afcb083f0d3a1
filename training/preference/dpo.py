"""Teach a TTS model to prefer those of its takes that can be understood:

    python -m training.preference.candidates takes --model BUNDLE --codes codes
    python -m training.preference.dpo RUN --takes takes --codes codes --tts BUNDLE/tts --asr asr/model

A CAT-ASR judges the takes by ear (`cat_tts.asr.ctc_score`); of each contest the best take is preferred to the
worst, the second to the last but one, and so on, where the listener is sure. The loss is that of direct
preference optimisation (Rafailov et al. 2023), of log-probabilities a frame so that length is no merit, and
the cross-entropy of the preferred takes beside it. What the result is measured with must be another
recogniser.
"""

import logging
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
from cat_tts.asr.ctc_score import UNHEARD, heard
from cat_tts.asr.model import CatASR
from cat_tts.sequences.formats import example_rows
from cat_tts.sequences.rows import IGNORED, join_texts, positions, shifted_targets, speaking_pace
from cat_tts.text.tokenizers import TextTokenizer
from training.common.distributed import descend
from training.common.run import StopRequest, key, log_metrics, trapezoid
from training.data.code_shards import Codes, read_codes
from training.preference.candidates import Contest, contests

logger = logging.getLogger(__name__)

WARMUP, DECAY, CLIP = 10, 0.3, 1.0
"""Of the learning rate, and the largest norm of a gradient."""


@dataclass(frozen=True, kw_only=True)
class Preference:
    """One run; it is short, and begins anew when it is called again."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN/model becomes the better model."""
    takes: Path
    codes: Path
    """The shards that the takes' prompts are of."""
    tts: Path
    """The model that made them."""
    asr: Path
    margin: float = 0.1
    """By which the preferred take of a pair must be heard better, in nats a phoneme."""
    beta: float = 5.0
    """How little the model may depart from what it was: of log-probabilities a frame."""
    codebooks: int = 4
    """The first ones, which decide on the words, have a preference; the cross-entropy is of all."""
    spoken: float = 0.2
    """Weight of the cross-entropy of the preferred takes."""
    steps: int = 300
    pairs_per_step: int = 16
    learning_rate: float = 5e-5
    validation: int = 40
    """Contests that are kept out."""
    save_every: int = 50
    seed: int = 0


class Pair(NamedTuple):
    """Two takes of a contest, the better one first."""

    contest: Contest
    takes: tuple[int, int]
    before: tuple[float, float] = (0.0, 0.0)
    """`frame_scores` of the two by the model that made them."""


class Sequences(NamedTuple):
    """Padded on the right."""

    rows: Int[Tensor, "b t c"]
    targets: Int[Tensor, "b t c"]
    """`IGNORED` but for the frames of the takes."""
    positions: Float[Tensor, "b t"]
    depth: Int[Tensor, " b"]


def prefer(options: Preference) -> CatTTS:
    """Judge, train, and write RUN/model."""
    model, text = CatTTS.from_pretrained(options.tts)
    listener, _ = CatASR.from_pretrained(options.asr)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, listener, codes = model.float().to(device), listener.to(device), read_codes(options.codes)
    found = tqdm(contests(options.takes), desc="listening")
    judged = [ranked(listener, one, options.margin) for one in found]
    training, kept_out = (
        [pair for pairs in part for pair in pairs]
        for part in (judged[options.validation :], judged[: options.validation])
    )
    if len(training) < options.pairs_per_step or not kept_out:
        raise ValueError(
            f"{len(training)} pairs to learn from and {len(kept_out)} kept out: make more takes, "
            "or lower the margin"
        )
    logger.info("%d pairs to learn from, %d kept out", len(training), len(kept_out))
    learner = Learner(model, text, codes, options)
    training, kept_out = learner.remembered(training), learner.remembered(kept_out)
    optimizer = torch.optim.AdamW(model.parameters(), options.learning_rate, weight_decay=0.0)
    options.run.mkdir(parents=True, exist_ok=True)
    (options.run / "metrics.jsonl").unlink(missing_ok=True)
    with StopRequest() as stop:
        for step in tqdm(range(options.steps)):
            draw = np.random.default_rng(key(options.seed, step))
            chosen = draw.choice(len(training), options.pairs_per_step, replace=False)
            losses = learner.losses([training[i] for i in chosen])
            (losses.preference + options.spoken * losses.entropy).backward()
            factor = trapezoid(step, steps=options.steps, warmup=WARMUP, decay=DECAY)
            norm = descend([optimizer], options.learning_rate * factor, CLIP)
            done = step + 1
            log_metrics(options.run, {"step": done, **losses.named("train"), "train/grad_norm": float(norm)})
            if done % options.save_every == 0 or done == options.steps or stop:
                log_metrics(options.run, {"step": done, **learner.validated(kept_out)})
                model.save_pretrained(options.run / "model", text)
            if stop:
                break
    return model.eval()


class Losses(NamedTuple):
    """Means over the pairs of a batch."""

    preference: Float[Tensor, ""]
    entropy: Float[Tensor, ""]
    """Of all codes of the preferred takes, nats."""
    right: Float[Tensor, ""]
    """Part of the pairs in which the preferred take has gained more."""

    def named(self, part: str) -> dict[str, float]:
        return {f"{part}/{name}": value.item() for name, value in self._asdict().items()}


class Learner:
    """The model, and what it is measured by."""

    def __init__(self, model: CatTTS, text: TextTokenizer, codes: Codes, options: Preference) -> None:
        self.model, self.text, self.codes, self.options = model, text, codes, options

    @torch.no_grad()
    def remembered(self, pairs: list[Pair]) -> list[Pair]:
        """The same pairs, with what the model says of them now."""
        found = []
        for some in tqdm(self._batches(pairs), desc="remembering"):
            batch = sequences(self.model, self.text, self.codes, some)
            scores, _ = frame_scores(self.model, batch, self.options.codebooks)
            before = scores.unflatten(0, (-1, 2)).tolist()
            found += [pair._replace(before=(a, b)) for pair, (a, b) in zip(some, before, strict=True)]
        return found

    def losses(self, pairs: Sequence[Pair]) -> Losses:
        batch = sequences(self.model, self.text, self.codes, pairs)
        scores, entropy = frame_scores(self.model, batch, self.options.codebooks)
        before = scores.new_tensor([pair.before for pair in pairs])
        better, worse = (self.options.beta * (scores.unflatten(0, (-1, 2)) - before)).unbind(1)
        preference = -F.logsigmoid(better - worse).mean()
        return Losses(preference, entropy, (better > worse).float().mean())

    @torch.no_grad()
    def validated(self, pairs: list[Pair]) -> dict[str, float]:
        """Means over the batches of what is kept out."""
        found = [self.losses(some) for some in self._batches(pairs)]
        means = Losses(*(torch.stack(values).mean() for values in zip(*found, strict=True)))
        return means.named("validation")

    def _batches(self, pairs: list[Pair]) -> list[list[Pair]]:
        size = self.options.pairs_per_step
        return [pairs[i : i + size] for i in range(0, len(pairs), size)]


def ranked(listener: CatASR, contest: Contest, margin: float) -> list[Pair]:
    """The best take and the worst, the second and the last but one, and so on, where they differ enough. A
    take that did not end by itself is `UNHEARD`."""
    takes = [torch.from_numpy(take.copy()) for take in contest.takes]
    usable = len(takes) > 1 and listener.spell(contest.text)
    if not usable:
        return []
    scores = [
        max(score, UNHEARD) if ended else UNHEARD
        for score, ended in zip(heard(listener, takes, contest.text), contest.ended, strict=True)
    ]
    order = sorted(range(len(takes)), key=lambda i: -scores[i])
    pairs = zip(order[: len(order) // 2], order[::-1], strict=False)
    return [Pair(contest, (a, b)) for a, b in pairs if scores[a] - scores[b] >= margin]


def sequences(model: CatTTS, text: TextTokenizer, codes: Codes, pairs: Sequence[Pair]) -> Sequences:
    """Pair i in rows 2i and 2i + 1, the better take first."""
    config, device = model.config, model.text_embedding.weight.device
    rows, targets, places, depth = [], [], [], []
    for contest, takes, _ in pairs:
        prompt = codes[contest.prompt]
        heard_before = torch.tensor(prompt["codes"], dtype=torch.long)[:, : contest.depth]
        pace = speaking_pace(config, text.encode(prompt["text"]), len(heard_before))
        for take in takes:
            spoken = torch.from_numpy(contest.takes[take].astype(np.int64))
            joined = join_texts(prompt["text"], contest.text)
            sequence = example_rows(config, text, joined, torch.cat([heard_before, spoken]))
            wanted = shifted_targets(config, sequence[None])[0]
            wanted[: len(wanted) - len(spoken) - 1] = IGNORED
            if not contest.ended[take]:
                wanted[-1] = IGNORED
            rows.append(sequence[:-1])
            targets.append(wanted)
            places.append(positions(config, sequence[:-1], pace))
            depth.append(contest.depth)
    return Sequences(
        pad_sequence(rows, True).to(device),
        pad_sequence(targets, True, IGNORED).to(device),
        pad_sequence(places, True).to(device),
        torch.tensor(depth, device=device),
    )


def frame_scores(
    model: CatTTS, batch: Sequences, codebooks: int
) -> tuple[Float[Tensor, " b"], Float[Tensor, ""]]:
    """Log-probability a frame of each take, of its decisions and first `codebooks`; and the mean
    cross-entropy of all codes of the takes in even rows."""
    states = model.states(model.embed(batch.rows, batch.depth), positions=batch.positions)
    wanted = batch.targets[..., 0] != IGNORED
    item = wanted.nonzero()[:, 0]
    asked = batch.targets[wanted]
    decision, codes = model.frame_logits(states[wanted], asked)
    goes = (asked[:, 0] == model.config.tokens.audio_end).long()
    of_codes = F.cross_entropy(
        codes.float().flatten(0, 1), asked[:, 1:].flatten(), reduction="none", ignore_index=IGNORED
    )
    of_codes = of_codes.unflatten(0, (len(asked), -1))
    lost = of_codes[:, :codebooks].sum(1) + F.cross_entropy(decision.float(), goes, reduction="none")
    total = lost.new_zeros(len(batch.rows)).index_add(0, item, lost)
    better = (asked[:, 1:] != IGNORED) & (item % 2 == 0)[:, None]
    return -total / wanted.sum(1), of_codes[better].mean()


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prefer(tyro.cli(Preference, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
