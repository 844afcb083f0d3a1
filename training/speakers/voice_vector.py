"""Train a voice-vector encoder on codes: `python -m training.speakers.voice_vector RUN --codes FOLDER`.

It learns to classify the corpus's speakers by an angular softmax (ArcFace, Deng et al. 2019) and, with
`--teacher`, to predict the embeddings of a published speaker encoder, through a linear map that is discarded
afterwards: a corpus of a few thousand speakers alone says little about speakers who are not in it. Speakers,
crops and depths of a step depend on (seed, step) alone; a run that finds its own state in RUN continues it.
"""

import logging
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import tyro
from accelerate.utils import set_seed
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from cat_tts.model.code_embeddings import init_code_embeddings
from cat_tts.sequences.sequence_dropout import sample_depths
from cat_tts.speakers import voice_vector as presets
from cat_tts.speakers.voice_vector import VoiceVectorEncoder
from tokenizer import AudioTokenizer
from training.common.distributed import optimizer_step, start
from training.common.run import StopRequest, key, log_metrics, resume_state, save_state, wsd_schedule
from training.common.weight_average import WeightAverage, meta_copy
from training.data.code_shards import read_codes, read_info
from training.speakers.clips import SpeakerClips
from training.speakers.teacher_embeddings import read_embeddings
from training.speakers.verification import verify

logger = logging.getLogger(__name__)

PRESETS = {"mini": presets.mini, "tiny": presets.tiny}
METRICS_INTERVAL = 25
"""Steps between two lines of RUN/metrics.jsonl."""


@dataclass(frozen=True, kw_only=True)
class VoiceVectorTraining:
    """One run; the defaults are the recipe of `mini`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run: state, metrics, and the model as RUN/model."""
    codes: Path
    """Folder of shards, see training.prepare."""
    validation: Path | None = None
    """Folder of shards of other speakers, whose equal error rate is logged with each save."""
    teacher: Path | None = None
    """File of the speakers' embeddings by a published encoder, see eval.speaker_embeddings."""
    tokenizer: Path | None = None
    """Folder of the AudioTokenizer of the codes: the code embeddings start from its vectors."""
    preset: str = "mini"
    """Shape of the model: mini or tiny."""
    steps: int = 4000
    clips: int = 64
    """Clips of a step, each of another speaker."""
    min_frames: int = 20
    """Least frames of a step's crops; 20 are 1.6 s."""
    max_frames: int = 60
    """Most frames of a step's crops."""
    margin: float = 0.2
    """Angular margin in radians: so much nearer must a clip be to its own speaker."""
    scale: float = 30.0
    """Scale of the cosines before the softmax."""
    teacher_weight: float = 5.0
    """Weight of the distance to the teacher's embeddings."""
    depth_dropout: float = 0.5
    """Part of the clips that are read at a random depth; the others are at full depth."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 200
    decay: float = 0.4
    """Part of the run over which the learning rate falls to nothing."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.998
    """Decay of the averaged weights, which are the ones that RUN/model holds."""
    save_every: int = 250
    seed: int = 0


class SpeakerHeads(nn.Module):
    """A voice-vector encoder with its two heads, which are used in training only.

    One has a direction for each speaker; the other is a linear map to the teacher's embeddings.
    """

    def __init__(self, encoder: VoiceVectorEncoder, num_speakers: int, teacher_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.speakers = nn.Parameter(torch.randn(num_speakers, encoder.config.vector_dim))
        self.to_teacher = (
            nn.Linear(encoder.config.vector_dim, teacher_dim, bias=False) if teacher_dim else None
        )

    def forward(
        self,
        codes: Int[Tensor, "b t k"],
        frames: Int[Tensor, " b"],
        depth: Int[Tensor, " b"],
        speaker: Int[Tensor, " b"],
        teacher: Float[Tensor, "b e"] | None,
        margin: float,
        scale: float,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Compute both losses.

        Args:
            codes: Codes, padded on the right.
            frames: Number of frames of each clip.
            depth: Number of codebooks of each clip.
            speaker: Number of each clip's speaker.
            teacher: The teacher's embedding of each clip's speaker; None: no teacher.
            margin: Angular margin in radians.
            scale: Scale of the cosines.

        Returns:
            The cross-entropy of the speakers, and one minus the mean cosine to the teacher's embeddings.
        """
        vectors = self.encoder(codes, frames, depth)
        cosines = vectors @ F.normalize(self.speakers, dim=-1).T
        classification = F.cross_entropy(scale * with_margin(cosines, speaker, margin), speaker)
        if self.to_teacher is None or teacher is None:
            return classification, classification.new_zeros(())
        return classification, 1 - F.cosine_similarity(self.to_teacher(vectors), teacher).mean()


def with_margin(
    cosines: Float[Tensor, "b n"], speaker: Int[Tensor, " b"], margin: float
) -> Float[Tensor, "b n"]:
    """Rotate each clip away from its own speaker by a margin (ArcFace, Deng et al. 2019, eq. 3).

    Args:
        cosines: Cosines of clips and speakers.
        speaker: Number of each clip's speaker.
        margin: Radians; a clip is rotated at most to the opposite direction.

    Returns:
        The cosines, smaller where clip and speaker belong together.
    """
    target = cosines.gather(1, speaker[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
    return cosines.scatter(1, speaker[:, None], (target.arccos() + margin).clamp(max=math.pi).cos())


def train(options: VoiceVectorTraining) -> VoiceVectorEncoder:
    """Run or resume the training.

    Returns:
        The averaged model.

    Raises:
        ValueError: Options, codes and teacher do not fit each other.
        FloatingPointError: The loss is not finite.
    """
    accelerator = start(unused=True)
    set_seed(options.seed)
    if options.preset not in PRESETS:
        raise ValueError(f"preset {options.preset!r}: choose one of {', '.join(PRESETS)}")
    info = read_info(options.codes)
    clips = SpeakerClips.read(read_codes(options.codes))
    kept_out = SpeakerClips.read(read_codes(options.validation)) if options.validation else None
    embeddings = read_embeddings(options.teacher, clips.speakers) if options.teacher else None
    embeddings = None if embeddings is None else embeddings.to(accelerator.device)
    config = replace(
        PRESETS[options.preset](), num_codebooks=info.num_codebooks, codebook_size=info.codebook_size
    )
    model = SpeakerHeads(
        VoiceVectorEncoder(config), len(clips.speakers), 0 if embeddings is None else embeddings.shape[1]
    )
    if options.tokenizer is not None:
        init_code_embeddings(
            model.encoder.code_embeddings, AudioTokenizer.from_pretrained(options.tokenizer).quantizer
        )
    options.run.mkdir(parents=True, exist_ok=True)
    template, unwrapped = meta_copy(model.encoder), model
    optimizer = torch.optim.AdamW(
        model.parameters(), options.learning_rate, weight_decay=options.weight_decay
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    average = WeightAverage(template, dict(unwrapped.encoder.named_parameters()), options.ema)
    accelerator.register_for_checkpointing(average)
    first = resume_state(accelerator, options.run)

    progress = tqdm(range(first, options.steps), total=options.steps, initial=first)
    with StopRequest() as stop, progress:
        for step in progress:
            generator = torch.Generator().manual_seed(key(options.seed, step, accelerator.process_index))
            frames = torch.randint(options.min_frames, options.max_frames + 1, (), generator=generator)
            batch = clips.batch(generator, options.clips, int(frames)).to(accelerator.device)
            depth = sample_depths(len(batch.codes), info.num_codebooks, options.depth_dropout, generator)
            depth = depth.to(accelerator.device)
            teacher = None if embeddings is None else embeddings[batch.speaker]
            classification, distance = model(
                batch.codes, batch.frames, depth, batch.speaker, teacher, options.margin, options.scale
            )
            total = classification + options.teacher_weight * distance
            if not total.isfinite():
                raise FloatingPointError(f"step {step}: the loss is {total.item()}; lower the learning rate")
            factor = wsd_schedule(step, steps=options.steps, warmup=options.warmup, decay=options.decay)
            accelerator.backward(total)
            norm = optimizer_step([optimizer], options.learning_rate * factor, options.clip)
            average.update()

            shown = {"speakers": classification.item(), "teacher": distance.item()}
            progress.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)
            done = step + 1
            if done % METRICS_INTERVAL == 0:
                losses = {f"train/loss/{name}": value for name, value in shown.items()}
                log_metrics(options.run, {"step": done, **losses, "train/grad_norm": float(norm)})
            if done % options.save_every == 0 or done == options.steps or stop:
                result = average.module().eval()
                result.save_pretrained(options.run / "model")
                if kept_out is not None:
                    log_metrics(options.run, {"step": done, **validate(result, kept_out)})
                save_state(accelerator, options.run, done)
            if stop:
                logger.warning("stop requested: saved at step %d", done)
                break
    return average.module().eval()


@torch.no_grad()
def validate(encoder: VoiceVectorEncoder, kept_out: SpeakerClips) -> dict[str, float]:
    """Verify speakers who are not in the training, at full depth.

    Args:
        encoder: The model.
        kept_out: Utterances of at least two speakers, of whom one has two.

    Returns:
        `validation/eer`, and mean cosines: `validation/same`, `validation/different`.
    """
    device = next(encoder.parameters()).device
    parts = (
        kept_out.collate([(index, 0)], len(codes)).to(device) for index, codes in enumerate(kept_out.codes)
    )
    vectors = torch.cat([encoder(part.codes, part.frames).cpu() for part in parts])
    names = [kept_out.speakers[number] for number in kept_out.numbers]
    return {f"validation/{name}": value for name, value in verify(vectors, names).items()}


def main(argv: list[str] | None = None) -> None:
    """Run the command line; a mistake of the user ends with one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    try:
        train(tyro.cli(VoiceVectorTraining, args=argv, description=__doc__))
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
