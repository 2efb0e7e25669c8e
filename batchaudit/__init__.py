"""One call that finds the silent bugs of this course in anyone's batch, collator, data loader or Trainer.

>>> from batchaudit import audit
>>> batch = {"input_ids": [[5, 6, 7, 2]], "labels": [[-100, -100, -100, -100]]}
>>> audit(batch).codes
['labels.nothing_in_batch']

What the numbers of a batch show is found in them; the rest by asking the model, or the loss, what it does
when one thing is changed. `FAULTS` lists all that it knows.

| room | what it does |
|---|---|
| `auditor` | the audit: reads each batch, asks the model about the first, tells what was found |
| `callback` | the same before the first step of a Trainer |
| `sources` | takes the first batches out of a loader or a Trainer, and calls what the Trainer calls |
| `batch` | reads anyone's batch: tensors on the CPU, whatever they came as |
| `turns` | finds the turns of a chat in token ids, by what the chat template writes between them |
| `facts` | what the numbers say: what is padding, what is learned, where samples begin |
| `contents` | the faults that the numbers show |
| `behaviour` | the faults that only a model or a loss shows, by changing one thing |
| `checkpoint` | the faults of a model's folder: template, generation config, embeddings that do not agree |
| `chats` | what a file of chats would become |
| `__main__` | the command: `python -m batchaudit --help` |
| `offsets` | two probes for your own code: by how much the data and the loss shift |
| `report` | what was found, for a terminal, a notebook and a test suite |
"""

from typing import TYPE_CHECKING, Any

from batchaudit.auditor import audit
from batchaudit.offsets import data_offset, loss_offset
from batchaudit.report import FAULTS, Finding, Report

if TYPE_CHECKING:
    from batchaudit.callback import AuditCallback

__all__ = ["FAULTS", "AuditCallback", "Finding", "Report", "audit", "data_offset", "loss_offset"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import the callback when it is asked for: with it come accelerate, datasets and what they need."""
    if name == "AuditCallback":
        from batchaudit.callback import AuditCallback

        return AuditCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
