"""The direction of the imports."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_each_folder_imports_only_to_its_left() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_client_brings_neither_database_nor_engine() -> None:
    loaded = "import sys, rekam.client; print(*{name.partition('.')[0] for name in sys.modules})"
    names = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout
    assert "grpc" in names.split()
    assert not {"sqlalchemy", "alembic", "numba", "faiss", "onnxruntime", "dlib"} & set(names.split())


def test_the_server_loads_no_device_library() -> None:
    loaded = "import sys, rekam.cli, rekam.server; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, check=True, capture_output=True, text=True)
    names = set(ran.stdout.split())
    assert "grpc" in names
    assert not {"gi", "smartcard", "harvesters", "genicam", "cryptography"} & names
    types = {"devices", "devices.device", "devices.errors", "devices.frame", "devices.position"}
    assert {name for name in names if name.partition(".")[0] == "devices"} <= types
