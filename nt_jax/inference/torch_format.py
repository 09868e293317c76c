"""Released PyTorch programs' state dicts as parameter trees of this package.

A network is described once, as a table of layers that pairs our paths with the program's module
names; reading, checking and naming what is wrong all follow from the table. Pure NumPy.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from nt_jax.errors import InputError
from nt_jax.models.generator import blocks_of_levels

State = Mapping[str, np.ndarray]
Tree = dict[str, Any]
Kind = Literal["conv", "dense", "linear", "up", "norm", "biased"]


class Layer(NamedTuple):
    """One layer in both programs.

    Attributes:
      path: where it is in our tree.
      name: the PyTorch module; its arrays are `name.weight_orig` and so on.
      kind: `conv`, `dense` (a 1x1 convolution there), `linear`, `up` (transposed convolution):
        all spectrally normalised without bias; `norm`: affine norm; `biased`: plain convolution.
      shape: of the weight there: [out, in, kh, kw], [out, in], `up` [in, out, kh, kw], norm [C].
    """

    path: tuple[str, ...]
    name: str
    kind: Kind
    shape: tuple[int, ...]

    def weights(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Maps our leaf's name to (key, shape there), for everything a gradient exists for."""
        if self.kind in ("norm", "biased"):
            ours = ("scale", "shift") if self.kind == "norm" else ("kernel", "bias")
            return {
                ours[0]: (f"{self.name}.weight", self.shape),
                ours[1]: (f"{self.name}.bias", self.shape[:1]),
            }
        return {"kernel": (f"{self.name}.weight_orig", self.shape)}

    def vectors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Maps `u` and `v` to (key, shape there); empty without spectral norm."""
        if self.kind in ("norm", "biased"):
            return {}
        outputs = self.shape[self._output_axis]
        size = int(np.prod(self.shape)) // outputs
        return {
            "u": (f"{self.name}.weight_u", (outputs,)),
            "v": (f"{self.name}.weight_v", (size,)),
        }

    @property
    def _output_axis(self) -> int:
        # The program's spectral norm of a transposed convolution is over its outputs too.
        return 1 if self.kind == "up" else 0

    def to_leaf(self, array: np.ndarray) -> np.ndarray:
        """Turns a weight into our leaf: kernels [kh, kw, in, out] or [in, out]; norms unchanged."""
        if array.ndim == 1:
            return array
        if self.kind == "up":  # Ours is the equivalent convolution's kernel, hence flipped.
            return array.transpose(2, 3, 0, 1)[::-1, ::-1]
        if self.kind in ("dense", "linear"):
            return array.reshape(array.shape[:2]).T
        return array.transpose(2, 3, 1, 0)

    def to_v(self, vector: np.ndarray) -> np.ndarray:
        """Orders v like our flattened [kh, kw, in]: it moves like a kernel of one output."""
        shape = list(self.shape)
        shape[self._output_axis] = 1
        return self.to_leaf(vector.reshape(shape)).reshape(-1)


class Network(NamedTuple):
    """A network read from a state dict.

    Attributes:
      sizes: keyword arguments that describe it, for the module and the model's metadata.
      params: raw parameters, nested dicts of float32 arrays.
      u, v: spectral vectors, paths of the kernels; empty without spectral norm.
    """

    sizes: dict[str, Any]
    params: Tree
    u: Tree
    v: Tree


def read_generator(state: State, source: str) -> Network:
    """Reads `VUNet.pt`: sizes are `width`, `embedding_size` and `blocks`.

    Args:
      state: arrays by key.
      source: the file's name, for messages.

    Raises:
      InputError: an array is missing, unknown or of the wrong shape; the message names its key.
    """
    width = _size(state, "conv_first.conv2d.weight_orig", 0, source)
    embedding_size = _size(state, "blocks1.0.sft1.convs_gamma.0.conv2d.weight_orig", 1, source)
    blocks = _blocks(state)
    layers = generator_layers(width, embedding_size, blocks)
    sizes = {"width": width, "embedding_size": embedding_size, "blocks": blocks}
    return _read(sizes, layers, state, source)


def read_discriminator(state: State, source: str) -> Network:
    """Reads `encoder_q.pt` or `encoder_k.pt`; arguments, sizes and errors as `read_generator`."""
    width = _size(state, "pre_noise.conv2d.weight_orig", 0, source)
    embedding_size = _size(state, "mlp_noise.linear2.linear.weight_orig", 0, source)
    blocks = _blocks(state)
    layers = discriminator_layers(width, embedding_size, blocks)
    sizes = {"width": width, "embedding_size": embedding_size, "blocks": blocks}
    return _read(sizes, layers, state, source)


def read_ridnet(state: State, source: str) -> Network:
    """Reads `ridnet_g.pt`: sizes are `features` and `blocks`; else as `read_generator`."""
    features = _size(state, "head.weight", 0, source)
    blocks = _count(state, "b", first=1)
    if not blocks:
        raise InputError(f"{source} has no block 'b1.'; {_EXPECTED}")
    sizes = {"features": features, "blocks": blocks}
    return _read(sizes, ridnet_layers(features, blocks), state, source)


def read_n2g(state: State, source: str) -> Network:
    """Reads Noise2Grad's `latest_net_G.pth`: sizes are `width`; else as `read_generator`."""
    width = _size(state, "inc.conv.conv.0.weight", 0, source)
    return _read({"width": width}, n2g_layers(width), state, source)


def generator_layers(width: int, embedding_size: int, blocks: tuple[int, int, int]) -> list[Layer]:
    """Lists the generator's layers, `blocks` those of levels 1, 2 and 3."""
    first, second, third = width, 2 * width, 4 * width
    layers = [
        Layer(("first",), "conv_first.conv2d", "conv", (first, 3, 3, 3)),
        Layer(("down1",), "conv_down1.conv2d", "conv", (second, first, 4, 4)),
        Layer(("down2",), "conv_down2.conv2d", "conv", (third, second, 4, 4)),
        Layer(("up2",), "conv_up2.tconv2d", "up", (third, second, 4, 4)),
        Layer(("skip2",), "conv_skip2.conv2d", "conv", (second, 2 * second, 3, 3)),
        Layer(("up1",), "conv_up1.tconv2d", "up", (second, first, 4, 4)),
        Layer(("skip1",), "conv_skip1.conv2d", "conv", (first, 2 * first, 3, 3)),
        Layer(("last",), "conv_last.conv2d", "dense", (3, first, 1, 1)),
    ]
    levels = ("blocks1", "blocks2", "blocks3", "blocks2_", "blocks1_")
    level_channels = (first, second, third, second, first)
    counts = blocks_of_levels(blocks)
    for level, (module, channels, count) in enumerate(
        zip(levels, level_channels, counts, strict=True), start=1
    ):
        for block in range(count):
            path, name = f"level{level}_block{block + 1}", f"{module}.{block}"
            for index in (1, 2):
                layers += _modulation(
                    (path, f"sft{index}"), f"{name}.sft{index}", channels, embedding_size, 1
                )
                layers.append(_block_conv(path, name, index, channels))
    return layers


def discriminator_layers(
    width: int, embedding_size: int, blocks: tuple[int, int, int]
) -> list[Layer]:
    """Lists the layers of D, which are those of the key encoder too."""
    layers = [
        Layer(("pre_noise",), "pre_noise.conv2d", "conv", (width, 3, 3, 3)),
        Layer(("pre_gan",), "pre_gan.conv2d", "conv", (width, 6, 3, 3)),
    ]
    for level, count in enumerate(blocks, start=1):
        channels = width * 2 ** (level - 1)
        square, point = (channels, channels, 3, 3), (channels, channels, 1, 1)
        if level > 1:
            layers.append(
                Layer(
                    (f"down{level - 1}",),
                    f"conv_down{level - 1}.conv2d",
                    "conv",
                    (channels, channels // 2, 4, 4),
                )
            )
        for block in range(count):
            path, name = f"level{level}_block{block + 1}", f"blocks{level}.{block}"
            for index in (1, 2):
                norm = (path, f"norm{index}")
                layers.append(Layer(norm, f"{name}.noise_inorm{index}", "norm", (channels,)))
                layers += _modulation(norm, f"{name}.gan_cin{index}", channels, embedding_size)
                layers.append(_block_conv(path, name, index, channels))
        path, name = f"noise_head{level}", f"post_noise{level}"
        layers += [
            Layer((path, "project"), f"{name}.0.conv2d", "dense", point),
            Layer((path, "norm"), f"{name}.1.norm", "norm", (channels,)),
            Layer((path, "features"), f"{name}.1.conv2d", "conv", square),
        ]
        path, name = f"gan_head{level}", f"post_gan{level}"
        layers += [
            Layer((path, "project"), f"{name}.0.conv2d", "dense", point),
            *_modulation((path, "norm"), f"{name}.1", channels, embedding_size),
            Layer((path, "features"), f"{name}.2.conv2d", "conv", square),
            Layer((path, "logits"), f"conv_gan{level}.conv2d", "dense", (1, channels, 1, 1)),
        ]
    total = 7 * width
    layers += [
        Layer(("mlp1",), "mlp_noise.linear1.linear", "linear", (total, total)),
        Layer(("mlp2",), "mlp_noise.linear2.linear", "linear", (embedding_size, total)),
    ]
    return layers


def ridnet_layers(features: int, blocks: int) -> list[Layer]:
    """Lists the denoiser's layers."""
    square, point = (features, features, 3, 3), (features, features, 1, 1)
    squeezed = features // 16
    inside = {
        "near1": ("r1.body1.0", square),
        "near2": ("r1.body1.2", square),
        "far1": ("r1.body2.0", square),
        "far2": ("r1.body2.2", square),
        "merge": ("r1.body3.0", (features, 2 * features, 3, 3)),
        "residual1": ("r2.body.0", square),
        "residual2": ("r2.body.2", square),
        "enhanced1": ("r3.body.0", square),
        "enhanced2": ("r3.body.2", square),
        "enhanced3": ("r3.body.4", point),
        "squeeze": ("ca.c1.body.0", (squeezed, features, 1, 1)),
        "excite": ("ca.c2.body.0", (features, squeezed, 1, 1)),
    }
    return [
        Layer(("head",), "head", "biased", (features, 3, 3, 3)),
        *(
            Layer((f"block{block}", path), f"b{block}.{name}", "biased", shape)
            for block in range(1, blocks + 1)
            for path, (name, shape) in inside.items()
        ),
        Layer(("tail",), "tail", "biased", (3, features, 3, 3)),
    ]


def n2g_layers(width: int) -> list[Layer]:
    """Lists the layers of the network that takes noise out: pairs of convolutions, and two more."""
    pairs = {  # input and output channels, in widths; the first sees the image
        "first": ("inc.conv.conv", 0, 1),
        "down_1": ("down1.mpconv.1.conv", 1, 2),
        "down_2": ("down2.mpconv.1.conv", 2, 4),
        "down_3": ("down3.mpconv.1.conv", 4, 4),
        "up_1": ("up1.conv.conv", 8, 2),
        "up_2": ("up2.conv.conv", 4, 1),
        "up_3": ("up3.conv.conv", 2, 1),
    }
    layers = [
        Layer(("last",), "outc.0", "biased", (3, width, 3, 3)),
        Layer(("noise",), "s.0", "biased", (3, 3, 1, 1)),
    ]
    for path, (name, inputs, outputs) in pairs.items():
        channels = (inputs * width or 3, outputs * width, outputs * width)
        for i in range(2):
            shape = (channels[i + 1], channels[i], 3, 3)
            layers.append(Layer((f"{path}_{i}",), f"{name}.{2 * i}", "biased", shape))
    return layers


def map_weights(layers: list[Layer], state: State, source: str) -> Tree:
    """Builds our parameter tree of the state's weights, or of gradients by the same keys.

    Args:
      layers: the network's table.
      state: arrays by key; others than weights are ignored.
      source: the file's name, for messages.

    Raises:
      InputError: an array is missing or of the wrong shape.
    """
    tree: Tree = {}
    for layer in layers:
        for leaf, (key, shape) in layer.weights().items():
            _set(tree, (*layer.path, leaf), layer.to_leaf(_take(state, key, shape, source)))
    return tree


def map_vectors(layers: list[Layer], state: State, source: str) -> tuple[Tree, Tree]:
    """Builds our trees u and v; arguments and errors as `map_weights`."""
    trees: tuple[Tree, Tree] = {}, {}
    for layer in layers:
        for name, (key, shape) in layer.vectors().items():
            vector = _take(state, key, shape, source)
            vector = vector if name == "u" else layer.to_v(vector)
            _set(trees[name == "v"], (*layer.path, "kernel"), vector)
    return trees


def _modulation(
    path: tuple[str, ...], name: str, channels: int, embedding_size: int, beta_inputs: int = 0
) -> list[Layer]:
    """Lists the bottlenecks of gamma and beta.

    `beta_inputs` are inputs of beta beside the embedding.
    """
    hidden = (embedding_size + channels) // 4
    layers = []
    for part, inputs in (("gamma", embedding_size), ("beta", embedding_size + beta_inputs)):
        shapes = {"reduce": (hidden, inputs, 1, 1), "expand": (channels, hidden, 1, 1)}
        layers += [
            Layer((*path, part, layer), f"{name}.convs_{part}.{index}.conv2d", "dense", shape)
            for index, (layer, shape) in enumerate(shapes.items())
        ]
    return layers


def _block_conv(path: str, name: str, index: int, channels: int) -> Layer:
    shape = (channels, channels, 3, 3)
    return Layer((path, f"conv{index}"), f"{name}.conv{index}.conv2d", "conv", shape)


def _read(sizes: dict[str, Any], layers: list[Layer], state: State, source: str) -> Network:
    params = map_weights(layers, state, source)
    u, v = map_vectors(layers, state, source)
    known = {
        key for layer in layers for key, _ in (*layer.weights().values(), *layer.vectors().values())
    }
    for key in state:
        if key not in known:
            raise InputError(f"{source}: unknown key {key!r}; {_EXPECTED}")
    return Network(sizes, params, u, v)


_EXPECTED = "expected a state dict saved by the released program"


def _take(state: State, key: str, shape: tuple[int, ...], source: str) -> np.ndarray:
    if key not in state:
        raise InputError(f"{source}: missing key {key!r}; {_EXPECTED}")
    array = np.asarray(state[key])
    if array.shape != shape:
        raise InputError(f"{source}: {key!r} has shape {array.shape}, not {shape}; {_EXPECTED}")
    if not np.isfinite(array).all():
        raise InputError(f"{source}: {key!r} holds values that are not finite; {_EXPECTED}")
    return array.astype(np.float32)


def _size(state: State, key: str, axis: int, source: str) -> int:
    if key not in state:
        raise InputError(f"{source}: missing key {key!r}; {_EXPECTED}")
    shape = np.shape(state[key])
    if len(shape) <= axis:
        raise InputError(f"{source}: {key!r} has shape {shape}; {_EXPECTED}")
    return shape[axis]


def _blocks(state: State) -> tuple[int, int, int]:
    return _count(state, "blocks1."), _count(state, "blocks2."), _count(state, "blocks3.")


def _count(state: State, prefix: str, first: int = 0) -> int:
    """Counts how many of `prefix`0., `prefix`1., ... the keys begin with, without a gap."""
    count = 0
    while any(key.startswith(f"{prefix}{first + count}.") for key in state):
        count += 1
    return count


def _set(tree: Tree, path: tuple[str, ...], leaf: np.ndarray) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = np.ascontiguousarray(leaf)
