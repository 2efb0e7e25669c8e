"""From chats to the examples that a training takes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from datasets.arrow_writer import ArrowWriter
from pyarrow import BufferOutputStream
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from tinylib.labels import TooLong, training_example


def prepare(
    tokenizer: PreTrainedTokenizerBase,
    chats: Any,
    max_length: int | None = None,
    folder: Path | None = None,
    name: str = "chat",
) -> Dataset:
    """Turn chats into examples: ``input_ids`` and ``labels``, lists of the same length, not shifted.

    Args:
        tokenizer: With the model's chat template.
        chats: A data set of ``datasets``, a DataFrame, or any rows that `tinylib.messages.as_messages` reads.
        max_length: The most tokens of a chat; what does not fit is left out or shortened, and told.
        folder: Where the examples are written, to ``<name>s.arrow``: memory does not grow with the data;
            default: they are in memory.
        name: What messages call one of these chats.

    Raises:
        ValueError: A chat is unusable (with its number), or none is left.
    """
    if isinstance(chats, str | DatasetDict) or not isinstance(chats, Iterable):
        kinds = "a data set of datasets (one split of it), a DataFrame, or a list of chats"
        raise ValueError(f"Chats are {kinds}, not {chats!r:.80}.")
    if hasattr(chats, "iloc"):  # pandas fills with NaN what a row has not
        filled = chats.astype(object).where(chats.notna(), None)
        chats = filled.to_dict("records") if hasattr(chats, "columns") else filled.tolist()
    chats = [chats] if isinstance(chats, Mapping) else chats
    logging.warning_once.cache_clear()  # what these chats have and is not used is told again
    file = str(folder / f"{name}s.arrow") if folder else None
    writer = ArrowWriter(path=file, stream=None if file else BufferOutputStream())
    too_long, shortened, kept = [], [], 0
    for i, chat in enumerate(tqdm(chats, desc="preparing", unit="chat", leave=False, delay=2)):
        try:
            example = training_example(tokenizer, chat, max_length)
        except TooLong:
            too_long.append(i)
        except ValueError as error:
            raise ValueError(f"{name.capitalize()} {i}: {error}") from error
        else:
            if example.pop("dropped"):
                shortened.append(i)
            writer.write(example)
            kept += 1
    for which, what in [(too_long, "left out: their first answer does not fit"), (shortened, "shortened")]:
        if which:
            numbers = ", ".join(map(str, which[:10])) + (", …" if len(which) > 10 else "")
            print(f"{len(which)} {name}s {what} (max_length={max_length}; numbers {numbers})")
    if not kept:
        raise ValueError(f"There is no {name}: the data set is empty, or none fits into max_length.")
    writer.finalize(close_stream=file is not None)
    return Dataset.from_file(file) if file else Dataset.from_buffer(writer.stream.getvalue())
