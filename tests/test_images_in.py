"""Images through the whole service: ten uncompressed prints in one request, kept, shown, forgotten."""

import io
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.encounters import made_up_nik, missing
from benchmarks.population import TEN_FINGERS
from benchmarks.synthetic_prints import finger, impression
from capture.sample import FingerPosition
from rekam.v1 import case_pb2, enrollment_pb2, identification_pb2, quality_pb2, types_pb2
from tests.service import recorded, running

TWO = (FingerPosition.RIGHT_THUMB, FingerPosition.LEFT_INDEX)


@pytest.fixture(scope="session")
def prints() -> dict[int, list[NDArray[np.uint8]]]:
    """Two impressions of each finger of one made-up person."""
    masters = {position: finger(5, position) for position in TEN_FINGERS}
    return {n: [impression(masters[p], 10 * p + n) for p in TEN_FINGERS] for n in (1, 2)}


def bmp(image: NDArray[np.uint8]) -> bytes:
    """1000 x 1000 pixels in colour at 1000 ppi, uncompressed: 3 MB."""
    page = Image.new("RGB", (1000, 1000), "white")
    page.paste(Image.fromarray(image).resize((800, 1000), Image.Resampling.BICUBIC), (100, 0))
    file = io.BytesIO()
    page.save(file, "BMP", dpi=(1000, 1000))
    return file.getvalue()


def samples(
    images: Sequence[bytes], positions: Sequence[FingerPosition], ppi: float = 1000
) -> list[types_pb2.Sample]:
    return [
        types_pb2.Sample(
            modality=types_pb2.MODALITY_FINGERPRINT,
            finger=types_pb2.FingerPosition.ValueType(position),
            image=image,
            ppi=ppi,
        )
        for image, position in zip(images, positions, strict=True)
    ]


def test_ten_uncompressed_prints_are_enrolled_kept_and_shown_beside_their_double(
    tmp_path: Path, prints: dict[int, list[NDArray[np.uint8]]]
) -> None:
    first, second = ([bmp(image) for image in prints[n]] for n in (1, 2))
    assert sum(map(len, first)) > 30_000_000
    with running(tmp_path / "data", keep_images=True) as service:
        enrolled = recorded(
            service.client.enrollment.Enroll(
                enrollment_pb2.EnrollRequest(
                    request_id="first", nik=made_up_nik(0), samples=samples(first, TEN_FINGERS)
                ),
                timeout=300,
            )
        )
        assert enrolled.decision == types_pb2.DECISION_UNIQUE
        assert all(f.image_kept and f.quality > 0 and f.minutiae > 10 for f in enrolled.fingers)
        back = recorded(
            service.client.enrollment.Enroll(
                enrollment_pb2.EnrollRequest(
                    request_id="second", nik=made_up_nik(1), samples=samples(second, TEN_FINGERS)
                ),
                timeout=300,
            )
        )
        assert back.decision == types_pb2.DECISION_DUPLICATE
        assert back.evidence.candidates[0].subject_id == enrolled.subject_id
        # Both encounters came in one message each; together they leave in one.
        shown = service.client.cases.GetCase(
            case_pb2.GetCaseRequest(case_id=back.case_id, include_samples=True), timeout=60
        )
        assert [s.image for s in shown.samples] == [*second, *first]


def test_images_are_judged_enrolled_and_forgotten(
    tmp_path: Path, prints: dict[int, list[NDArray[np.uint8]]]
) -> None:
    def png(n: int, position: FingerPosition) -> bytes:
        file = io.BytesIO()
        Image.fromarray(prints[n][position - 1]).save(file, "PNG", dpi=(500, 500))
        return file.getvalue()

    first, second = ([png(n, position) for position in TWO] for n in (1, 2))
    rest = missing(set(TEN_FINGERS) - set(TWO))
    with running(tmp_path / "data") as service:
        # 1. Judged at capture; the template of it is worth as much as the image.
        judged = service.client.quality.Assess(
            quality_pb2.AssessRequest(sample=samples(first[:1], TWO[:1], 0)[0], include_template=True)
        )
        assert (judged.format, judged.width, judged.height) == ("png", 400, 500)
        assert judged.quality.usable
        assert judged.ppi == pytest.approx(500, abs=0.01)
        from_template = samples(first, TWO, 0)
        from_template[0].template = judged.template
        e = recorded(
            service.client.enrollment.Enroll(
                enrollment_pb2.EnrollRequest(
                    request_id="first", nik=made_up_nik(0), samples=from_template, missing=rest
                )
            )
        )
        assert e.decision == types_pb2.DECISION_UNIQUE
        assert (e.fingers[0].minutiae, e.fingers[0].quality) == (judged.minutiae, judged.quality.score)
        assert not any(f.image_kept for f in e.fingers)

        # 2. Found by another touch; qualities come back for images.
        found = service.client.identification.Identify(
            identification_pb2.IdentifyRequest(samples=samples(second, TWO, 0))
        )
        assert found.match == identification_pb2.MATCH_YES
        assert [int(q.position) for q in found.qualities] == list(TWO)

        # 3. One blank image among good ones: sent back, that finger only.
        file = io.BytesIO()
        Image.new("L", (400, 500), 250).save(file, "PNG", dpi=(500, 500))
        answer = service.client.enrollment.Enroll(
            enrollment_pb2.EnrollRequest(
                request_id="blank",
                nik=made_up_nik(1),
                samples=samples([file.getvalue(), second[1]], TWO, 0),
                missing=rest,
            )
        )
        [item] = answer.recapture.items
        assert int(item.position) == TWO[0]
        assert item.quality.feedback[0].code == "blank"
        assert item.advice == item.quality.feedback[0].advice

        # 4. A search with nothing usable finds nobody, and says why.
        nobody = service.client.identification.Identify(
            identification_pb2.IdentifyRequest(samples=samples([file.getvalue()], TWO[:1], 0))
        )
        assert nobody.match == identification_pb2.MATCH_NO
        assert not nobody.qualities[0].quality.usable

        # 5. Every fault of every sample has its place.
        with pytest.raises(grpc.RpcError, match=r"samples\[1\]: the png image is damaged"):
            service.client.identification.Identify(
                identification_pb2.IdentifyRequest(samples=samples([first[0], first[1][:3000]], TWO, 0))
            )
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert first[1][100:200] not in on_disk
