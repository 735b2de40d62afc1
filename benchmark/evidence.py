"""Records how a result was made: date, command, commit, versions and processor."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from zoo.store.manifest import SCHEMA
from zoo.training.modes import processor_name


def evidence() -> dict[str, str]:
    """Return schema version, date, command (absolute paths without their folders), commit, versions and processor."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "schema_version": str(SCHEMA),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(Path(word).name if Path(word).is_absolute() else word for word in sys.argv),
        "commit": commit,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "processor": processor_name(),
    }
