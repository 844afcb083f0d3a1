"""Find faults of clips by reading their audio, out of files or archives."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import Float

from tokenizer.io.audio import AudioError, read_samples
from training.data.archives import ClipReader, MissingAudio
from training.data.languages import contradicts, guess_language
from training.data.manifest import Clip

FAULTS = {
    "missing audio": "there is no such file, or no such member of the archive",
    "broken audio": "it cannot be read as sound, or holds no finite samples",
    "silence": "no sample is above -60 dBFS",
    "clipping": "over 0.1 % of the samples stand at full scale, or a hundred of them in a row",
    "duration": "the stated duration is off by over 0.1 s and 2 %",
    "no text": "the text is empty",
    "speaking rate": "nobody speaks so many characters a second (Han characters: 0.5 to 12, others: 2 to 30)",
    "language": "the label says zh and no Han character is there, or another language and most are Han",
    "duplicate": "an earlier clip holds the same samples",
}
"""Names of the faults, and what each means."""
SPEAKING_RATES = {"zh": (0.5, 12.0), "en": (2.0, 30.0)}
"""Least and most characters a second, by script; speech has about 4 and 14."""
MIN_BANDWIDTH = 8500.0
"""Hz; audio without energy above it is counted as narrow: recorded at 16 kHz, or no better than that."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The faults and measurements of one clip."""

    faults: dict[str, str]
    """Name of a fault (see `FAULTS`) to a detail."""
    seconds: float = 0.0
    """Measured duration; 0 where the audio cannot be read."""
    sample_rate: int = 0
    bandwidth: float = 0.0
    """Hz."""
    digest: bytes = b""
    """Hash of the samples, which is equal for equal samples in other files."""


def examine(clips: Sequence[Clip], reader: ClipReader) -> Iterator[tuple[int, Finding]]:
    """Check clips, in the order in which they are stored.

    Duplicates are left to the caller, who sees all clips.

    Args:
        clips: which clips to check.
        reader: reads their bytes.

    Yields:
        The index of a clip in `clips`, and its finding.
    """
    for i, data in reader.read(clips):
        clip, faults = clips[i], {}
        if not clip.text:
            faults["no text"] = ""
        elif contradicts(clip.language, clip.text):
            faults["language"] = f"{clip.language}: {clip.text[:40]}"
        try:
            if isinstance(data, AudioError):
                raise data
            samples, rate = read_samples(BytesIO(data), clip.name)
            if not samples.size:
                raise AudioError(f"{clip.name}: holds no samples")
        except AudioError as error:
            faults["missing audio" if isinstance(error, MissingAudio) else "broken audio"] = str(error)
            yield i, Finding(faults=faults)
            continue
        yield i, _examine_samples(clip, samples, rate, faults)


def _examine_samples(
    clip: Clip, samples: Float[np.ndarray, " s"], rate: int, faults: dict[str, str]
) -> Finding:
    seconds, peak = len(samples) / rate, float(np.abs(samples).max())
    if abs(seconds - clip.duration) > max(0.1, 0.02 * seconds):
        faults["duration"] = f"{seconds:.2f} s, not {clip.duration:.2f} s"
    if peak < 1e-3:
        faults["silence"] = f"peak {peak:.1e}"
    if share := clipped_share(samples):
        faults["clipping"] = f"{100 * share:.2f} % of the samples"
    if clip.text and clip.task == "asr":
        speaking_rate = sum(letter.isalnum() for letter in clip.text) / seconds
        slowest, fastest = SPEAKING_RATES[guess_language(clip.text)]
        if not slowest <= speaking_rate <= fastest:
            faults["speaking rate"] = f"{speaking_rate:.1f} characters/s"
    pcm = np.round(samples * 32768).astype("<i4").tobytes()
    return Finding(
        faults=faults,
        seconds=seconds,
        sample_rate=rate,
        bandwidth=bandwidth(samples, rate),
        digest=hashlib.blake2b(pcm, digest_size=8).digest(),
    )


def clipped_share(samples: Float[np.ndarray, " s"]) -> float:
    """Return which part of the samples [s] is at full scale.

    It is 0 where at most 0.1 % are, and fewer than a hundred in a row: a loud recording has as many.
    """
    full = np.abs(samples) >= 0.999
    share = float(full.mean())
    changes = np.flatnonzero(np.diff(full.astype(np.int8), prepend=0, append=0))
    longest = int(np.diff(changes)[::2].max(initial=0))
    return share if share > 1e-3 or longest >= 100 else 0.0


def bandwidth(samples: Float[np.ndarray, " s"], rate: int) -> float:
    """Return the frequency up to which a signal has energy, in Hz.

    That is the last bin at which the mean spectrum exceeds its peak minus 60 dB. A file of 48 kHz that was
    resampled from 16 kHz has 8 kHz.

    Args:
        samples: the signal [s].
        rate: its sample rate in Hz.
    """
    size = 1024
    padded = np.pad(samples, (0, max(0, size - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 2]
    power = np.square(np.abs(np.fft.rfft(frames[:200] * np.hanning(size), axis=1))).mean(0)
    loud = np.flatnonzero(power > power.max() * 1e-6)
    return float(loud[-1] * rate / size) if power.max() > 0 else 0.0
