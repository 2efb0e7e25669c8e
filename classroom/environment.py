"""Is this machine ready for the course? ``python -m classroom.environment`` tells, line by line."""

import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

NEEDED_MEMORY = 3_000_000_000  # bytes; a lesson's process stays below


def check() -> bool:
    """Print what is fine, and what to do about what is not.

    Returns:
        True if every check passed. A missing model is not a failure: it is fetched when first used.
    """
    # pip installs the course for no older Python than it needs, so that needs no check.
    checks = [(True, f"Python {sys.version.split()[0]}", ""), *_packages()]
    checks += _machine() if all(fine for fine, _, _ in checks) else []
    for fine, what, advice in checks:
        print(f"ok   {what}" if fine else f"NO   {what}\n     → {advice}")
    ready = all(fine for fine, _, _ in checks)
    print("Ready." if ready else "Not ready yet: see the lines that begin with NO.")
    return ready


def _packages() -> Iterator[tuple[bool, str, str]]:
    """Compare what is installed with the ranges that pyproject.toml gives."""
    try:
        from packaging.requirements import Requirement

        needs = map(Requirement, requires("silent-bugs") or [])
    except (ImportError, PackageNotFoundError):
        advice = "README.md says how, under Start. After `make`, take .venv/bin/python in place of python."
        yield False, f"the course is not installed for {sys.executable}", advice
        return
    for need in needs:
        if need.marker and not need.marker.evaluate({"extra": "course"}):  # of another extra: lab, test
            continue
        try:
            found = version(need.name)
        except PackageNotFoundError:
            found = ""
        fine = bool(found) and need.specifier.contains(found, prereleases=True)
        advice = f'python -m pip install "{need.name}{need.specifier}"'
        yield fine, f"{need.name} {found or 'is not installed'}", advice


def _machine() -> Iterator[tuple[bool, str, str]]:
    """Look at memory, device and model, with packages that are imported only when they are all there."""
    try:
        import psutil

        from tinylib import fetch, models

        free = psutil.virtual_memory().available
        advice = "Close other programs or notebooks (Kernel → Shut Down All Kernels)."
        yield free >= NEEDED_MEMORY, f"memory: {free / 1e9:.1f} GB available, 3 GB needed", advice
        yield True, f"device {models.best_device()}", ""
        name = os.environ.get("TINYLIB_MODEL") or fetch.NAME
        shipped = name == fetch.NAME
        if shipped and not fetch.cached_folder().is_dir():
            yield True, "the model is not here yet: it is fetched when first used (93 MB, once)", ""
        else:
            if shipped:
                fetch.verify(fetch.cached_folder())
            yield True, f"the model is {models.resolve(name).replace(str(Path.home()), '~', 1)}", ""
    except (ImportError, OSError, RuntimeError, ValueError) as error:  # OSError: a library that torch needs
        yield False, "model or packages cannot be loaded", str(error).replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # Windows writes a file in a code page without →
    sys.exit(not check())
