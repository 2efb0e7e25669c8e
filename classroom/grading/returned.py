"""What lies in a folder of returned notebooks, whose it is, and of which lesson."""

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

LESSONS = (
    "00_start_here", "01_garbled_output", "02_fix_with_masks", "03_label_misalignment",
    "04_fine_tune_correctly", "05_pad_is_not_eos", "06_packing", "07_audit_your_pipeline", "08_scale_up",
)  # fmt: skip
ARCHIVES = {".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip"}
ENDINGS = re.compile(r"(\.ipynb|\.tar)+$", re.IGNORECASE)
COPY = re.compile(r"^(copy of )+|([ _-]+copy[ _-]?\d*|\s*\(\d+\))+$", re.IGNORECASE)
"""What browsers, desktops, JupyterLab and Colab add to the name of a copy."""


@dataclass(frozen=True)
class Returned:
    """A notebook that a student has returned, or something else that was perhaps meant as one.

    Args:
        path: The file or folder.
        place: The same within the folder of all, as it can be printed.
        student: Whose it is.
        lesson: Of which lesson; empty if its name does not tell.
        problem: Why it cannot be graded; empty for a notebook.
    """

    path: Path
    place: str
    student: str
    lesson: str
    problem: str = ""


def find(folder: Path) -> list[Returned]:
    """Find the notebooks, and what may be meant as one: nothing that a student returned is silently absent.

    Hidden files and folders, such as checkpoints, are not looked at, and links are not followed.

    Raises:
        ValueError: There is no such folder, nothing is in it, or it contains the course itself.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    if Path(__file__).resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder} contains the course; returned notebooks need a folder of their own")
    problems: dict[Path, str] = {}

    def cannot_be_read(error: OSError) -> None:
        problems[Path(error.filename)] = f"the folder cannot be read: {error.strerror}"

    for parent, folders, files in os.walk(folder, onerror=cannot_be_read):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for path in [Path(parent, name) for name in [*links, *files] if not name.startswith(".")]:
            problem = _problem(path)
            if problem is not None:
                problems[path] = problem
    students = {path.relative_to(folder).parts[:1] for path in problems}
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith(".") and (path.name,) not in students:
            problems[path] = "there is no notebook in this folder"
    if not problems:
        raise ValueError(f"there are no notebooks in {folder}")
    return [
        Returned(
            path,
            printable(path.relative_to(folder).as_posix()),
            *student_and_lesson(path, folder),
            problems[path],
        )
        for path in sorted(problems)
    ]


def _problem(path: Path) -> str | None:
    """Say why a file cannot be graded: nothing for a notebook, None if it is not meant as one."""
    suffix = path.suffix.lower()
    if path.is_symlink():
        return "it is a link, and links are not followed"
    if suffix == ".ipynb" and path.is_file():
        return ""
    if suffix in ARCHIVES:
        return "it is an archive: unpack it"
    return "it is no notebook (.ipynb)" if ".ipynb" in path.name.lower() or _lesson(path.name) else None


def student_and_lesson(path: Path, folder: Path) -> tuple[str, str]:
    """Tell from its place and name whose this is, and of which lesson (empty: of none)."""
    name = COPY.sub("", ENDINGS.sub("", path.stem))
    lesson = _lesson(name)
    parts = path.relative_to(folder).parts
    if len(parts) > 1 or path.is_dir():
        student = parts[0]
    else:
        rest = name.split(lesson, 1) if lesson else [name]
        student = " ".join(filter(None, (part.strip(" _-") for part in rest))) or folder.resolve().name
    return unicodedata.normalize("NFC", printable(student)), lesson


def _lesson(name: str) -> str:
    return next((lesson for lesson in LESSONS if lesson in name), "")


def printable(text: str) -> str:
    """Replace what a terminal might obey."""
    return "".join(character if character.isprintable() else "?" for character in text)
