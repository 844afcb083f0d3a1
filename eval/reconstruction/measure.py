"""Take one recording through every codec, and measure every metric of what comes out."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from eval.common.recordings import Recording
from eval.metrics.audio import METRIC_RATE, MetricError, SpeakerEncoder, pesq_nb, pesq_wb, resample, stoi
from eval.metrics.spectral_distances import mel_distance, mel_distance_two, stft_distance
from eval.metrics.wavlm_speaker import WavLMSpeakerEncoder
from eval.reconstruction.codecs import Codec
from eval.reconstruction.tables import metrics_of
from tokenizer import AudioError, load_audio

DISTANCE_RATE = 24_000
"""Where spectral distances are measured, whatever the codec's rate."""
Encoder = SpeakerEncoder | WavLMSpeakerEncoder


def measure_file(
    codecs: Sequence[Codec], encoder: Encoder, recording: Recording, seconds: float | None = None
) -> dict:
    """Measure every metric of one recording, after every codec at every setting.

    Args:
        codecs: The codecs.
        encoder: The speaker encoder of the similarity.
        recording: The audio file and its kind, which decides the metrics.
        seconds: How much of the beginning to measure, in seconds; None for all.

    Returns:
        `records`, one a setting, with the bitrate in bit/s (None if the file cannot be read), the metrics,
        None where they are undefined, and why under `failures`; and `codes`, by codec the codebook size and
        the codes.
    """
    names, settings = metrics_of(recording.kind), [s for codec in codecs for s in codec.settings]

    def load(rate: int) -> np.ndarray:
        audio = load_audio(recording.path, rate).numpy()
        return audio if seconds is None else audio[: round(seconds * rate)]

    try:
        reference, wide = load(METRIC_RATE), load(DISTANCE_RATE)
    except AudioError as error:
        failed = {**dict.fromkeys(names), "failures": dict.fromkeys(names, str(error))}
        about = [{"setting": setting.name, "kind": recording.kind, "bitrate": None} for setting in settings]
        return {"records": [record | failed for record in about], "codes": {}}
    voice = functools.cache(lambda: encoder.embed(reference, METRIC_RATE))
    records, codes = [], {}
    for codec in codecs:
        outputs, found = codec.reconstruct(load(codec.sample_rate))
        if found is not None:
            codes[outputs[0].setting.codec] = [found.codebook_size, found.codes.tolist()]
        for output in outputs:
            degraded = resample(output.audio, codec.sample_rate)
            rebuilt = resample(output.audio, codec.sample_rate, DISTANCE_RATE)
            measures: dict[str, Callable[[], float]] = {
                "similarity": lambda d=degraded: float(voice() @ encoder.embed(d, METRIC_RATE)),
                "stoi": lambda d=degraded: stoi(reference, d, METRIC_RATE),
                "pesq_nb": lambda d=degraded: pesq_nb(reference, d, METRIC_RATE),
                "pesq_wb": lambda d=degraded: pesq_wb(reference, d, METRIC_RATE),
                "mel_distance_two": lambda o=rebuilt: mel_distance_two(wide, o, DISTANCE_RATE),
                "mel_distance": lambda o=rebuilt: mel_distance(wide, o, DISTANCE_RATE),
                "stft_distance": lambda o=rebuilt: stft_distance(wide, o),
            }
            values, failures = {}, {}
            for name in names:
                try:
                    values[name] = measures[name]()
                except MetricError as error:
                    values[name], failures[name] = None, str(error)
            about = {"setting": output.setting.name, "kind": recording.kind, "bitrate": output.bitrate}
            records.append({**about, **values, "failures": failures})
    return {"records": records, "codes": codes}
