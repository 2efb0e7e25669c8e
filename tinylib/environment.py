"""Is this machine ready for the course? ``python -m tinylib.environment`` tells, line by line."""

import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from tinylib import models

NEEDED_MEMORY = 3_000_000_000  # bytes; a lesson's process stays below


def check() -> bool:
    """Print what is fine, and what to do about what is not.

    Returns:
        True if every check passed. A missing model is not a failure: it is fetched when first used.
    """
    checks = [_python(), *_packages(), _memory(), _model(), (True, f"device {models.best_device()}", "")]
    for fine, what, advice in checks:
        print(f"{'ok  ' if fine else 'NO  '} {what}" + (f"\n     → {advice}" if advice else ""))
    ready = all(fine for fine, _, _ in checks)
    print("Ready." if ready else "Not ready yet: see the lines that begin with NO.")
    return ready


def _python() -> tuple[bool, str, str]:
    fine = sys.version_info >= (3, 11)
    return fine, f"Python {sys.version.split()[0]}", "" if fine else "The course needs Python 3.11 or newer."


def _packages() -> list[tuple[bool, str, str]]:
    """Compare what is installed with the ranges that pyproject.toml gives."""
    checks = []
    for requirement in map(Requirement, requires("tinylib") or []):
        if requirement.marker is not None:  # of an extra (lab, test)
            continue
        advice = f'python -m pip install "{requirement}"'
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            checks.append((False, f"{requirement.name} is not installed", advice))
            continue
        fine = requirement.specifier.contains(found, prereleases=True)
        checks.append((fine, f"{requirement.name} {found}", "" if fine else advice))
    return checks


def _memory() -> tuple[bool, str, str]:
    available = psutil.virtual_memory().available
    fine = available >= NEEDED_MEMORY
    advice = "" if fine else "Close other programs or notebooks (Kernel → Shut Down All Kernels)."
    return fine, f"memory: {available / 1e9:.1f} GB available, 3 GB needed", advice


def _model() -> tuple[bool, str, str]:
    folder = models.cached_folder()
    if folder.is_dir():
        home = Path.home()
        shown = f"~/{folder.relative_to(home).as_posix()}" if folder.is_relative_to(home) else folder
        return True, f"the model is in {shown}", ""
    return True, "the model is not here yet", "It comes by itself when first used (93 MB, once)."


if __name__ == "__main__":
    sys.exit(not check())
