"""Write the course's address into all that must know it: ``make publish REPO=owner/name TAG=v1.0``.

The one place of the address is the table ``[tool.course]`` of pyproject.toml. From there it goes into
the first cell and the launch links of every lesson, and into the README's badges and its line that
installs the auditor; the book reads the table itself. Without REPO and TAG it writes again what the table
says: a new lesson gets its first cell.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

import nbformat
from lessons import EVERY, ROOT, read

HOST = "https://github.com/"
FIRST_LESSON = "notebooks/00_start_here.ipynb"
# Its code is folded away in Colab and in JupyterLab, and left out of the book: it is no part of the lesson.
FIRST_CELL_IS = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["remove-cell"]}

# Where somebody wanted the auditor alone, the course's own packages are there too, but not what its extra
# brings: gguf, for one.
FIRST_CELL = """\
# @title Where the course is installed, this cell does nothing.
from importlib.util import find_spec

if not (find_spec("classroom") and find_spec("gguf")):
    raise ModuleNotFoundError("Not installed: see README.md, Start.")"""

# pip may put something newer in the place of what is there, and nothing older. A local build (torch
# 2.8.0+cu126) stays as it is, since its version cannot stand behind a ">=".
PUBLISHED_FIRST_CELL = """\
# @title Installs the course on Colab and Kaggle; does nothing where it is.
import os
from importlib.util import find_spec

if not (find_spec("classroom") and find_spec("gguf")):
    hosted = {{"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"}}
    if not os.environ.keys() & hosted:
        raise ModuleNotFoundError("Not installed: see README.md, Start.")
    !pip list --format freeze | sed "/+/!s/==/>=/" > /tmp/here.txt
    %pip install --quiet -c /tmp/here.txt "silent-bugs[course] @ {address}\""""


def pip_address(repository: str, tag: str) -> str:
    """Return what pip installs the published course from."""
    return f"git+{repository}@{tag}"


def links(repository: str, tag: str, lesson: str) -> dict[str, str]:
    """Return where each service opens ``lesson``, a path in the repository."""
    file = f"{repository}/blob/{tag}/{lesson}"
    name = repository.removeprefix(HOST)
    return {
        "Colab": f"https://colab.research.google.com/github/{file.removeprefix(HOST)}",
        "Kaggle": f"https://kaggle.com/kernels/welcome?src={file}",
        "Binder": f"https://mybinder.org/v2/gh/{name}/{tag}?urlpath=lab/tree/{lesson}",
    }


def read_address(root: Path = ROOT) -> tuple[str, str]:
    """Return the repository's address and the tag that pyproject.toml has; both are empty at first."""
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["course"]
    return table["repository"], table["tag"]


def publish(root: Path, repository: str, tag: str) -> list[Path]:
    """Write an address into pyproject.toml, the README and every lesson under ``root``.

    All texts are made before the first is written, and writing the same address again changes nothing.

    Args:
        root: The folder of the course.
        repository: ``https://github.com/owner/name``, or nothing for a course without an address.
        tag: The tag of the version that the lessons install.

    Returns:
        The files that changed.

    Raises:
        ValueError: The address is not of this form, or a file has no place for it.
    """
    if repository or tag:
        _check(repository, tag)
    texts = {
        root / "pyproject.toml": _in_table(root / "pyproject.toml", repository, tag),
        root / "README.md": _in_readme(root / "README.md", repository, tag),
    }
    for lesson in EVERY:
        path = root / lesson.relative_to(ROOT)
        texts[path] = _in_lesson(path, repository, tag)
    changed = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        path.write_text(texts[path], encoding="utf-8", newline="\n")
    return changed


def _check(repository: str, tag: str) -> None:
    if not re.fullmatch(rf"{HOST}[A-Za-z0-9-]+/[\w.-]+(?<!\.git)", repository, re.ASCII):
        raise ValueError(f"REPO must be of the form owner/name; {repository.removeprefix(HOST)!r} is not.")
    if not re.fullmatch(r"\w([\w-]|\.(?!\.))*(?<!\.)(?<!\.lock)", tag, re.ASCII):
        raise ValueError(f"TAG must be a name like v1.0; {tag!r} is not.")


def _in_table(path: Path, repository: str, tag: str) -> str:
    table = f'[tool.course]\nrepository = "{repository}"\ntag = "{tag}"\n'
    text = path.read_text(encoding="utf-8")
    return _replaced(path, text, r'\[tool\.course\]\nrepository = ".*"\ntag = ".*"\n', table)


def _in_readme(path: Path, repository: str, tag: str) -> str:
    pictures = {
        "Colab": "https://colab.research.google.com/assets/colab-badge.svg",
        "Kaggle": "https://kaggle.com/static/images/open-in-kaggle.svg",
        "Binder": "https://mybinder.org/badge_logo.svg",
    }
    badges = [
        f"[![Open lesson 00 in {service}]({pictures[service]})]({link})\n"
        for service, link in (links(repository, tag, FIRST_LESSON) if repository else {}).items()
    ]
    source = pip_address(repository, tag) if repository else "."
    blocks = {"badges": "\n".join(badges), "install": f"```bash\npython -m pip install {source}\n```\n"}
    text = path.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin, end = f"<!-- {name}, by make publish -->\n", f"<!-- end of {name} -->"
        text = _replaced(path, text, f"{begin}(?s:.*?){end}", begin + block + end)
    return text


def _replaced(path: Path, text: str, place: str, new: str) -> str:
    """Return the ``text`` of a file with the one ``place`` in it, a regular expression, replaced."""
    content, found = re.subn(place, lambda _: new, text)
    if found != 1:
        raise ValueError(f"{path} has {found} places for the address, not one: {place}")
    return content


def _in_lesson(path: Path, repository: str, tag: str) -> str:
    """Return the lesson with its first cell and its links. Stored outputs stay as they are."""
    notebook = read(path)
    title, *rest = notebook.cells
    shown = links(repository, tag, f"notebooks/{path.name}") if repository else {}
    line = " · ".join(f"[{service}]({link})" for service, link in shown.items())
    source = re.sub(r"\n\nOpen in \[Colab\].*", "", title.source)
    title.source, found = re.subn(
        r"^\*\d+ minutes · .+\*$",
        lambda aim: aim[0] + (f"\n\nOpen in {line}" if line else ""),
        source,
        flags=re.MULTILINE,
    )
    if found != 1:
        raise ValueError(f"{path} has no line with its minutes, under which the links go.")
    if rest[0].id != "install":
        rest.insert(0, nbformat.v4.new_code_cell(id="install"))
    rest[0].metadata = FIRST_CELL_IS
    rest[0].source = FIRST_CELL
    if repository:
        rest[0].source = PUBLISHED_FIRST_CELL.format(address=pip_address(repository, tag))
    notebook.cells = [title, *rest]
    for count, cell in enumerate((cell for cell in rest if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    return nbformat.writes(notebook) + "\n"


def main() -> None:
    """Publish at the address given, or write again the one that pyproject.toml has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("where", nargs="*", metavar="REPO TAG", help="owner/name on GitHub, and a tag")
    where = parser.parse_args().where
    if len(where) not in (0, 2):
        sys.exit("Give both or none: make publish REPO=owner/name TAG=v1.0")
    repository, tag = (HOST + where[0], where[1]) if where else read_address()
    try:
        changed = publish(ROOT, repository, tag)
    except ValueError as error:
        sys.exit(f"{error} Nothing was written.")
    for path in changed:
        print(f"wrote {path.relative_to(ROOT).as_posix()}")
    if not repository:
        print("The course has no address yet: make publish REPO=owner/name TAG=v1.0")
    elif changed:
        print(f"Now: git commit -am 'Publish {tag}' && git tag {tag} && git push origin HEAD {tag}")


if __name__ == "__main__":
    main()
