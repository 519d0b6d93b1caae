"""The LEADER network as two ONNX graphs that do the sums of the published one in a cheaper order.

The published graph spells out activations and normalisations operator by operator, and computes direction and
type of every pixel. Here, with the same weights:

* GELU and layer normalisation are one operator each, over the last axis;
* two linear layers in a row (reduction and adjustment of a block, adjustment and first layer of a head) are
  multiplied into one;
* pointwise layers come before a map is doubled, not after; the 5 x 5 convolution of the doubled map is four
  of 3 x 3 on the map itself, one for each parity of row and column;
* the wide middle of a block is computed row by row, so that it stays in the processor's cache;
* channels are padded to whole blocks, as the fast convolutions want them;
* direction and type are read by a second graph, around the candidates only.

Scores agree with the published graph to 1e-5: only the order of the additions differs.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float64]
Attribute = int | float | str | list[int] | onnx.GraphProto

_EPSILON = 1e-3
_BLOCK = 16
_OPSET, _IR = 20, 10
# Channels that the second autoencoder's encoder hands to its decoder, by level.
_SKIPPED = (32, 64, 128, 32)


@dataclass(frozen=True, slots=True)
class LeaderGraphs:
    """Two serialised ONNX models, all tensors `float32`, H and W multiples of 32.

    `find`: `image` (1, 1, H, W) grey levels -> `smooth` (1, 1, H, W) likelihood of a minutia, `highest` the
    same shape, its maximum over 7 x 7, `features` (1, C, H/2, W/2).

    `read`: `patches` (n, C, 9, 9) of the features, and `inside` (n, 1, 3, 3), 1 where the middle of the patch
    is in the map, else 0 -> `direction` (n, 8), four cosines, then four sines, and `ending` (n, 4); the four
    are the parities of the minutia: even row and column, odd column, odd row, both odd.
    """

    find: bytes
    read: bytes


def leader_graphs(published: bytes) -> LeaderGraphs:
    """Both graphs from the bytes of the published ONNX model. Cost: 50 ms."""
    weights = _Weights(published)
    return LeaderGraphs(_find(weights), _read(weights))


def _find(weights: "_Weights") -> bytes:
    g = _Graph(weights)

    # 1. First autoencoder: ridges, at half resolution and below.
    x = g.pooled("MaxPool", g.stem("image", "stem0"))
    skipped = []
    for level, channels in enumerate((16, 32, 64, 128)):
        skipped.append(g.separable(x, f"enc0_{level}"))
        x = g.halved(skipped[level], channels)
    for level in (3, 2, 1, 0):
        x = g.joined(g.doubled(g.separable(x, f"dec0_{level}")), skipped[level])

    # 2. Gated by what lies around at three distances, and joined by the image.
    around = [g.convolution(x, *weights.layer("attention_conv_d1_1"))]
    around += [g.convolution(x, *weights.dilated(f"attention_conv_d{d}_1"), dilation=d) for d in (3, 6)]
    gate = g.op("Sigmoid", g.convolution(g.gelu(g.joined(*around)), *weights.layer("attention_s_1")))
    image = g.pooled("AveragePool", g.stem("image", "stem1"))
    x = g.joined(g.op("Mul", x, gate), image)

    # 3. Second autoencoder: minutiae. `order`: the published places of the channels of `x`, padding apart.
    order, skipped = np.arange(64), []
    for level, channels in enumerate(_SKIPPED):
        skipped.append(g.block(x, f"enc1_{level}", *weights.adjustment(f"enc1_{level}"), order))
        x, order = g.halved(skipped[level], channels), np.arange(channels)
    for level in (3, 2, 1, 0):
        linear, bias = weights.adjustment(f"dec1_{level}")
        up = g.doubled(g.block(x, f"dec1_{level}", _whole_blocks(linear), _whole_blocks(bias), order))
        x, order = g.joined(skipped[level], up), _order(len(bias), _SKIPPED[level])

    # 4. Where minutiae are: the first head, smoothed, and the highest value around each pixel.
    likelihood = g.op("Sigmoid", g.op("DepthToSpace", g.head(x, 0, order), blocksize=2))
    smooth = g.convolution(likelihood, weights.blur())
    highest = g.op("MaxPool", smooth, kernel_shape=[7, 7], pads=[3, 3, 3, 3])
    outputs = {"smooth": smooth, "highest": highest, "features": x}
    return _serialised(g.graph({"image": [1, 1, None, None]}, outputs))


def _read(weights: "_Weights") -> bytes:
    g = _Graph(weights)
    order = _order(len(weights.adjustment("dec1_0")[1]), _SKIPPED[0])
    direction = g.op("Flatten", g.head("patches", 1, order, inside="inside"))
    ending = g.op("Sigmoid", g.op("Flatten", g.head("patches", 2, order, inside="inside")))
    inputs: dict[str, list[int | None]] = {
        "patches": [None, -(-len(order) // _BLOCK) * _BLOCK, 9, 9],
        "inside": [None, 1, 3, 3],
    }
    return _serialised(g.graph(inputs, {"direction": direction, "ending": ending}))


def _order(up: int, skipped: int) -> NDArray[np.int64]:
    """Published places of the channels of a join: `up` come first there and last, before padding, here."""
    return np.concatenate([up + np.arange(skipped), np.arange(up)])


def _whole_blocks(rows: Array) -> Array:
    """Rows of zeros appended up to a whole number of blocks."""
    return np.pad(rows, [(0, -len(rows) % _BLOCK), *[(0, 0)] * (rows.ndim - 1)])


class _Weights:
    """The published layers by name, in double precision so that their products lose nothing."""

    def __init__(self, published: bytes) -> None:
        graph = onnx.load_model_from_string(published).graph
        self._arrays = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        self._inputs = {node.output[0].removeprefix("functional_1/"): list(node.input) for node in graph.node}

    def layer(self, name: str, output: str = "/BiasAdd:0") -> tuple[Array, Array]:
        """Kernel (out, in, rows, columns) and bias (out,) of a convolution."""
        inputs = self._inputs[name + output]
        kernel = self._array(inputs[1])
        return kernel, self._array(inputs[2]) if len(inputs) > 2 else np.zeros(len(kernel))

    def dilated(self, name: str) -> tuple[Array, Array]:
        """The same of a dilated convolution, whose bias is added apart."""
        return self.layer(name, "/convolution:0")[0], self._constant(f"{name}/BiasAdd:0")

    def normalisation(self, name: str) -> tuple[Array, Array]:
        """Scale and shift, (channels,) each."""
        return self._constant(f"{name}/mul:0"), self._constant(f"{name}/add_1:0")

    def pointwise(self, name: str) -> tuple[Array, Array]:
        """Matrix (out, in) and bias (out,) of a 1 x 1 convolution."""
        kernel, bias = self.layer(name)
        return kernel[:, :, 0, 0], bias

    def adjustment(self, name: str) -> tuple[Array, Array]:
        """Matrix and bias of the last layer of a block."""
        return self.pointwise(f"{name}_conv_adj_1")

    def decision(self, head: int) -> tuple[Array, Array]:
        """Kernel (out, 4, 5, 5) and bias (out,) of the last layer of a head."""
        return self.layer(("Conv__3172:0", "head_conv_dir_1/BiasAdd:0", "Conv__3000:0")[head], "")

    def blur(self) -> Array:
        """Kernel (1, 1, 5, 5) that smooths the likelihood."""
        return self.layer("nms_Gaussian_blur_1", "/convolution:0")[0]

    def _array(self, name: str) -> Array:
        return self._arrays[name].astype(np.float64)

    def _constant(self, node: str) -> Array:
        (array,) = (self._array(name) for name in self._inputs[node] if name in self._arrays)
        return array.ravel()


class _Graph:
    """An ONNX graph under construction. Maps are (n, channels, rows, columns) unless a comment says other."""

    def __init__(self, weights: _Weights, prefix: str = "") -> None:
        self._weights = weights
        self._prefix = prefix
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def op(self, operator: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """Append one operator with one output, and name that."""
        name = f"{self._prefix}{operator}_{len(self._nodes)}"
        node = helper.make_node(operator, inputs, [name], domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return name

    def constant(self, array: NDArray[np.float64] | NDArray[np.int64]) -> str:
        """A constant, in single precision unless of whole numbers."""
        name = f"{self._prefix}constant_{len(self._constants)}"
        single = array if array.dtype == np.int64 else array.astype(np.float32)
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(single), name))
        return name

    def constants(self, *indices: list[int]) -> list[str]:
        """Constants of indices."""
        return [self.constant(np.array(one)) for one in indices]

    def convolution(
        self,
        x: str,
        kernel: Array,
        bias: Array | None = None,
        *,
        dilation: int = 1,
        group: int = 1,
        pad: bool = True,
    ) -> str:
        """The size of the map is kept by zeros around it, or shrinks with `pad` false."""
        size = kernel.shape[2]
        constants = [self.constant(one) for one in (kernel, bias) if one is not None]
        return self.op(
            "Conv",
            x,
            *constants,
            kernel_shape=[size, size],
            pads=[size // 2 * dilation * pad] * 4,
            dilations=[dilation, dilation],
            group=group,
        )

    def gelu(self, x: str, bias: Array | None = None) -> str:
        """GELU by its tanh formula; `bias` is for the last axis."""
        inputs = (x,) if bias is None else (x, self.constant(bias))
        return self.op("FastGelu", *inputs, domain="com.microsoft")

    def normalised(self, x: str, name: str, order: NDArray[np.int64] | slice = slice(None)) -> str:
        """Layer normalisation over the last axis."""
        scale, shift = self._weights.normalisation(name)
        constants = self.constant(scale[order]), self.constant(shift[order])
        return self.op("LayerNormalization", x, *constants, axis=-1, epsilon=_EPSILON)

    def last(self, x: str) -> str:
        """Channels as the last axis."""
        return self.op("Transpose", x, perm=[0, 2, 3, 1])

    def first(self, x: str) -> str:
        """Channels back as the second axis."""
        return self.op("Transpose", x, perm=[0, 3, 1, 2])

    def joined(self, *maps: str) -> str:
        return self.op("Concat", *maps, axis=1)

    def doubled(self, x: str) -> str:
        """Every pixel becomes four."""
        scales = self.constant(np.array([1.0, 1, 2, 2]))
        return self.op(
            "Resize",
            x,
            "",
            scales,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def pooled(self, operator: str, x: str) -> str:
        """Every four pixels become one."""
        return self.op(operator, x, kernel_shape=[2, 2], strides=[2, 2])

    def halved(self, x: str, channels: int) -> str:
        """Half the channels by their maximum over 2 x 2, half by their mean."""
        start, middle, end, axis = self.constants([0], [channels // 2], [channels], [1])
        return self.joined(
            self.pooled("MaxPool", self.op("Slice", x, start, middle, axis)),
            self.pooled("AveragePool", self.op("Slice", x, middle, end, axis)),
        )

    def stem(self, x: str, name: str) -> str:
        """What a small and a wide window see of the image."""
        small = self.convolution(x, *self._weights.layer(f"{name}_conv_1"))
        wide = self.convolution(x, *self._weights.dilated(f"{name}_dilated_conv_1"), dilation=2)
        return self.first(self.gelu(self.normalised(self.last(self.joined(small, wide)), f"{name}_ln_1")))

    def separable(self, x: str, name: str) -> str:
        """One layer of the first autoencoder: depthwise, then pointwise convolution."""
        kernel, _ = self._weights.layer(f"{name}_conv_1", "/separable_conv2d/depthwise:0")
        x = self.convolution(x, kernel, group=len(kernel))
        x = self.convolution(x, *self._weights.layer(f"{name}_conv_1"))
        return self.first(self.gelu(self.normalised(self.last(x), f"{name}_ln_1")))

    def block(
        self, x: str, name: str, linear: Array, bias: Array, order: NDArray[np.int64], *, pad: bool = True
    ) -> str:
        """One layer of the second autoencoder, an inverted bottleneck, and the linear layer that follows it.

        `order`: published places of the first channels of `x`; the others are padding.
        """
        # 1. Around each pixel.
        kernel = _whole_blocks(self._weights.layer(f"{name}_depthwise_conv_1", "/depthwise:0")[0][order])
        h = self.last(self.convolution(x, kernel, group=len(kernel), pad=pad))
        if len(kernel) > len(order):
            h = self.op("Slice", h, *self.constants([0], [len(order)], [3]))
        # 2. Along its channels, row by row: the many in the middle then stay in the processor's cache.
        _, narrow_bias = self._weights.layer(f"{name}_conv_red_1")
        if pad:
            row = _Graph(self._weights, f"{name}/")
            out = row.bottleneck(f"{name}/row", name, linear, order)
            body = row.graph({f"{name}/row": [None, len(order)]}, {f"{name}/out": out})
            (only,) = self.constants([0])
            h = self.op("Scan", self.op("Squeeze", h, only), body=body, num_scan_inputs=1)
            h = self.op("Unsqueeze", h, only)
        else:
            h = self.bottleneck(h, name, linear, order)
        # 3. And the way past both.
        if not pad:
            x = self.op("Slice", x, *self.constants([3, 3], [-3, -3], [2, 3]))
        past = _whole_blocks(linear[:, order].T).T[:, :, None, None]
        return self.op("Add", self.convolution(x, past, linear @ narrow_bias + bias), self.first(h))

    def bottleneck(self, x: str, name: str, linear: Array, order: NDArray[np.int64]) -> str:
        """To many channels and back to those of the linear layer, all on the last axis, without the bias."""
        wide, bias = self._weights.layer(f"{name}_conv_exp_1")
        narrow, _ = self._weights.layer(f"{name}_conv_red_1")
        x = self.normalised(x, f"{name}_ln_1", order)
        x = self.gelu(self.op("MatMul", x, self.constant(wide[:, order, 0, 0].T)), bias)
        return self.op("MatMul", x, self.constant((linear @ narrow[:, :, 0, 0]).T))

    def head(self, x: str, number: int, order: NDArray[np.int64], inside: str | None = None) -> str:
        """One output, its parities of row and column as channels; patches need no padding but a mask."""
        pad = inside is None
        # 1. The block, its adjustment and the head's first layer in one, then the second.
        linear, bias = self._weights.adjustment(f"head_{number}_ibc")
        first, first_bias = self._weights.pointwise(f"head_{number}_conv1_1")
        h = self.block(x, f"head_{number}_ibc", first @ linear, first @ bias + first_bias, order, pad=pad)
        second, second_bias = self._weights.pointwise(f"head_{number}_conv2_1")
        h = self.normalised(self.last(h), f"head_{number}_ln_1")
        h = self.first(self.gelu(self.op("MatMul", h, self.constant(second.T)), second_bias))
        # 2. The last layer sees zeros beyond the edge.
        if inside is not None:
            h = self.op("Mul", h, inside)
        kernel, bias = self._weights.decision(number)
        return self.convolution(h, _four_parities(kernel), np.repeat(bias, 4), pad=pad)

    def graph(self, inputs: dict[str, list[int | None]], outputs: dict[str, str]) -> onnx.GraphProto:
        """What was built: its inputs with their shapes, its outputs with what they are taken from."""
        nodes = [*self._nodes, *(helper.make_node("Identity", [x], [name]) for name, x in outputs.items())]
        starts = [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape) for x, shape in inputs.items()]
        ends = [helper.make_tensor_value_info(x, TensorProto.FLOAT, None) for x in outputs]
        return helper.make_graph(nodes, "leader", starts, ends, self._constants)


def _serialised(graph: onnx.GraphProto) -> bytes:
    operators = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=operators, ir_version=_IR).SerializeToString()


def _four_parities(kernel: Array) -> Array:
    """(4 out, in, 3, 3): what `kernel` (out, in, 5, 5) does to a map whose every pixel was made four."""
    parts = np.zeros((len(kernel), 2, 2, kernel.shape[1], 3, 3))
    for row, column, i, j in np.ndindex(2, 2, 5, 5):
        parts[:, row, column, :, (i + row) // 2, (j + column) // 2] += kernel[:, :, i, j]
    return parts.reshape(-1, kernel.shape[1], 3, 3)
