"""The command ``python -m classroom.grading``."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from classroom.grading.process import grade
from classroom.grading.returned import find
from classroom.grading.table import as_text, write_csv


def main(arguments: Sequence[str] | None = None) -> None:
    """Grade a folder, print the table, and write it into a file if one is named."""
    parser = argparse.ArgumentParser(
        prog="python -m classroom.grading", description="Grade a folder of returned notebooks."
    )
    parser.add_argument(
        "folder", type=Path, help="has a folder for each student, or notebooks with their names"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table here as well")
    parser.add_argument("--seconds", type=int, default=60, help="a notebook's limit (%(default)s)")
    parser.add_argument("--memory", type=int, default=2000, metavar="MB", help="and its limit (%(default)s)")
    options = parser.parse_args(arguments)
    if min(options.seconds, options.memory) <= 0:
        parser.error("--seconds and --memory must be 1 or more")
    if options.csv and (options.csv.is_dir() or not options.csv.absolute().parent.is_dir()):
        parser.error(f"{options.csv} cannot be written: it is a folder, or its folder does not exist")
    try:
        returned = find(options.folder)
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.reconfigure(encoding="utf-8")  # Windows writes a file in a code page without ✓
    graded = []
    for number, each in enumerate(returned, 1):
        start = time.monotonic()
        try:
            one = grade(each, options.seconds, options.memory)
        except KeyboardInterrupt:
            break
        graded.append(one)
        count = f"{list(one.statuses.values()).count('right')} right{', see its notes' if one.notes else ''}"
        took = f"{time.monotonic() - start:.1f} s"
        print(f"{number} of {len(returned)}  {each.place}  {count}  {took}", flush=True)
    if graded:
        print(f"\n{as_text(graded)}")
    if len(graded) < len(returned):
        sys.exit(f"interrupted: {len(returned) - len(graded)} are not graded, and no file is written")
    if options.csv:
        try:
            write_csv(graded, options.csv)
        except OSError as error:
            sys.exit(f"{options.csv} could not be written: {error}")


if __name__ == "__main__":
    main()
