"""Settings: where they come from, their ranges, and that the documentation says the same."""

import re
from pathlib import Path

import pytest

from capture.face.onnx_embedder import ChannelOrder, OnnxEmbedderSettings
from capture.sample import Modality
from rekam.config import Settings, load_settings
from rekam.errors import InvalidSettings

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"REKAM_{name.upper()}", raising=False)


def test_defaults_are_local_and_keep_no_images() -> None:
    settings = load_settings()
    assert settings.host == "127.0.0.1"
    assert settings.port == 50151
    assert settings.data_dir == Path("rekam-data")
    assert not settings.keep_images
    assert settings.workers >= 1


def test_default_message_fits_ten_uncompressed_colour_prints() -> None:
    assert load_settings().max_message_bytes > 1.5 * 10 * 1000 * 1000 * 3


def test_keywords_go_before_the_environment_and_none_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REKAM_PORT", "7001")
    monkeypatch.setenv("REKAM_WORKERS", "3")
    settings = load_settings(port=7002, workers=None)
    assert (settings.port, settings.workers) == (7002, 3)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_no_permission(host: str) -> None:
    assert load_settings(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "registry.example", "127.0.0.1.example"])
def test_any_other_address_needs_it(host: str) -> None:
    with pytest.raises(InvalidSettings, match="allow_remote"):
        load_settings(host=host)
    assert load_settings(host=host, allow_remote=True).host == host


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 65536),
        ("port", -1),
        ("workers", 0),
        ("max_message_bytes", 1000),
        ("fpir_match", 0),
        ("fpir_review", 1),
        ("fmr_verify", 1.5),
        ("max_batch", 0),
        ("fmr_verify", float("nan")),
        ("host", ""),
        ("keep_images", "perhaps"),
        ("required_modalities", "fingerprint,voice"),
        ("required_modalities", ""),
        ("face_embedder_size", "112"),
        ("face_embedder_mean", "127.5,dark,0"),
        ("face_embedder_channels", "grey"),
        ("prot", 7000),
    ],
)
def test_wrong_setting_is_named(name: str, value: object) -> None:
    with pytest.raises(InvalidSettings) as refusal:
        load_settings(**{name: value})
    assert name in {setting.split(".")[0] for setting, _ in refusal.value.violations}


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(InvalidSettings) as refusal:
        load_settings(port=-1, workers=0)
    assert [setting for setting, _ in refusal.value.violations] == ["port", "workers"]


def test_review_is_not_stricter_than_match() -> None:
    with pytest.raises(InvalidSettings, match="fpir_review"):
        load_settings(fpir_match=0.1, fpir_review=0.01)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("fingerprint", (Modality.FINGERPRINT,)),
        ("fingerprint,iris,face", (Modality.FINGERPRINT, Modality.IRIS, Modality.FACE)),
        (" iris , face ", (Modality.IRIS, Modality.FACE)),
    ],
)
def test_required_modalities_are_written_with_commas(
    monkeypatch: pytest.MonkeyPatch, written: str, read: tuple[Modality, ...]
) -> None:
    monkeypatch.setenv("REKAM_REQUIRED_MODALITIES", written)
    assert load_settings().required_modalities == read


def test_a_face_network_of_ones_own_is_described_by_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().face_embedder is None
    monkeypatch.setenv("REKAM_FACE_EMBEDDER_PATH", "face.onnx")
    assert load_settings().face_embedder == OnnxEmbedderSettings(path=Path("face.onnx"))
    monkeypatch.setenv("REKAM_FACE_EMBEDDER_SIZE", "96,112")
    monkeypatch.setenv("REKAM_FACE_EMBEDDER_MEAN", "0, 0, 0")
    monkeypatch.setenv("REKAM_FACE_EMBEDDER_CHANNELS", "bgr")
    monkeypatch.setenv("REKAM_FACE_EMBEDDER_PLACES", "30,50,66,50,48,70")
    own = load_settings(face_embedder_scale=1.0).face_embedder
    assert own is not None
    assert (own.size, own.mean, own.scale, own.channels) == ((96, 112), (0, 0, 0), 1.0, ChannelOrder.BGR)
    assert own.places == ((30, 50), (66, 50), (48, 70))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("face_embedder_size", "8,8", "16 to 1024"),
        ("face_embedder_scale", 0.0, "scale is not 0"),
        ("face_embedder_places", "1,1,1,1,1,1", "lie apart"),
    ],
)
def test_a_face_network_that_cannot_be_is_refused(name: str, value: object, says: str) -> None:
    with pytest.raises(InvalidSettings, match=says):
        load_settings(**{"face_embedder_path": "face.onnx", name: value})


def _as_written(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(map(_as_written, default))
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_the_documentation_lists_every_setting_as_it_is() -> None:
    documented = {name: row for name, *row in ROW.findall(DOCUMENT.read_text(encoding="utf-8"))}
    assert list(documented) == list(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        variable, default, values, description = documented[name]
        assert variable == f"REKAM_{name.upper()}"
        assert description == field.description
        if field.default_factory is None:
            assert default == ("none" if field.default is None else f"`{_as_written(field.default)}`")
        kinds = ("ge", "le", "gt", "lt")
        bounds = {
            kind: getattr(rule, kind) for rule in field.metadata for kind in kinds if hasattr(rule, kind)
        }
        if "ge" in bounds:
            assert values == f"{bounds['ge']} to {bounds['le']}"
        if "gt" in bounds:
            assert values == f"between {bounds['gt']} and {bounds['lt']}"
