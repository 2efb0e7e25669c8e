"""An audit before the first step of a Trainer's training."""

from collections.abc import Collection
from typing import Any

from transformers import Trainer, TrainerCallback

from batchaudit.auditor import audit


class AuditCallback(TrainerCallback):
    """Audit the first batches of a Trainer before its first step, and print what was found.

    ``trainer.add_callback(AuditCallback(trainer))``, with any Trainer of transformers or TRL.

    Args:
        trainer: The Trainer whose callback it is.
        stop: Raise a ValueError if anything is found, so that no time is spent on such a training.
        allow: Codes that do not count for ``stop``, since they are intended.
        batches: How many batches to look at.
    """

    def __init__(
        self, trainer: Trainer, *, stop: bool = False, allow: Collection[str] = (), batches: int = 4
    ) -> None:
        self.trainer, self.stop, self.allow, self.batches = trainer, stop, allow, batches

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Audit; called by the Trainer."""
        report = audit(self.trainer, batches=self.batches)
        if self.stop:
            report.raise_for_findings(self.allow)
        if state.is_world_process_zero:
            print(report)
