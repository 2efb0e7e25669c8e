"""Write the course's address into all that must know it: ``make publish REPO=owner/name TAG=v1.0``.

The one place of the address is the table ``[tool.course]`` of pyproject.toml. From there it goes into
the first cell and the launch links of every lesson, and into the README's badges; the book reads the
table itself. Without REPO and TAG it writes again what the table says: a new lesson gets its first cell.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
HOST = "https://github.com/"
FIRST_LESSON = "notebooks/00_start_here.ipynb"
# Its code is folded away in Colab and in JupyterLab, and left out of the pages: it is no part of the lesson.
FIRST_CELL_IS = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["remove-cell"]}

# pip is held to what is there: nothing is downgraded, and what the kernel has loaded stays the version
# that it has loaded, so that no restart is needed. So does a local build (torch 2.8.0+cu126), whose
# version cannot stand behind a ">=".
FIRST_CELL = """\
# @title Installs the course on Colab and Kaggle; where it is installed, this cell does nothing.
import os
import subprocess
import sys
from importlib import invalidate_caches, metadata, util

COURSE = "{address}"  # `make publish` writes the address
if util.find_spec("tinylib") is None:
    if not COURSE or ("google.colab" not in sys.modules and "KAGGLE_KERNEL_RUN_TYPE" not in os.environ):
        raise ModuleNotFoundError("The course is not installed here. Its README.md says how, under Start.")
    pip = [sys.executable, "-m", "pip"]
    modules = metadata.packages_distributions()
    loaded = {{name for module in modules.keys() & sys.modules.keys() for name in modules[module]}}
    here = subprocess.check_output([*pip, "list", "--format=freeze"], text=True).split()
    keep = [x if "+" in x or x.split("==")[0] in loaded else x.replace("==", ">=") for x in here]
    install = [*pip, "install", "--quiet", "-c", "/dev/stdin", f"tinylib[lessons,lora] @ {{COURSE}}"]
    if subprocess.run(install, input="\\n".join(keep), text=True).returncode:
        raise RuntimeError("The course was not installed; pip says why, above. Is the network switched on?")
    invalidate_caches()"""


def address(repository: str, tag: str) -> str:
    """Return what pip installs the course from, or nothing for a course that is not published."""
    return f"git+{repository}@{tag}" if repository else ""


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
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
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
    return _replaced(path, r'\[tool\.course\]\nrepository = ".*"\ntag = ".*"\n', table)


def _in_readme(path: Path, repository: str, tag: str) -> str:
    pictures = {
        "Colab": "https://colab.research.google.com/assets/colab-badge.svg",
        "Kaggle": "https://kaggle.com/static/images/open-in-kaggle.svg",
        "Binder": "https://mybinder.org/badge_logo.svg",
    }
    badges = "\n".join(
        f"[![Open lesson 00 in {service}]({pictures[service]})]({link})\n"
        for service, link in (links(repository, tag, FIRST_LESSON) if repository else {}).items()
    )
    block = f"<!-- badges, by make publish -->\n{badges}<!-- end of badges -->"
    return _replaced(path, r"<!-- badges, by make publish -->\n(?s:.*?)<!-- end of badges -->", block)


def _replaced(path: Path, place: str, text: str) -> str:
    """Return the file's text with the one ``place``, a regular expression, replaced."""
    content, found = re.subn(place, lambda _: text, path.read_text(encoding="utf-8"))
    if found != 1:
        raise ValueError(f"{path} has {found} places for the address, not one: {place}")
    return content


def _in_lesson(path: Path, repository: str, tag: str) -> str:
    """Return the lesson with its first cell and its links. Stored outputs stay as they are."""
    notebook = nbformat.read(path, as_version=4)
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
    comment = FIRST_CELL.splitlines()[0]
    if not rest[0].source.startswith(comment):
        rest.insert(0, nbformat.v4.new_code_cell(id="install"))
    rest[0].metadata = FIRST_CELL_IS
    rest[0].source = FIRST_CELL.format(address=address(repository, tag))
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
