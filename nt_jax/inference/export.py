"""Networks as files that other programs run: StableHLO (by `jax.export`) and ONNX (by jax2onnx).

Both networks take any batch, and any height and width that are multiples of 4. Layout NHWC,
float32, parameters inside the file.

generator: clean [B, H, W, 3] in [0, 1], embedding [B, E], then the random maps N(0, 1) in call
  order, [B, h, w, 1] each -> noise [B, H, W, 3], unclipped. In StableHLO the maps are one tuple; in
  ONNX the inputs are named clean, embedding, map_00, map_01, ..., and the output noise.
embedding network (the key encoder, on images as they are: give it crops of `Model.reference_crop`
  pixels a side and average): images [B, H, W, 3] in [0, 1] -> embedding [B, E].

    jax.export.deserialize(bytearray(path.read_bytes())).call(clean, embedding, maps)
    onnxruntime.InferenceSession(path).run(["noise"], {"clean": clean, ...})
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from nt_jax.errors import InputError
from nt_jax.models.generator import map_shapes
from nt_jax.models.layers import Array
from nt_jax.models.networks import embed
from nt_jax.outputs import replacing

if TYPE_CHECKING:
    from nt_jax.inference.model import Model

PLATFORMS = ("cpu", "cuda", "tpu")


def export(model: "Model", path: Path, format: str) -> tuple[Path, Path]:
    """Writes `path` (the generator) and its neighbour `NAME_embed.EXT` (the embedding network).

    Raises:
      InputError: an unknown format, jax2onnx is not installed, or a file cannot be written.
    """
    writers = {"stablehlo": _stablehlo, "onnx": _onnx}
    if format not in writers:
        raise InputError(f"format: expected one of {', '.join(writers)}; got {format!r}")
    encoder_path = path.with_name(f"{path.stem}_embed{path.suffix}")
    contents = writers[format](model)
    for target, content in zip((path, encoder_path), contents, strict=True):
        with replacing(target) as temporary:
            temporary.write_bytes(content)
    return path, encoder_path


def _functions(model: "Model") -> tuple[Callable[..., Array], Callable[[Array], Array]]:
    def generate(clean: Array, embedding: Array, maps: tuple[Array, ...]) -> Any:
        params = {"params": model.params["generator"]}
        with jax.default_matmul_precision("float32"):
            return model.networks.generator.apply(params, clean, embedding, maps)

    def encode(images: Array) -> Array:
        with jax.default_matmul_precision("float32"):
            return embed(model.networks, model.params["key_encoder"], images)

    return generate, encode


def _stablehlo(model: "Model") -> tuple[bytes, bytes]:
    batch: Any
    batch, quarter_height, quarter_width = jax.export.symbolic_shape("b, h, w")
    height, width = 4 * quarter_height, 4 * quarter_width

    def spec(*shape: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    generate, encode = _functions(model)
    images, embedding = spec(batch, height, width, 3), spec(batch, model.embedding_size)
    maps = tuple(spec(*shape) for shape in map_shapes(batch, height, width, model.blocks))
    exported = (
        jax.export.export(jax.jit(generate), platforms=PLATFORMS)(images, embedding, maps),
        jax.export.export(jax.jit(encode), platforms=PLATFORMS)(images),
    )
    generator, encoder = (bytes(module.serialize()) for module in exported)
    return generator, encoder


def _onnx(model: "Model") -> tuple[bytes, bytes]:
    try:
        from jax2onnx import to_onnx
    except ImportError as error:
        raise InputError("ONNX export needs jax2onnx: pip install 'nt_jax[export]'") from error
    # It warns of every shape that it leaves open.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    generate, encode = _functions(model)
    scales = [shape[1] for shape in map_shapes(1, 4, 4, model.blocks)]
    sizes = {4: ("4*h", "4*w"), 2: ("2*h", "2*w"), 1: ("h", "w")}
    generator = to_onnx(
        lambda clean, embedding, *maps: generate(clean, embedding, maps),
        inputs=[
            ("b", *sizes[4], 3),
            ("b", model.embedding_size),
            *(("b", *sizes[scale], 1) for scale in scales),
        ],
        model_name="noise_generator",
        input_names=["clean", "embedding", *(f"map_{i:02}" for i in range(len(scales)))],
        output_names=["noise"],
    )
    # jax2onnx finds a size only where an input has it plainly, not as 4 * h.
    encoder = to_onnx(
        encode,
        inputs=[("b", "h", "w", 3)],
        model_name="noise_encoder",
        input_names=["images"],
        output_names=["embedding"],
    )
    return generator.SerializeToString(), encoder.SerializeToString()
