"""Fixtures shared by every test."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def development_data() -> Path:
    """The folder of real development images; a test that needs it fails where it is missing."""
    folder = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "fingerprint").is_dir():
        pytest.fail(f"development images not found in {folder}: set REKAM_DATA to their folder")
    return folder
