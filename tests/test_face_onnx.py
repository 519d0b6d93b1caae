"""The user's own face network: what is accepted, what is refused, and that its input is made as told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from capture.decode import decode_face_image
from capture.errors import ModelUnavailable
from capture.face.embedder import DlibEmbedder
from capture.face.extract import FaceExtractor
from capture.face.onnx_embedder import ChannelOrder, Engine, OnnxEmbedder, OnnxEmbedderSettings
from matching.errors import NotCalibrated
from matching.face.comparison import compare_faces, face_form

SIDE, VALUES = 112, 24
FLOAT = TensorProto.FLOAT
Places = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
NCHW: list[int | str] = ["n", 3, SIDE, SIDE]
NHWC: list[int | str] = ["n", SIDE, SIDE, 3]


def network(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    output: str = "vector",
    shape: list[int | str] | None = None,
    **constants: NDArray[np.generic],
) -> bytes:
    out = helper.make_tensor_value_info(output, FLOAT, ["n", VALUES] if shape is None else shape)
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "face", inputs, [out], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def pixels(shape: list[int | str] = NCHW, kind: int = FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info("pixels", kind, shape)


def head(cells: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(cells, VALUES)).astype(np.float32)


def pooled(source: str = "pixels", name: str = "pooled") -> list[NodeProto]:
    """Means of 16 x 16 pixels, in one row."""
    return [
        helper.make_node("AveragePool", [source], ["means"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["means"], [name]),
    ]


GOOD = network(
    [*pooled(), helper.make_node("MatMul", ["pooled", "head"], ["vector"])], [pixels()], head=head(147)
)


def settings(folder: Path, model: bytes = GOOD) -> OnnxEmbedderSettings:
    path = folder / "face.onnx"
    path.write_bytes(model)
    return OnnxEmbedderSettings(path)


def crop() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)


def expected(one: NDArray[np.uint8], mean: tuple[float, float, float], scale: float) -> NDArray[np.float64]:
    """What the network above makes of a crop, in plain sums."""
    values = (one[0].astype(np.float64) - mean) * scale
    means = values.reshape(7, 16, 7, 16, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    return np.asarray(means.ravel() @ head(147))


@pytest.mark.parametrize("engine", Engine)
def test_every_engine_runs_it_as_told(engine: Engine, tmp_path: Path) -> None:
    mean, scale = (100.0, 110.0, 120.0), 0.01
    chosen = replace(settings(tmp_path), mean=mean, scale=scale, engine=engine)
    embedder = OnnxEmbedder(chosen)
    assert embedder.vectors(crop())[0] == pytest.approx(expected(crop(), mean, scale), abs=1e-3)
    if engine is Engine.FASTEST:
        assert set(embedder.milliseconds) == {Engine.ONNX_RUNTIME, Engine.OPENCV}
        assert embedder.engine is min(embedder.milliseconds, key=embedder.milliseconds.__getitem__)
    else:
        assert embedder.engine is engine
    swapped = OnnxEmbedder(replace(chosen, channels=ChannelOrder.BGR, mean=mean[::-1]))
    assert swapped.vectors(crop()[..., ::-1])[0] == pytest.approx(expected(crop(), mean, scale), abs=1e-3)


def test_channels_may_come_last(tmp_path: Path) -> None:
    turned = helper.make_node("Transpose", ["pixels"], ["first"], perm=[0, 3, 1, 2])
    model = network(
        [turned, *pooled("first"), helper.make_node("MatMul", ["pooled", "head"], ["vector"])],
        [pixels(NHWC)],
        head=head(147),
    )
    embedder = OnnxEmbedder(settings(tmp_path, model))
    assert embedder.vectors(crop())[0] == pytest.approx(
        expected(crop(), (127.5, 127.5, 127.5), 1 / 127.5), abs=1e-3
    )


def test_a_vector_may_have_axes_of_length_one(tmp_path: Path) -> None:
    model = network(
        [
            *pooled(),
            helper.make_node("MatMul", ["pooled", "head"], ["flat"]),
            helper.make_node("Reshape", ["flat", "sizes"], ["vector"]),
        ],
        [pixels([1, 3, SIDE, SIDE])],
        shape=[1, VALUES, 1, 1],
        head=head(147),
        sizes=np.array([1, VALUES, 1, 1]),
    )
    assert OnnxEmbedder(settings(tmp_path, model)).vectors(crop()).shape == (1, VALUES)


def matmul(name: str = "pooled", to: str = "vector") -> NodeProto:
    return helper.make_node("MatMul", [name, "head"], [to])


REFUSED = {
    "no model": (b"not a network", "does not load"),
    "nothing": (b"", "does not load"),
    "truncated": (GOOD[: len(GOOD) // 2], "does not load"),
    "two inputs": (
        network(
            [*pooled(), helper.make_node("Add", ["pooled", "more"], ["sum"]), matmul("sum")],
            [pixels(), helper.make_tensor_value_info("more", FLOAT, ["n", 147])],
            head=head(147),
        ),
        "2 inputs and 1 outputs",
    ),
    "whole numbers": (
        network(
            [
                helper.make_node("Cast", ["pixels"], ["real"], to=FLOAT),
                *pooled("real"),
                matmul(),
            ],
            [pixels(kind=TensorProto.UINT8)],
            head=head(147),
        ),
        "must be tensor\\(float\\)",
    ),
    "one channel": (
        network([*pooled(), matmul()], [pixels(["n", 1, SIDE, SIDE])], head=head(49)),
        "it needs N x 3 x 112 x 112",
    ),
    "another size": (
        network([*pooled(), matmul()], [pixels(["n", 3, 160, 160])], head=head(300)),
        "it needs N x 3 x 112 x 112",
    ),
    "a batch of four": (
        network([*pooled(), matmul()], [pixels([4, 3, SIDE, SIDE])], head=head(147)),
        "it needs N x 3 x 112 x 112",
    ),
    "a row": (
        network([matmul("pixels")], [pixels(["n", 147])], head=head(147)),
        "it needs N x 3 x 112 x 112",
    ),
    "a map for a vector": (
        network(
            [pooled()[0], helper.make_node("Identity", ["means"], ["vector"])],
            [pixels()],
            shape=["n", 3, 7, 7],
        ),
        "gives \\(3, 7, 7\\)",
    ),
    "a size it cannot take": (
        network([*pooled(), matmul()], [pixels(["n", 3, "h", "w"])], head=head(300)),
        "does not run on an image",
    ),
    "one vector for all": (
        network(
            [
                *pooled(),
                helper.make_node("Mul", ["pooled", "zero"], ["none"]),
                matmul("none", "z"),
                helper.make_node("Add", ["z", "ones"], ["vector"]),
            ],
            [pixels()],
            head=head(147),
            zero=np.zeros(1, np.float32),
            ones=np.ones(VALUES, np.float32),
        ),
        "same vector for every image",
    ),
    "all zeros": (
        network(
            [*pooled(), helper.make_node("Mul", ["pooled", "zero"], ["none"]), matmul("none")],
            [pixels()],
            head=head(147),
            zero=np.zeros(1, np.float32),
        ),
        "same vector for every image",
    ),
    "no numbers": (
        network(
            [*pooled(), helper.make_node("Sqrt", ["pooled"], ["roots"]), matmul("roots")],
            [pixels()],
            head=head(147),
        ),
        "no numbers",
    ),
    "chance": (
        network(
            [
                *pooled(),
                matmul(to="sure"),
                helper.make_node("RandomNormalLike", ["sure"], ["noise"]),
                helper.make_node("Add", ["sure", "noise"], ["vector"]),
            ],
            [pixels()],
            head=head(147),
        ),
        "two vectors for one image",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_networks_are_refused(case: str, tmp_path: Path) -> None:
    model, problem = REFUSED[case]
    with pytest.raises(ModelUnavailable, match=problem):
        OnnxEmbedder(settings(tmp_path, model))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"nowhere\.onnx cannot be read"):
        OnnxEmbedder(OnnxEmbedderSettings(tmp_path / "nowhere.onnx"))


@pytest.mark.parametrize(
    "change",
    [
        {"size": (8, 112)},
        {"scale": 0.0},
        {"scale": float("nan")},
        {"mean": (0.0, float("inf"), 0.0)},
        {"places": ((1.0, 1.0), (1.0, 1.0), (5.0, 5.0))},
    ],
)
def test_settings_are_checked(change: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="face network"):
        replace(OnnxEmbedderSettings(tmp_path / "face.onnx"), **change)  # type: ignore[arg-type]


def test_the_eyes_come_to_lie_where_told(tmp_path: Path) -> None:
    places: Places = ((40.0, 50.0), (72.0, 50.0), (56.0, 75.0))
    embedder = OnnxEmbedder(replace(settings(tmp_path), places=places))
    # White dots at the corners of the eyes and the nose, in a head turned by a quarter and twice as large.
    upright = np.array([(80.0, 50), (64, 50), (32, 50), (48, 50), (56, 75)])
    landmarks = 2 * upright @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + (200, 50)
    image = np.zeros((400, 400, 3), dtype=np.uint8)
    for x, y in landmarks.astype(int):
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    plain, mirrored = embedder.crops(image, landmarks)
    for x, y in upright.astype(int):
        assert plain[y, x].min() > 150
        assert mirrored[y, SIDE - 1 - x].min() > 150
    assert plain[:, :, 0].mean() < 5
    only = OnnxEmbedder(replace(settings(tmp_path), places=places, mirrored=False))
    assert np.array_equal(only.crops(image, landmarks), plain[None])


def test_the_digest_names_the_file_and_what_it_is_fed(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    moved = tmp_path / "moved.onnx"
    moved.write_bytes(GOOD)
    digest = OnnxEmbedder(chosen).digest
    assert OnnxEmbedder(replace(chosen, path=moved, engine=Engine.OPENCV)).digest == digest
    others = {
        OnnxEmbedder(other).digest
        for other in (
            replace(chosen, mean=(127.5, 127.5, 128.0)),
            replace(chosen, scale=1 / 128),
            replace(chosen, channels=ChannelOrder.BGR),
            replace(chosen, mirrored=False),
            replace(chosen, places=(chosen.places[0], chosen.places[1], (56.0, 80.0))),
        )
    }
    assert len(others | {digest, DlibEmbedder().digest}) == 7


def test_the_pipeline_takes_it_and_keeps_its_templates_apart(tmp_path: Path, development_data: Path) -> None:
    extractor = FaceExtractor(OnnxEmbedder(settings(tmp_path)))
    path = sorted((development_data / "face" / "lfw").glob("*/*.jpg"))[0]
    sample = decode_face_image(path.read_bytes())
    extraction = extractor.extract(sample)
    assert extraction.template is not None
    assert extraction.template.vector.shape == (VALUES,)
    assert extraction.template.embedder == extractor.embedder
    assert extraction.quality.usable
    default = FaceExtractor().extract(sample).template
    assert default is not None
    with pytest.raises(NotCalibrated):
        compare_faces(face_form(extraction.template), face_form(default))
