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
        stop: Raise a ValueError if there is a fault, so that no time is spent on such a training. Otherwise
            nothing ends it, neither a finding nor an audit that fails.
        allow: Codes that do not count for ``stop``, since they are intended.
        batches: How many batches to look at.
    """

    def __init__(
        self, trainer: Trainer, *, stop: bool = False, allow: Collection[str] = (), batches: int = 4
    ) -> None:
        self.trainer, self.stop, self.allow, self.batches = trainer, stop, allow, batches

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Audit; called by the Trainer."""
        try:
            report = audit(self.trainer, batches=self.batches)
        except Exception as error:  # a batch that cannot be read is the training's own affair
            if self.stop:
                raise
            report = f"The audit could not be made: {type(error).__name__}: {error}"
        if self.stop:
            report.raise_for_findings(self.allow)
        if state.is_world_process_zero:
            print(report)
