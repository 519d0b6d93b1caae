"""The settings of the service; `docs/configuration.md` describes them for operators."""

import ipaddress
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from capture.face.onnx_embedder import ChannelOrder, Engine, OnnxEmbedderSettings
from capture.fingerprint.template import ExtractorChoice
from capture.sample import Modality
from rekam.errors import InvalidSettings

_MIB = 2**20


class GalleryKind(StrEnum):
    """Where the codes are that searches scan."""

    EMBEDDED = "embedded"
    MILVUS = "milvus"


_ONNX = OnnxEmbedderSettings(path=Path())


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


class Settings(BaseSettings):
    """Every setting, from keyword arguments, else from `REKAM_<NAME>` in the environment, else the default.

    Read them with `load_settings`, which wraps pydantic's errors. Frozen once read.
    """

    model_config = SettingsConfigDict(env_prefix="REKAM_", extra="forbid", frozen=True)

    data_dir: Path = Field(
        default=Path("rekam-data"),
        description="Folder of the database and the search index. Only one process may use it at a time.",
    )
    database_url: str | None = Field(
        default=None,
        repr=False,  # a password may be in it
        description="PostgreSQL database of the records, as postgresql://USER:PASSWORD@HOST/DATABASE; "
        "SQLite in the data folder where not set.",
    )
    gallery: GalleryKind = Field(
        default=GalleryKind.EMBEDDED,
        description="Where the codes are that searches scan: in this process, or on a Milvus server.",
    )
    milvus_uri: str | None = Field(
        default=None,
        description="The Milvus server, as http://HOST:19530, or https where it has TLS; "
        "needed where gallery is milvus.",
    )
    milvus_token: str | None = Field(
        default=None,
        repr=False,  # a password is in it
        description="User and password at the Milvus server, as USER:PASSWORD; none are sent where not set.",
    )
    milvus_prefix: str = Field(
        default="rekam",
        pattern="^[A-Za-z_][A-Za-z0-9_]{0,63}$",
        description="What the names of the collections in Milvus begin with: another one for each store.",
    )
    backup_dir: Path | None = Field(
        default=None,
        description="Folder in which `rekam backup` makes the backups of the running service, "
        "on its own disk; none are made where not set.",
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address the service listens on: an IP address or localhost. "
        "Anything but loopback needs allow_remote.",
    )
    allow_remote: bool = Field(
        default=False,
        description="Allow listening beyond this machine. There is no TLS and no login yet: "
        "only behind something that has both.",
    )
    port: int = Field(
        default=50151, ge=0, le=65535, description="TCP port the service listens on; 0 takes a free one."
    )
    keep_images: bool = Field(
        default=False,
        description="Keep the images as they came in beside their templates, "
        "so that a better extractor can be run on them later. Signatures are kept either way.",
    )
    extractor: ExtractorChoice = Field(
        default=ExtractorChoice.ACCURATE,
        description="What turns images into templates where a request does not say: "
        "the accurate extractor, or the fast one.",
    )
    required_modalities: Annotated[tuple[Modality, ...], NoDecode] = Field(
        default=(Modality.FINGERPRINT,),
        min_length=1,
        description="Modalities an encounter must present or declare missing, separated by commas. "
        "An e-KTP office sets fingerprint,iris,face.",
    )
    face_embedder_path: Path | None = Field(
        default=None,
        description="ONNX file of a face network of your own; dlib's where not set. "
        "Checked at start: a wrong one stops it.",
    )
    face_embedder_size: Annotated[tuple[int, int], NoDecode] = Field(
        default=_ONNX.size, description="Width and height of the input of your own face network, pixels."
    )
    face_embedder_mean: Annotated[tuple[float, float, float], NoDecode] = Field(
        default=_ONNX.mean,
        description="What is taken off the grey levels of red, green and blue, 0 to 255, "
        "before they enter it.",
    )
    face_embedder_scale: float = Field(
        default=_ONNX.scale, description="What the grey levels are multiplied by after that."
    )
    face_embedder_channels: ChannelOrder = Field(
        default=_ONNX.channels, description="In which order your own face network takes colours."
    )
    face_embedder_places: Annotated[tuple[float, float, float, float, float, float], NoDecode] = Field(
        default=(*_ONNX.places[0], *_ONNX.places[1], *_ONNX.places[2]),
        description="Where in its input the middle of the person's right eye, that of the left eye and the "
        "base of the nose lie: x and y of each, pixels. The default is ArcFace's alignment.",
    )
    face_embedder_engine: Engine = Field(
        default=_ONNX.engine, description="What runs it; fastest measures both at start."
    )
    face_embedder_calibration: Path | None = Field(
        default=None,
        description="File that says what scores of the face embedder are worth, as "
        "`rekam evaluate face DIR --calibrate FILE` writes it.",
    )
    workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=256,
        description="Threads that turn images into templates; the number of processors where not set.",
    )
    max_message_bytes: int = Field(
        default=48 * _MIB,
        ge=_MIB,
        le=1024 * _MIB,
        description="Largest gRPC message taken, in bytes; one sent may have twice as many: "
        "a case shows two encounters. "
        "The default fits ten uncompressed prints of 1000 x 1000 pixels in colour, with a margin.",
    )
    fpir_match: float = Field(
        default=1e-3,
        gt=0,
        lt=1,
        description="False positive identification rate of a match: "
        "the chance that searching the whole gallery accuses an innocent person.",
    )
    fpir_review: float = Field(
        default=1e-1,
        gt=0,
        lt=1,
        description="False positive identification rate of a review: "
        "the chance that a search of an innocent person is held for an operator. At least fpir_match.",
    )
    fmr_verify: float = Field(
        default=1e-3,
        gt=0,
        lt=1,
        description="False match rate of a 1:1 comparison that accepts.",
    )
    max_batch: int = Field(
        default=16,
        ge=1,
        le=256,
        description="Encounters committed together at most: one sync serves all that waited for it.",
    )
    max_queue: int = Field(
        default=64,
        ge=0,
        le=4096,
        description="Calls that may wait for their turn to extract and search; one more is refused with "
        "advice when to come again. Calls that only read records wait in a queue of their own.",
    )
    max_request_bytes: int = Field(
        default=1024 * _MIB,
        ge=_MIB,
        le=2**40,
        description="Bytes of requests held at once while they are read, wait and are worked on, "
        "at least max_message_bytes.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="TCP port on which Prometheus reads metrics over HTTP, at the same address as the "
        "service; 0 takes a free one, none where not set.",
    )
    log_format: LogFormat = Field(
        default=LogFormat.TEXT, description="How the log on stderr is written: as text, or as JSON lines."
    )

    @property
    def face_embedder(self) -> OnnxEmbedderSettings | None:
        """The face network of the user's own, None for dlib's. Raises `ValueError` where it cannot be one."""
        if self.face_embedder_path is None:
            return None
        ax, ay, bx, by, cx, cy = self.face_embedder_places
        return OnnxEmbedderSettings(
            path=self.face_embedder_path,
            size=self.face_embedder_size,
            mean=self.face_embedder_mean,
            scale=self.face_embedder_scale,
            channels=self.face_embedder_channels,
            places=((ax, ay), (bx, by), (cx, cy)),
            engine=self.face_embedder_engine,
        )

    @field_validator(
        "required_modalities",
        "face_embedder_size",
        "face_embedder_mean",
        "face_embedder_places",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return [word.strip() for word in value.split(",")] if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: str | None) -> str | None:
        if not value:
            return None
        try:
            parts = urlsplit(value)
            whole = parts.scheme in ("postgresql", "postgresql+psycopg") and len(parts.path) > 1
            _ = parts.port  # a wrong one is refused here
        except ValueError:
            whole = False
        if not whole:
            raise ValueError("is no URL of the form postgresql://USER:PASSWORD@HOST/DATABASE")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.allow_remote and not _is_loopback(self.host):
            raise ValueError(
                f"host {self.host} is reachable from other machines: set allow_remote too if that is meant"
            )
        if self.gallery is GalleryKind.MILVUS and self.milvus_uri is None:
            raise ValueError("gallery is milvus: set milvus_uri to the server's address")
        if self.fpir_review < self.fpir_match:
            raise ValueError("fpir_review is smaller than fpir_match: what matches would not be reviewed")
        if self.max_request_bytes < self.max_message_bytes:
            raise ValueError("max_request_bytes is smaller than max_message_bytes: it could never be read")
        _ = self.face_embedder  # wrong ones are refused here
        return self


def load_settings(**overrides: object) -> Settings:
    """Read the settings; `overrides` that are not None go before the environment.

    Raises `InvalidSettings`, which names every wrong setting.
    """
    try:
        return Settings.model_validate(
            {name: value for name, value in overrides.items() if value is not None}
        )
    except ValidationError as error:
        raise InvalidSettings(
            [(".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors()]
        ) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may resolve to anything
