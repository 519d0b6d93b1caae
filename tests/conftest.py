"""Fixtures shared by every test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from benchmarks.milvus_server import MilvusServer, MilvusUnavailable
from tests.places import Place, PostgresServer, postgres_server

ROOT = Path(__file__).resolve().parent.parent

# A slow machine, or the first call of a compiled function, is no failure.
settings.register_profile("rekam", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rekam")


@pytest.fixture(scope="session")
def development_data() -> Path:
    """The folder of real development images; a test that needs it fails where it is missing."""
    folder = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "fingerprint").is_dir():
        pytest.fail(f"development images not found in {folder}: set REKAM_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that runs as long as the tests do."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """A Milvus server that runs as long as the tests do; half a second is the oldest that its readers see."""
    server = MilvusServer(tmp_path_factory.mktemp("milvus"), **{"common.gracefulTime": "500"})
    try:
        server.start()
    except MilvusUnavailable as unavailable:
        pytest.fail(str(unavailable))
    yield server
    server.kill()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Place]:
    """Gives places where a store may lie, with nothing in it; in PostgreSQL one at a time."""
    if request.param == "sqlite":
        return lambda: Place(tmp_path_factory.mktemp("place") / "data", None)
    server: PostgresServer = request.getfixturevalue("postgres")
    return lambda: Place(tmp_path_factory.mktemp("place") / "data", server.emptied())


@pytest.fixture
def place(places: Callable[[], Place]) -> Place:
    """Where a store may lie: each of them in turn."""
    return places()


@pytest.fixture
def bare_place(request: pytest.FixtureRequest, place: Place) -> Iterator[Place]:
    """The same, without tables yet."""
    if place.url is None:
        yield place
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database() as url:
        yield Place(place.folder, url)
