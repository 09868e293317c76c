"""Networks as files that other programs run: StableHLO (by `jax.export`) and ONNX (by jax2onnx).

Float32, parameters inside the file. Without a size they take any batch, and any height and width
that are multiples of 4 (a denoiser's: of its network's `alignment`, 8 of a U-Net); with one they
are static, of batch 1. ONNX has opset 20.

generator, NHWC: clean [B, H, W, 3] in [0, 1], embedding [B, E], then the random maps N(0, 1) in
  call order, [B, h, w, 1] each -> noise [B, H, W, 3], unclipped. In StableHLO the maps are one
  tuple; in ONNX the inputs are named clean, embedding, map_00, map_01, ..., and the output noise.
  ONNX's metadata tell reference_crop, embedding_bound, and how far the network looks, halo.
embedding network (the key encoder, on images as they are: give it crops of `Model.reference_crop`
  pixels a side and average), NHWC: images [B, H, W, 3] in [0, 1] -> embedding [B, E]; of any size.
denoiser: images in [0, 1] -> images, clipped to [0, 1]; in StableHLO [B, H, W, 3], in ONNX as other
  programs know denoisers, input [B, 3, H, W] -> output. RIDNet averages over what it is given,
  `Denoiser` over the whole image (inference/denoiser.py): the same up to 512x512 pixels. One that
  reads has no reader in the file, `Denoiser.fixed`; or, told so, it has a second input, condition
  [B, 17], for which there is a file of the reader.
reader of a denoiser: crops of one image, of the size that it was trained on, laid out as the
  denoiser's images, K of them -> condition [1, 17].

    jax.export.deserialize(bytearray(path.read_bytes())).call(clean, embedding, maps)
    onnxruntime.InferenceSession(path).run(["noise"], {"clean": clean, ...})
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from nt_jax import prng, spectra
from nt_jax.errors import InputError
from nt_jax.families import IN_BATCHES, Generator
from nt_jax.files import replacing
from nt_jax.images import SMALLEST_SIDE
from nt_jax.inference.checks import fitting_parameters
from nt_jax.inference.denoiser import Denoiser, SpectrumReader, read_crops
from nt_jax.inference.tiles import ALIGNMENT, receptive_radius, round_up
from nt_jax.models.generator import map_shapes
from nt_jax.models.layers import Array
from nt_jax.models.networks import Networks, embed
from nt_jax.models.parameters import Tree


class Exported(Protocol):
    """Parts of a NoiseTransfer model that are written; see `inference.model.Model`."""

    @property
    def networks(self) -> Networks: ...
    @property
    def params(self) -> Mapping[str, Tree]: ...
    @property
    def blocks(self) -> tuple[int, int, int]: ...
    @property
    def embedding_size(self) -> int: ...
    @property
    def reference_crop(self) -> int: ...


PLATFORMS = ("cpu", "cuda", "tpu")
FORMATS = ("stablehlo", "onnx")
# The newest that programs of this year run everywhere.
OPSET = 20
Size = tuple[int, int]


def export(model: Exported, path: Path, format: str, size: Size | None = None) -> tuple[Path, Path]:
    """Writes `path` (the generator) and its neighbour `NAME_embed.EXT` (the embedding network).

    Args:
      model: what to write.
      path: file to write.
      format: one of `FORMATS`.
      size: height and width of the generator's images, multiples of 4; None for any.

    Raises:
      InputError: an unknown format or wrong size, jax2onnx is not installed, or a file cannot be
        written.
    """
    _check(format, size, ALIGNMENT)
    encoder_path = _beside(path, "embed")
    generator, encoder = {"stablehlo": _stablehlo, "onnx": _onnx}[format](model, size)
    _write({path: generator, encoder_path: encoder})
    return path, encoder_path


def export_generator(model: Generator, path: Path, format: str, size: Size | None) -> list[Path]:
    """Writes a model of any family: as it does itself, else what it computes, as StableHLO.

    That is a function (clean [1, H, W, 3], `reference` likewise where it is told one, key uint32
    [2]) -> unclipped noise [1, H, W, 3].

    Raises:
      InputError: as of `export`; no size is given, or another format is asked for.
    """
    if hasattr(model, "export"):
        return list(model.export(path, format, size))
    _check(format, size, 1)
    if format != "stablehlo" or not size:
        raise InputError(
            f"a model of kind {model.metadata.get('kind')} is written with --format=stablehlo"
            " and --size"
        )

    names = [name for name in model.told if name in IN_BATCHES]

    def noise(clean: Array, *told: Array) -> Array:
        batch = {"clean": clean} | dict(zip(names, told[:-1], strict=True))
        return model.noise(model.params, batch, prng.of_words(told[-1]))

    images = [_spec(1, *size, 3)] * (1 + len(names))
    with replacing(path) as temporary:
        key = jax.ShapeDtypeStruct((2,), jnp.uint32)
        temporary.write_bytes(_serialized(noise, *images, key))
    return [path]


def export_denoiser(
    denoiser: Denoiser,
    path: Path,
    format: str,
    size: Size | None = None,
    *,
    with_reader: bool = False,
) -> list[Path]:
    """Writes a denoiser, `Denoiser.fixed`; arguments and errors as of `export`.

    Args:
      with_reader: leave its condition an input, and write its reader as `NAME_read.EXT`.

    Returns:
      What was written.

    Raises:
      InputError: `with_reader`, and the denoiser is blind.
    """
    _check(format, size, denoiser.network.alignment)
    reader = denoiser.reader if with_reader else None
    if with_reader and reader is None:
        raise InputError("this denoiser is blind: it takes no condition and has no reader")
    write, write_reader = {
        "stablehlo": (_stablehlo_denoiser, _stablehlo_reader),
        "onnx": (denoiser_onnx, _reader_onnx),
    }[format]
    contents = {path: write(denoiser if reader else denoiser.fixed, size)}
    if reader:
        contents[_beside(path, "read")] = write_reader(reader)
    _write(contents)
    return list(contents)


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}_{name}{path.suffix}")


def _write(contents: Mapping[Path, bytes]) -> None:
    """Writes all files or none."""
    with contextlib.ExitStack() as all_of_them:
        for path, content in contents.items():
            all_of_them.enter_context(replacing(path)).write_bytes(content)


def _check(format: str, size: Size | None, alignment: int) -> None:
    if format not in FORMATS:
        raise InputError(f"format: expected one of {', '.join(FORMATS)}; got {format!r}")
    if size and (min(size) < SMALLEST_SIDE or any(side % alignment for side in size)):
        raise InputError(
            f"size: expected sides of {SMALLEST_SIDE} pixels or more, multiples of {alignment}; "
            f"got {size[0]}x{size[1]}"
        )


def _functions(model: Exported) -> tuple[Callable[..., Array], Callable[[Array], Array]]:
    def generate(clean: Array, embedding: Array, maps: tuple[Array, ...]) -> Any:
        params = {"params": model.params["generator"]}
        with jax.default_matmul_precision("float32"):
            return model.networks.generator.apply(params, clean, embedding, maps)

    def encode(images: Array) -> Array:
        with jax.default_matmul_precision("float32"):
            return embed(model.networks, model.params["key_encoder"], images)

    return generate, encode


def _denoise(denoiser: Denoiser) -> Callable[..., Array]:
    def denoise(images: Array, *condition: Array) -> Array:
        with jax.default_matmul_precision("float32"):
            clean = denoiser.network.apply({"params": denoiser.params}, images, *condition)
        return jnp.clip(jnp.asarray(clean), 0, 1)

    return denoise


def _read(reader: SpectrumReader) -> Callable[[Array], Array]:
    def read(crops: Array) -> Array:
        with jax.default_matmul_precision("float32"):
            return read_crops(reader.network, reader.params, crops[:, None])

    return read


# --- StableHLO -----------------------------------------------------------------------------------


def _symbolic_size(alignment: int) -> tuple[Any, Any, Any]:
    batch, rows, columns = jax.export.symbolic_shape("b, h, w")
    return batch, alignment * rows, alignment * columns


def _spec(*shape: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@fitting_parameters()
def _serialized(function: Callable[..., Any], *specs: Any) -> bytes:
    return bytes(jax.export.export(jax.jit(function), platforms=PLATFORMS)(*specs).serialize())


def _stablehlo(model: Exported, size: Size | None) -> tuple[bytes, bytes]:
    generate, encode = _functions(model)
    batch, height, width = (1, *size) if size else _symbolic_size(ALIGNMENT)
    maps = tuple(_spec(*shape) for shape in map_shapes(batch, height, width, model.blocks))
    embedding = _spec(batch, model.embedding_size)
    return (
        _serialized(generate, _spec(batch, height, width, 3), embedding, maps),
        _serialized(encode, _spec(*_symbolic_size(ALIGNMENT), 3)),
    )


def _stablehlo_denoiser(denoiser: Denoiser, size: Size | None) -> bytes:
    shape = (1, *size) if size else _symbolic_size(denoiser.network.alignment)
    told = [_spec(shape[0], spectra.CONDITIONS)] if denoiser.network.conditions else []
    return _serialized(_denoise(denoiser), _spec(*shape, 3), *told)


def _stablehlo_reader(reader: SpectrumReader) -> bytes:
    (count,) = jax.export.symbolic_shape("k")
    return _serialized(_read(reader), _spec(count, reader.side, reader.side, 3))


# --- ONNX ----------------------------------------------------------------------------------------


def _onnx(model: Exported, size: Size | None) -> tuple[bytes, bytes]:
    generate, encode = _functions(model)
    scales = [shape[1] for shape in map_shapes(1, 4, 4, model.blocks)]  # 4 where full size
    sides: dict[int, tuple[Any, Any]]
    if size:
        sides = {scale: (size[0] * scale // 4, size[1] * scale // 4) for scale in (1, 2, 4)}
    else:
        sides = {4: ("4*h", "4*w"), 2: ("2*h", "2*w"), 1: ("h", "w")}
    batch = 1 if size else "b"
    generator = _to_onnx(
        lambda clean, embedding, *maps: generate(clean, embedding, maps),
        inputs=[
            (batch, *sides[4], 3),
            (batch, model.embedding_size),
            *((batch, *sides[scale], 1) for scale in scales),
        ],
        model_name="noise_generator",
        input_names=["clean", "embedding", *(f"map_{i:02}" for i in range(len(scales)))],
        output_names=["noise"],
    )
    # jax2onnx finds a size only where an input has it plainly, not as 4 * h.
    encoder = _to_onnx(
        encode,
        inputs=[("b", "h", "w", 3)],
        model_name="noise_encoder",
        input_names=["images"],
        output_names=["embedding"],
    )
    about = {
        "reference_crop": str(model.reference_crop),
        "embedding_bound": model.networks.discriminator.bound,
        "halo": str(round_up(receptive_radius(model.blocks))),
    }
    for module in (generator, encoder):
        for key, value in about.items():
            module.metadata_props.add(key=key, value=value)
    return generator.SerializeToString(), encoder.SerializeToString()


def denoiser_onnx(denoiser: Denoiser, size: Size | None) -> bytes:
    """Exports a denoiser as ONNX: `input` [1, 3, H, W] of that size, or any -> `output`.

    See the module. One with conditions has the input `condition`, too.

    Raises:
      InputError: jax2onnx is not installed.
    """
    denoise = _denoise(denoiser)
    told = bool(denoiser.network.conditions)
    # Any multiple of 8 is h cells of 8: jax2onnx would not find h in 8 * h, so it sees the cells'
    # pixels as channels, [B, 8 * 8 * 3, h, w], and ONNX's own operators put them there and back.
    cell = 1 if size else denoiser.network.alignment

    def of_cells(x: Array, *condition: Array) -> Array:
        batch, _, rows, columns = x.shape
        x = x.reshape(batch, cell, cell, 3, rows, columns).transpose(0, 4, 1, 5, 2, 3)
        x = denoise(x.reshape(batch, rows * cell, columns * cell, 3), *condition)
        x = x.reshape(batch, rows, cell, columns, cell, 3).transpose(0, 2, 4, 5, 1, 3)
        return x.reshape(batch, cell * cell * 3, rows, columns)

    def of_image(x: Array, *condition: Array) -> Array:
        return denoise(x.transpose(0, 2, 3, 1), *condition).transpose(0, 3, 1, 2)

    model = _to_onnx(
        of_image if cell == 1 else of_cells,
        inputs=[
            (1, 3, *size) if size else ("batch", cell * cell * 3, "height", "width"),
            *[(1 if size else "batch", spectra.CONDITIONS)] * told,
        ],
        model_name="denoiser",
        input_names=["input" if cell == 1 else "cells", *["condition"] * told],
        output_names=["output" if cell == 1 else "denoised"],
    )
    if cell > 1:
        _wrap_cells(model.graph, cell)
    return model.SerializeToString()


def _wrap_cells(graph: Any, cell: int) -> None:
    """Makes a graph cells -> denoised one of images, input -> output."""
    from onnx import TensorProto, helper

    order: dict[str, Any] = {"blocksize": cell}
    graph.node.insert(0, helper.make_node("SpaceToDepth", ["input"], ["cells"], **order))
    graph.node.append(helper.make_node("DepthToSpace", ["denoised"], ["output"], **order))
    shape: list[str | int | None] = ["batch", 3, "height", "width"]
    for name, values in (("input", graph.input), ("output", graph.output)):
        values[0].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def _reader_onnx(reader: SpectrumReader) -> bytes:
    read, side = _read(reader), reader.side
    model = _to_onnx(
        lambda crops: read(crops.transpose(0, 2, 3, 1)),
        inputs=[("crops", 3, side, side)],
        model_name="noise_reader",
        input_names=["input"],
        output_names=["condition"],
    )
    return model.SerializeToString()


@fitting_parameters()
def _to_onnx(function: Callable[..., Any], **options: Any) -> Any:
    """Runs jax2onnx's `to_onnx`, quiet."""
    try:
        with _without_examples():
            from jax2onnx import to_onnx
            from jax2onnx.plugins.plugin_system import import_all_plugins

            # It warns of every shape that it leaves open, and of libraries its examples need.
            logging.getLogger("onnx_ir").setLevel(logging.ERROR)
            logging.getLogger("jax2onnx").setLevel(logging.ERROR)
            import_all_plugins()
    except ImportError as error:
        raise InputError("ONNX export needs jax2onnx: pip install 'nt_jax[export]'") from error
    try:
        return to_onnx(function, opset=OPSET, **options)
    finally:
        # What was traced by jax2onnx has operations that XLA does not know.
        jax.clear_caches()


class _NoExamples:
    """Finds no modules, but ends the search for jax2onnx's examples."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        del path, target
        if name.startswith("jax2onnx.plugins.examples"):
            raise ModuleNotFoundError(name)


@contextlib.contextmanager
def _without_examples() -> Iterator[None]:
    """Keeps jax2onnx from importing its examples, which takes it ten seconds of 24."""
    sys.meta_path.insert(0, _NoExamples)
    try:
        yield
    finally:
        sys.meta_path.remove(_NoExamples)
