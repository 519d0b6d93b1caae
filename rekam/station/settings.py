"""What stands at a workstation, from one TOML file (docs/station.md). Loads no driver by itself."""

import tomllib
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from devices.device import Driver
from devices.frame import DeviceKind, Positions
from devices.position import EyePosition
from rekam.client import DEFAULT_ADDRESS
from rekam.errors import InvalidSettings

if TYPE_CHECKING:
    from rekam.station.examiner import PipelineExaminer

DEFAULT_FILE = Path("station.toml")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LibfprintSettings(_Table):
    """`ppi` of the reader; `virtual_image`: socket of libfprint's virtual reader, for tests."""

    ppi: float = 500
    virtual_image: str = ""


class CameraSettings(_Table):
    """`sources`: files, folders or nodes; none: every UVC camera."""

    sources: tuple[Path, ...] = ()
    quarter_turns: int = 0
    mirrored: bool = False


class GenicamSettings(_Table):
    """GenTL `producers` (.cti) and what their cameras are for: `face` or `iris`."""

    producers: tuple[str, ...] = ()
    kind: DeviceKind = DeviceKind.FACE
    cameras: tuple[str, ...] = ()


class SbiKeySettings(_Table):
    """Our key and certificate (PEM) and a file with the password, for devices that encrypt captures."""

    file: Path
    certificate: Path
    password: Path | None = None


class SbiSettings(_Table):
    """`roots`: PEM files of the makers' authorities; `unverified`: believe anybody, for tests alone."""

    roots: tuple[Path, ...] = ()
    unverified: bool = False
    environment: str = "Production"
    key: SbiKeySettings | None = None
    first_port: int = 4501
    last_port: int = 4600


class SignatureSettings(_Table):
    """`pads`: folders that a pad's program writes into, or files."""

    pads: tuple[Path, ...]


class SamServerSettings(_Table):
    """Where `rekam card lend-sam` runs, who signed its certificate, and our own, PEM files."""

    host: str
    port: int
    authority: Path
    certificate: Path
    key: Path


class CardSettings(_Table):
    """`sam_slot`: the reader's slot that holds the SAM, empty without one; or `sam_server`: one far away."""

    sam_slot: str = ""
    sam_server: SamServerSettings | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.sam_slot and self.sam_server:
            raise ValueError("either sam_slot or sam_server, not both")
        return self


class StationSettings(_Table):
    """One workstation; a table that is left out is a device that is not there.

    `examiner`: what judges captures, `module:class`, derived from `PipelineExaminer`.
    """

    server: str = DEFAULT_ADDRESS
    spool: Path = Path("rekam-spool")
    captures: tuple[DeviceKind, ...] = (
        DeviceKind.FINGERPRINT,
        DeviceKind.IRIS,
        DeviceKind.FACE,
        DeviceKind.SIGNATURE,
    )
    good_quality: int = Field(default=60, ge=0, le=100)
    best_of: int = Field(default=3, ge=1)
    seconds: float = Field(default=20, gt=0)
    examiner: str = "rekam.station.examiner:PipelineExaminer"
    libfprint: LibfprintSettings | None = None
    face_camera: CameraSettings | None = None
    iris_camera: CameraSettings | None = None
    genicam: GenicamSettings | None = None
    sbi: SbiSettings | None = None
    signature: SignatureSettings | None = None
    cards: CardSettings | None = None


EVERY_PLUGGED = StationSettings(
    libfprint=LibfprintSettings(), face_camera=CameraSettings(), cards=CardSettings()
)
"""Without a file: what needs no settings."""


def load_station(file: Path | None) -> StationSettings:
    """The settings of a file, of `station.toml` where that is here, else what is plugged in.

    Raises `InvalidSettings`.
    """
    if file is None and not DEFAULT_FILE.exists():
        return EVERY_PLUGGED
    path = file or DEFAULT_FILE
    try:
        return StationSettings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors()]
        raise InvalidSettings(faults) from error
    except (OSError, ValueError) as error:
        raise InvalidSettings([(str(path), str(error))]) from error


def absent(settings: StationSettings) -> list[str]:
    """Cameras, pads and sockets that the settings name and that are not there, in words."""
    face, iris, pads = settings.face_camera, settings.iris_camera, settings.signature
    named: dict[str, tuple[Path, ...]] = {
        "face_camera.sources": face.sources if face else (),
        "iris_camera.sources": iris.sources if iris else (),
        "signature.pads": pads.pads if pads else (),
    }
    if settings.libfprint and settings.libfprint.virtual_image:
        named["libfprint.virtual_image"] = (Path(settings.libfprint.virtual_image).parent,)
    return [
        f"{name}: there is no {path}" for name, paths in named.items() for path in paths if not path.exists()
    ]


def examiner_of(settings: StationSettings) -> "PipelineExaminer":
    """What judges captures at this station. Raises `InvalidSettings`."""
    from rekam.station.examiner import PipelineExaminer

    try:
        made = resolve_name(settings.examiner)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InvalidSettings([("examiner", str(error))]) from error
    if not isinstance(made, PipelineExaminer):
        raise InvalidSettings([("examiner", f"{settings.examiner} is not derived from PipelineExaminer")])
    return made


def drivers(settings: StationSettings) -> tuple[list[Driver], list[str]]:
    """The drivers of a station, and what is missing for others. Each is imported only where it is wanted."""
    made: list[Driver] = []
    missing: list[str] = []
    for wanted, driver in (
        (settings.libfprint, _libfprint),
        (settings.face_camera, _face_camera),
        (settings.iris_camera, _iris_camera),
        (settings.genicam, _genicam),
        (settings.sbi, _sbi),
        (settings.signature, _signature),
        (settings.cards, _cards),
    ):
        if wanted is not None:
            try:
                made.append(driver(settings))
            except ImportError as error:
                missing.append(f"{error.name} is not installed: pip install 'rekam[devices]'")
    return made, missing


def _libfprint(settings: StationSettings) -> Driver:
    from devices.libfprint import LibfprintDriver

    assert settings.libfprint is not None
    return LibfprintDriver(settings.libfprint.ppi, settings.libfprint.virtual_image)


def _face_camera(settings: StationSettings) -> Driver:
    return _opencv(settings.face_camera, DeviceKind.FACE, ())


def _iris_camera(settings: StationSettings) -> Driver:
    return _opencv(settings.iris_camera, DeviceKind.IRIS, ((EyePosition.RIGHT,), (EyePosition.LEFT,)))


def _opencv(camera: CameraSettings | None, kind: DeviceKind, shows: tuple[Positions, ...]) -> Driver:
    from devices.opencv_camera import OpencvDriver

    assert camera is not None
    return OpencvDriver(camera.sources, kind, f"opencv-{kind}", shows, camera.quarter_turns, camera.mirrored)


def _genicam(settings: StationSettings) -> Driver:
    from devices.genicam_camera import GenicamDriver

    assert settings.genicam is not None
    return GenicamDriver(settings.genicam.producers, settings.genicam.kind, cameras=settings.genicam.cameras)


def _sbi(settings: StationSettings) -> Driver:
    from devices.sbi import SbiDriver
    from devices.sbi_trust import DecryptionKey, TrustedRoots, UnverifiedDevices

    assert settings.sbi is not None
    sbi = settings.sbi
    trust = UnverifiedDevices() if sbi.unverified else TrustedRoots(sbi.roots)
    key = DecryptionKey(sbi.key.file, sbi.key.certificate, sbi.key.password) if sbi.key else None
    return SbiDriver(trust, sbi.environment, key, range(sbi.first_port, sbi.last_port + 1))


def _signature(settings: StationSettings) -> Driver:
    from devices.signature import SignatureDriver

    assert settings.signature is not None
    return SignatureDriver(settings.signature.pads)


def _cards(settings: StationSettings) -> Driver:
    from devices.pcsc import PcscDriver

    return PcscDriver()
