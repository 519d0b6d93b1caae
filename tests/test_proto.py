"""The contract: stubs match their sources, the sources pass the linter, proto/ is no package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def test_stubs_match_sources(tmp_path: Path) -> None:
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "proto").rglob("*.proto"))
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", "proto", *outputs, *sources],
        cwd=ROOT,
        check=True,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
    )
    committed = {path.name for path in (ROOT / "rekam/v1").glob("*_pb2*")}
    generated = {path.name for path in (tmp_path / "rekam/v1").iterdir()}
    assert committed == generated
    for name in sorted(generated):
        same = (tmp_path / "rekam/v1" / name).read_text() == (ROOT / "rekam/v1" / name).read_text()
        assert same, f"rekam/v1/{name} differs from proto/: run `make proto`"


def test_sources_pass_the_linter() -> None:
    lint = subprocess.run([BIN / "buf", "lint"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert lint.returncode == 0, lint.stdout


def test_proto_is_no_package() -> None:
    if list((ROOT / "proto").rglob("__init__.py")):
        pytest.fail("proto/ must hold sources only: a package named proto would shadow proto-plus")
