"""dlib's face network as an ONNX graph, from the bytes of its weights file.

The network (D. King, dlib, 2017; K. He et al., "Deep residual learning", 2016, cut to 29 layers and half the
filters) is written by dlib as one stream, layer after layer from the input on, each beginning with its name.
Read from there it runs in ONNX Runtime: the same vectors to rounding, at a fraction of dlib's own cost, on
any number of threads at once, which dlib's network object does not allow.
"""

import re
from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INPUT_SIDE = 150
VALUES = 128
# dlib's mean colour, red, green, blue, and its divisor.
_MEAN = (122.782, 117.001, 104.298)
_DIVISOR = 256.0
# Filters, and whether a block halves the resolution, from the input on.
_BLOCKS = (
    *((32, False),) * 3,
    *((64, True), (64, False), (64, False), (64, False)),
    *((128, True), (128, False), (128, False)),
    *((256, True), (256, False), (256, False)),
    (256, True),
)
_FIRST = 32
# The head's name and its numbers of outputs, 128, and inputs, 256.
_HEAD = rb"fc_2\x01\x80\x02\x00\x01"


def resnet_graph(weights: bytes) -> bytes:
    """Serialised model: `faces` `(N, 3, 150, 150) float32`, RGB of 0 to 255, to `vectors` `(N, 128)`.

    `weights` must be the known file: nothing is checked. Cost: 0.1 s.
    """
    layers = _layers(weights)
    graph = _Graph()
    graph.constant("mean", np.array(_MEAN, dtype=np.float32).reshape(1, 3, 1, 1))
    graph.constant("divisor", np.float32(_DIVISOR))
    x = graph.add("Div", graph.add("Sub", "faces", "mean"), "divisor")

    # 1. 150 -> 72 -> 35 pixels a side.
    x = graph.add("Relu", graph.convolved(x, *next(layers), side=7, stride=2, padding=0))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])

    # 2. Fourteen blocks of two convolutions, each beside a way around it.
    channels, side = _FIRST, 35
    for filters, halves in _BLOCKS:
        around = x
        stride, padding = (2, 0) if halves else (1, 1)
        x = graph.convolved(x, *next(layers), side=3, stride=stride, padding=padding)
        x = graph.convolved(graph.add("Relu", x), *next(layers), side=3, stride=1, padding=1)
        if halves:
            # dlib adds tensors of different shapes as if the smaller went on with zeros.
            around = graph.add("AveragePool", around, kernel_shape=[2, 2], strides=[2, 2])
            way, block = side // 2, (side - 3) // 2 + 1
            around = graph.with_zeros(around, filters - channels, max(0, block - way))
            x = graph.with_zeros(x, 0, max(0, way - block))
            channels, side = filters, max(way, block)
        x = graph.add("Relu", graph.add("Add", x, around))

    # 3. The mean of each channel, turned into the vector.
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    values, _ = next(layers)
    graph.constant("head", values.reshape(channels, VALUES))
    return graph.serialised(graph.add("MatMul", x, "head"))


def _layers(weights: bytes) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Filters and biases of every convolution, with the affine step after it folded in; the head last."""
    filters = biases = np.zeros(0, dtype=np.float32)
    for name in re.finditer(rb"con_4|affine_|" + _HEAD, weights):
        values = _tensor(weights, name.end())
        match name.group():
            case b"con_4":
                # All filters lie before the biases; how many biases there are the affine step tells.
                filters = values
            case b"affine_":
                gamma, beta = np.split(values, 2)
                filters, biases = filters[: -len(gamma)], filters[-len(gamma) :]
                yield (
                    filters.reshape(len(gamma), -1) * gamma[:, None],
                    biases * gamma + beta,
                )
            case _:
                yield values, biases


def _tensor(weights: bytes, at: int) -> NDArray[np.float32]:
    """The tensor that begins there: its version, four sizes, and little-endian values."""
    sizes = []
    for _ in range(5):
        count = weights[at]
        sizes.append(int.from_bytes(weights[at + 1 : at + 1 + count], "little"))
        at += 1 + count
    return np.frombuffer(weights, dtype="<f4", count=int(np.prod(sizes[1:])), offset=at).astype(np.float32)


class _Graph:
    """A graph that grows at its end."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: list[int]) -> str:
        name = f"{operator}_{len(self._nodes)}"
        node = helper.make_node(operator, inputs, [name])
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return name

    def convolved(
        self,
        x: str,
        filters: NDArray[np.float32],
        biases: NDArray[np.float32],
        *,
        side: int,
        stride: int,
        padding: int,
    ) -> str:
        n = len(self._nodes)
        shaped = self.constant(f"filters_{n}", filters.reshape(len(biases), -1, side, side))
        offsets = self.constant(f"biases_{n}", biases)
        return self.add(
            "Conv", x, shaped, offsets, kernel_shape=[side] * 2, strides=[stride] * 2, pads=[padding] * 4
        )

    def with_zeros(self, x: str, channels: int, pixels: int) -> str:
        if not channels and not pixels:
            return x
        n = len(self._nodes)
        pads = self.constant(f"pads_{n}", np.array([0, 0, 0, 0, 0, channels, pixels, pixels], dtype=np.int64))
        return self.add("Pad", x, pads)

    def serialised(self, output: str) -> bytes:
        inputs = helper.make_tensor_value_info("faces", TensorProto.FLOAT, ["n", 3, INPUT_SIDE, INPUT_SIDE])
        outputs = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", VALUES])
        graph = helper.make_graph(self._nodes, "dlib_resnet", [inputs], [outputs], self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return model.SerializeToString()
