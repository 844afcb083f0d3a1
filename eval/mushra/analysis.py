"""Ratings of a MUSHRA test, stored line by line, screened and summarized as ITU-R BS.1534-3 requires.

The unit of every interval is the listener: ratings of many recordings by one listener are not
independent. With fewer than two listeners there are means and no intervals.
"""

import itertools
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from eval.common.results import Table
from eval.mushra.trials import MID, REFERENCE

MIN_REFERENCE, MAX_ANCHOR, MAX_SHARE = 90, 90, 0.15
"""Lowest score of the hidden reference, highest of the mid anchor, and the share of trials that may miss."""


@dataclass(frozen=True, kw_only=True)
class Rating:
    """The ratings of one recording by one listener, 0..100 for each condition."""

    listener: str
    trial: str
    seed: int
    order: list[str]
    """The conditions in their order on the page."""
    scores: dict[str, float]
    seconds: float
    """Seconds that the page was open."""


class RatingsFile:
    """A JSONL file to which several listeners add; each line is written whole or not at all.

    Args:
        path: The file; it need not exist.

    Raises:
        ValueError: If it exists and `read_ratings` refuses it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self.ratings = read_ratings(path) if path.exists() else []

    def rated(self, listener: str) -> set[str]:
        """Return the names of the trials that a listener has finished."""
        return {rating.trial for rating in self.ratings if rating.listener == listener}

    def append(self, rating: Rating) -> None:
        """Store a rating; a second one of the same listener and trial (a double click) is ignored."""
        with self._lock:
            if rating.trial in self.rated(rating.listener):
                return
            line = json.dumps(asdict(rating), ensure_ascii=False, allow_nan=False) + "\n"
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(file, line.encode())
                os.fsync(file)
            finally:
                os.close(file)
            self.ratings.append(rating)


def read_ratings(path: Path) -> list[Rating]:
    """Read all ratings of a file.

    Args:
        path: The JSONL file.

    Returns:
        The ratings in the order of the file.

    Raises:
        ValueError: If a line is no rating, rates other conditions than the first or beyond 0 to 100, or rates
            a trial for the second time.
    """
    ratings: dict[tuple[str, str], Rating] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rating = Rating(**json.loads(line))
            scores = {name: float(score) for name, score in rating.scores.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}:{number} is no rating ({error}); delete the line") from error
        first = next(iter(ratings.values()), rating)
        if scores.keys() != first.scores.keys() or not all(0 <= score <= 100 for score in scores.values()):
            raise ValueError(f"{path}:{number} rates other conditions, or beyond 0 to 100; delete the line")
        if (rating.listener, rating.trial) in ratings:
            raise ValueError(f"{path}:{number} rates {rating.trial} a second time; delete one of the two")
        ratings[rating.listener, rating.trial] = rating
    return list(ratings.values())


def screen(ratings: Sequence[Rating]) -> dict[str, str]:
    """Find the listeners to leave out (BS.1534-3, 4.1.2).

    Args:
        ratings: The ratings of all listeners.

    Returns:
        The reason by listener, for those who are left out.
    """
    reasons = {}
    for listener in sorted({rating.listener for rating in ratings}):
        scored = [rating.scores for rating in ratings if rating.listener == listener]
        missed = sum(scores[REFERENCE] < MIN_REFERENCE for scores in scored)
        praised = sum(scores[MID] > MAX_ANCHOR for scores in scored)
        if missed > MAX_SHARE * len(scored):
            reasons[listener] = f"hidden reference below {MIN_REFERENCE} in {missed} of {len(scored)} trials"
        elif praised > MAX_SHARE * len(scored):
            reasons[listener] = f"{MID} above {MAX_ANCHOR} in {praised} of {len(scored)} trials"
    return reasons


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of the mean (Student's t).

    Args:
        values: Independent measurements.

    Returns:
        Its ends; None for fewer than two values.
    """
    from scipy.stats import t

    if len(values) < 2:
        return None
    half = float(t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def analyse(ratings: Sequence[Rating]) -> list[Table]:
    """Compute means by condition, paired differences, and who was left out.

    Args:
        ratings: The ratings of all listeners.

    Returns:
        A table of each.

    Raises:
        ValueError: If no listener is left after screening.
    """
    left_out = screen(ratings)
    listeners = sorted({rating.listener for rating in ratings} - left_out.keys())
    if not listeners:
        raise ValueError("no listener is left after screening: " + "; ".join(left_out.values()))
    valid = [rating for rating in ratings if rating.listener in listeners]
    means = {
        condition: [
            float(np.mean([rating.scores[condition] for rating in valid if rating.listener == listener]))
            for listener in listeners
        ]
        for condition in valid[0].scores
    }
    rows = [
        [name, float(np.mean(values)), *(interval(values) or (None, None))] for name, values in means.items()
    ]
    rows.sort(key=lambda row: -row[1])
    title = (
        f"MUSHRA: {len(listeners)} listeners, {len(valid)} ratings of {len({r.trial for r in valid})} trials"
    )
    head = ["condition", "mean", "95 % from", "to"]
    screened = [[listener, reason] for listener, reason in left_out.items()]
    return [
        Table(title=title, head=head, rows=rows),
        _pairs(means, [row[0] for row in rows]),
        Table(title=f"Left out: {len(left_out)}", head=["listener", "reason"], rows=screened),
    ]


def _pairs(means: dict[str, list[float]], order: Sequence[str]) -> Table:
    """Compare each pair of conditions by a t-test over listeners, p by Holm over all pairs."""
    from scipy.stats import t

    rows: list[list] = []
    for first, second in itertools.combinations(order, 2):
        differences = np.subtract(means[first], means[second])
        error = float(np.std(differences, ddof=1)) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
        mean = float(differences.mean())
        p = float(2 * t.sf(abs(mean) / error, len(differences) - 1)) if error else None
        rows.append([f"{first} - {second}", mean, *(interval(differences.tolist()) or (None, None)), p])
    tested = sorted((row for row in rows if row[4] is not None), key=lambda row: row[4])
    floor = 0.0
    for rank, row in enumerate(tested):
        floor = max(floor, min(1.0, row[4] * (len(tested) - rank)))
        row[4] = floor
    head = ["pair", "difference", "95 % from", "to", "p (t-test, Holm)"]
    return Table(title="Paired comparison", head=head, rows=rows)
