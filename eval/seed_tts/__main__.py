"""Run Seed-TTS-Eval on this project's models or on any system's files: word errors and speaker similarity.

    python -m eval.seed_tts --meta en/meta.lst --language en --depths 4,8,16,32 --seeds 3 --out RUN
    python -m eval.seed_tts --meta zh/meta.lst --language zh --wavs FOLDER --out RUN
    accelerate launch --config_file training/accelerate/ddp.yaml --num_processes 8 -m eval.seed_tts ...

`--wavs` names a folder of files `<utt>.wav`; without it, a model speaks. The normalisation, the error rates
and their macro mean are the official ones (`eval.metrics.word_errors`); a missing file counts as an error and
is not skipped. The metric models are official where you ask for them (`--asr`, `--sim-checkpoint`).

RUN gets `takes.jsonl` with a line for each utterance; `results.json` and `results.md`; `run.json`, the only
file that depends on the machine and its speed; the audio in `wavs`; and the progress in `work`. The same
command resumes after it was killed, with any number of processes, and ends in the same bytes.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from importlib import metadata
from pathlib import Path

import torch
from accelerate import PartialState
from tqdm import tqdm

from eval.assets import sha256
from eval.common.results import add_assets_option, comma_separated, command_line, positive, write_json
from eval.metrics.backends import RECOGNIZERS, WHISPER_LARGE, load_recognizer, load_speakers
from eval.seed_tts import groups
from eval.seed_tts.groups import Spoken
from eval.seed_tts.report import markdown, summarize
from eval.seed_tts.run_folder import prepare, score_share, stored_scores
from eval.seed_tts.scorer import Scorer, as_record, file_digest
from eval.seed_tts.utterance_list import UtteranceLine, read_list, spoken_prompts
from inference import RetryPolicy, SynthesisOptions, Synthesizer
from inference.cli.renamed_options import current_options
from inference.longform.segment_cache import model_key
from inference.synthesis.loading import DEFAULT_MODEL
from tokenizer.io.checkpoint import write_text

SOFTWARE = ("jiwer", "rapidfuzz", "zhon", "zhconv", "whisper-normalizer", "wetext", "torch", "transformers")
SOFTWARE += ("faster-whisper", "ctranslate2", "funasr")


class SpeakingModel:
    """A model that synthesizes a list at some depths and seeds.

    Args:
        options: The options of the command line.
        lines: The list.
        device: The device of the model.

    Raises:
        ValueError: If a prompt has no transcript, or a depth or the adaptation steps are out of range.
    """

    def __init__(self, options: argparse.Namespace, lines: list[UtteranceLine], device: str) -> None:
        spoken_prompts(lines)
        synthesizer = Synthesizer.from_pretrained(options.model, device=device)
        max_depth = synthesizer.max_depth
        depths = tuple(dict.fromkeys(options.depths or (max_depth,)))
        if not all(1 <= depth <= max_depth for depth in depths):
            raise ValueError(f"--depths {','.join(map(str, depths))}: this model has depths 1 to {max_depth}")
        self.slots, self.synthesizer, self.options = options.slots, synthesizer, options.synthesis
        self.groups = groups.plan(lines, depths, options.seeds, options.slots)
        self.bitrates = {depth: synthesizer.tokenizer.config.bitrate(depth) for depth in depths}
        self.system = {
            "name": Path(options.model or DEFAULT_MODEL).name,
            "sha256": model_key(synthesizer),
            "depths": list(depths),
            "seeds": options.seeds,
            "slots": options.slots,
        }
        changed = changes(options.synthesis)
        if changed:
            named = ", ".join(f"{name} {value}" for name, value in changed.items())
            self.system |= {"name": f"{self.system['name']}, {named}", **changed}

    def speak(self, out: Path, state: PartialState) -> None:
        """Synthesize this process's share of the groups that are not complete, into the run's folder."""
        share = self.groups[state.process_index :: state.num_processes]
        for group in tqdm(share, unit="group", disable=not state.is_main_process):
            if not groups.is_complete(group, out):
                groups.synthesize_group(self.synthesizer, group, out, self.slots, self.options)

    def spoken(self, out: Path) -> list[Spoken]:
        """Return all outputs in the run's folder, once every process has synthesized its share."""
        return [take for group in self.groups for take in groups.outputs(group, out)]


def run(
    options: argparse.Namespace, lines: list[UtteranceLine], scorer: Scorer, state: PartialState
) -> dict | None:
    """Run the whole benchmark; the main process writes the results and returns them, others return None.

    Args:
        options: The options of the command line.
        lines: The list.
        scorer: What scores the utterances.
        state: The processes.

    Raises:
        ValueError: If the folder holds another run, the model cannot serve the list, or files are missing
            under `--strict`.
    """
    model = None if options.wavs else SpeakingModel(options, lines, device_of(state))
    identity = describe(
        options, lines, scorer, model.system if model else {"name": options.wavs.resolve().name}
    )
    if state.is_main_process:
        prepare(options.out, identity)
    state.wait_for_everyone()
    if model:
        model.speak(options.out, state)
        state.wait_for_everyone()
        spoken = model.spoken(options.out)
    else:
        spoken = [Spoken(line=line, wav=options.wavs / f"{line.utt}.wav") for line in lines]
    if options.strict:
        refuse([take.line.utt for take in spoken if not take.wav.is_file()], len(spoken))
    score_share(scorer, spoken, options.out, state)
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    stored = stored_scores(spoken, options.out)
    scores = [stored[number] for number in range(len(spoken))]
    if options.strict:
        refuse([score.utt for score in scores if score.missing], len(scores))
    results = identity | {"rows": summarize(scores, model.bitrates if model else {})}
    records = [json.dumps(as_record(score), ensure_ascii=False) + "\n" for score in scores]
    write_text(options.out / "takes.jsonl", "".join(records))
    write_text(options.out / "results.md", markdown([results]) + "\n")
    write_json(options.out / "results.json", results)
    rtf = groups.speed(model.groups, options.out) if model else None
    machine = {
        "processes": state.num_processes,
        "threads": torch.get_num_threads(),
        "device": device_of(state),
    }
    write_json(options.out / "run.json", {"command": options.command, **machine, "rtf": rtf})
    return results


def describe(options: argparse.Namespace, lines: list[UtteranceLine], scorer: Scorer, system: dict) -> dict:
    """Return all that decides the results: list, system, metric models and versions of software."""
    prompts = hashlib.sha256()
    for line in lines:
        prompts.update(f"{line.prompt_audio and file_digest(line.prompt_audio)}\n".encode())
    models = {"recognizer": scorer.recognizer, "similarity": scorer.speakers}
    return {
        "benchmark": "Seed-TTS-Eval",
        "language": options.language,
        "meta": {
            "name": options.meta.name,
            "lines": len(lines),
            "sha256": sha256(options.meta),
            "prompts_sha256": prompts.hexdigest(),
        },
        "system": system,
        "metrics": {
            part: {"name": model.name, "official": model.official, "sha256": model.files}
            for part, model in models.items()
        },
        "software": {name: version for name in SOFTWARE if (version := _version(name))},
    }


def changes(options: SynthesisOptions) -> dict[str, object]:
    """Return the options of a run that are not the default."""
    chosen = {**asdict(options), **asdict(options.policy)}
    default = {**asdict(SynthesisOptions()), **asdict(RetryPolicy())}
    return {name: value for name, value in chosen.items() if name != "policy" and value != default[name]}


def refuse(missing: Sequence[str], total: int) -> None:
    """Raise ValueError, with the first names, if any of `total` takes are missing."""
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ValueError(f"--strict: {len(missing)} of {total} takes are missing ({some}); make them first")


def join_processes() -> PartialState:
    """Join the processes that `accelerate launch` started, if any; one that is done early waits for days.

    Raises:
        ValueError: If the launcher was asked for several processes and started one.
    """
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=10))
    if state.num_processes == 1 and {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys():
        raise ValueError(
            "accelerate was asked for several processes and started one, as its --cpu does without MPI; "
            "launch with --config_file training/accelerate/ddp.yaml, which works on CPUs too"
        )
    return state


def device_of(state: PartialState) -> str:
    """Return the device of this process; "cpu" for "cpu:0".

    Weights would be copied to "cpu:0", and their addresses decide the last bits of what they compute.
    """
    assert state.device is not None
    return "cpu" if state.device.type == "cpu" else str(state.device)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the options, and check them as far as that is possible without a look at any file."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.seed_tts", description="Word errors and similarity."
    )
    parser.add_argument("--meta", type=Path, required=True, help="list utt|prompt_text|prompt_wav|text")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    system = parser.add_mutually_exclusive_group()
    system.add_argument("--model", help="folder or hub id (default: the model of this repository)")
    system.add_argument("--wavs", type=Path, help="score the files <utt>.wav of this folder instead")
    parser.add_argument("--depths", type=comma_separated, help="such as 4,8,16,32 (default: all codebooks)")
    parser.add_argument("--seeds", type=positive, help="how many takes of each line (default: 1)")
    parser.add_argument("--best-of", type=positive, help="candidates of each attempt (default: 1)")
    parser.add_argument("--retries", type=int, help="further attempts where a result is not acceptable")
    parser.add_argument("--no-adapt-decoder", action="store_true", help="decode as the tokenizer does")
    parser.add_argument("--adapt-steps", type=int, help="train the model on each prompt first, so many steps")
    parser.add_argument("--slots", type=positive, help="takes at once, in each process (default: 8)")
    parser.add_argument("--limit", type=positive, help="only the first so many lines")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, new or to be resumed")
    parser.add_argument("--strict", action="store_true", help="fail if a take is missing")
    parser.add_argument("--asr", choices=RECOGNIZERS, default="whisper-base", help="default: whisper-base")
    parser.add_argument(
        "--asr-model", help=f"for whisper-large-v3: folder or hub id (default: {WHISPER_LARGE})"
    )
    parser.add_argument("--sim-checkpoint", type=Path, help="wavlm_large_finetune.pth (default: CAM++)")
    add_assets_option(parser)
    options = parser.parse_args(current_options(argv, {"--tune": "--adapt-steps"}))
    chosen = (
        options.depths,
        options.seeds,
        options.slots,
        options.best_of,
        options.retries,
        options.adapt_steps,
    )
    if options.wavs and (options.no_adapt_decoder or any(value is not None for value in chosen)):
        parser.error("options of a model are not for --wavs")
    if options.asr_model and options.asr != "whisper-large-v3":
        parser.error("--asr-model goes with --asr whisper-large-v3")
    options.seeds, options.slots = options.seeds or 1, options.slots or 8
    try:
        policy = {"candidates": options.best_of, "retries": options.retries}
        options.synthesis = SynthesisOptions(
            policy=RetryPolicy(**{name: value for name, value in policy.items() if value is not None}),
            adapt_decoder=not options.no_adapt_decoder,
            adapt_steps=options.adapt_steps or 0,
        ).checked()
    except ValueError as error:
        parser.error(str(error))
    options.command = command_line("eval.seed_tts", argv)
    return options


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when it ran, 2 with one line on the standard error stream when it could not."""
    options = parse(sys.argv[1:] if argv is None else argv)
    try:
        state = join_processes()
        lines = read_list(options.meta, options.language)[: options.limit]
        if options.wavs and not options.wavs.is_dir():
            raise ValueError(f"--wavs {options.wavs}: there is no such folder; name one of files <utt>.wav")
        recognizer = load_recognizer(
            options.asr, options.language, options.assets, options.asr_model, device_of(state)
        )
        scorer = Scorer(recognizer, load_speakers(options.sim_checkpoint, options.assets), options.language)
        results = run(options, lines, scorer, state)
    except (ValueError, OSError) as error:
        print(f"eval.seed_tts: {error}", file=sys.stderr)
        return 2
    if results is not None:
        print(markdown([results]))
    return 0


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
