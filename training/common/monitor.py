"""The part of following a run that all trainings share: metrics.jsonl, and TensorBoard beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from training.common.run import log_metrics

if TYPE_CHECKING:  # an extra, and slow to import
    from torch.utils.tensorboard.writer import SummaryWriter


class RunMonitor:
    """Writer of a run's metrics; each training has a subclass that knows its losses."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.writer: SummaryWriter | None = None

    def open_tensorboard(self, first: int) -> None:
        """Write RUN/tensorboard too, without what a crashed run wrote from a step on.

        Args:
            first: The step at which the run begins or continues.

        Raises:
            ValueError: tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("tensorboard is not installed: pip install tensorboard") from error
        self.writer = SummaryWriter(self.run / "tensorboard", purge_step=first + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line of metrics.jsonl, and the same numbers to TensorBoard where it is open."""
        log_metrics(self.run, {"step": step, **metrics})
        if self.writer is not None:
            for name, value in metrics.items():
                self.writer.add_scalar(name, value, step)
