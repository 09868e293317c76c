"""Camera noise: shot and read noise of a sensor, as it looks after the camera's processing.

A clean photograph is taken back to what a sensor would have recorded (Brooks et al., "Unprocessing
images for learned raw denoising", CVPR 2019), noise is put on the mosaic of raw values, and the
result is developed again: white balance, demosaicking, colour matrix, gamma, tone curve, 8 bits.

Let u be the photograph in linear camera colours, white-balanced, and M(u) its mosaic. Demosaicking
D is linear, so a mosaic with noise n becomes D(M(u)) + D(n); what is developed here is u + D(n).
The noise passes the whole processing, while the scene keeps its full colour at each pixel: noisy
minus clean is noise alone, without the blur and the colour fringes that D(M(u)) adds to edges. The
slope of the tone curve and all clipping act on the noisy value, as in a camera: near black and
white the noise is one-sided.

That is noise of published levels, developed and no more. The wide world of `Options.processed` adds
what cameras do to it before the file (processing.py), and a wider range of levels.

Images are float32 [H, W, 3] in [0, 1]; map over a batch with `jax.vmap`. Rounding passes gradients
straight through.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import prng
from nt_jax.errors import InputError
from nt_jax.noise.jpeg import jpeg, times, to_8_bits
from nt_jax.noise.processing import (
    Processing,
    filter_noise,
    keep_at_edges,
    resize,
    sample_processing,
)
from nt_jax.paths import expand

# --- Published constants -------------------------------------------------------------------------

# XYZ (D65) to camera colours, as Adobe publishes them for DNG: Huawei Nexus 6P, Sony A7R,
# Olympus E-M10, Sony RX100 M4. The cameras of DND, mixed at random as in Brooks et al.
_XYZ_TO_CAMERA = np.array(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.0970, 0.1581, 0.5181]],
    ],
    np.float32,
)
# Linear sRGB to XYZ (IEC 61966-2-1).
_RGB_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32
)
# Brooks et al.: log shot ~ U(these), log read ~ N(slope * log shot + offset, deviation).
_LOG_SHOT_RANGE = (math.log(1e-4), math.log(1.2e-2))
_READ_SLOPE, _READ_OFFSET, _READ_DEVIATION = 2.18, 1.20, 0.26
# Of processed noise: from a base ISO in daylight to the level of SIDD's strongest images (48 of
# 255); read noise spreads as wide as sensors of different makes and ages do.
_WIDE_LOG_SHOT_RANGE, _WIDE_READ_DEVIATION = (math.log(5e-5), math.log(3e-2)), 1.0
# Brooks et al.: mean and deviation of the part of the sensor's range that exposure uses.
_EXPOSURE_MEAN, _EXPOSURE_DEVIATION = 0.8, 0.1
_HIGHLIGHTS = 0.9  # linear brightness above which the gains of white balance fade to 1

# Interpolation from the eight taps around a pixel, [4, 5, 5]: across (green at red and blue),
# from the left and right, from above and below, and from the four corners.
_BILINEAR = np.zeros((4, 5, 5), np.float32)
_BILINEAR[0, [1, 3, 2, 2], [2, 2, 1, 3]] = 1 / 4
_BILINEAR[1, 2, [1, 3]] = 1 / 2
_BILINEAR[2, [1, 3], 2] = 1 / 2
_BILINEAR[3, [1, 1, 3, 3], [1, 3, 1, 3]] = 1 / 4
# What Malvar, He and Cutler (ICASSP 2004) add: the Laplacian of the pixel's own colour.
_LAPLACIAN = np.zeros((4, 5, 5), np.float32)
_LAPLACIAN[0, [2, 0, 4, 2, 2], [2, 2, 2, 0, 4]] = np.array([4, -1, -1, -1, -1]) / 8
_LAPLACIAN[1, 2, [0, 2, 4]] = np.array([-1, 5, -1]) / 8
_LAPLACIAN[1, [0, 4], 2] = 1 / 16
_LAPLACIAN[1, [1, 1, 3, 3], [1, 3, 1, 3]] = -1 / 8
_LAPLACIAN[2] = _LAPLACIAN[1].T
_LAPLACIAN[3, [2, 0, 4, 2, 2], [2, 2, 2, 0, 4]] = np.array([12, -3, -3, -3, -3]) / 16

# Pixels around a patch whose noise is made too, for filters to reach.
_MARGIN = 8

# --- Tuned constants -----------------------------------------------------------------------------
# Chosen by hand so that channel by channel the noise on the clean versions of the full-resolution
# SIDD crops has the measured levels, lag-1 and channel correlations; experiments/camera_noise.py.

# Share of settings demosaicked with Malvar's filters, the rest bilinearly. SIDD's are Malvar's;
# bilinear noise is smoother (lag-1 0.58) with opposed channels (correlation -0.3).
_MALVAR_SHARE = 0.95
# Weights of the matrices, times a uniform number each: the phone's three times the other three.
_MATRIX_WEIGHTS = np.array([9, 1, 1, 1], np.float32)
# White balance from lamps to daylight: gains of red and blue over green, and their spread. The
# daylight half is about the range of Brooks et al.; SIDD is lit by lamps as well.
_RED_GAIN, _BLUE_GAIN, _GAIN_SPREAD = (1.4, 2.4), (2.5, 1.5), 0.1
# Strength of the tone curve, uniform: 1 is the curve of Brooks et al., 0 none, as in SIDD.
_TONE_RANGE = (0.0, 1.0)


class Options(NamedTuple):
    """Ranges that settings are drawn from; hashable.

    Attributes:
      levels: (shot, read) of each measured camera and ISO; empty for the published distribution.
      jpeg_quality: range of the quality, 1..100; None for no JPEG.
      processed: whether cameras reduce, smooth, sharpen and compress the noise (processing.py), and
        levels, where they are not measured, have a wider range.
    """

    levels: tuple[tuple[float, float], ...] = ()
    jpeg_quality: tuple[float, float] | None = None
    processed: bool = False


PUBLISHED = Options()


class CameraSetting(NamedTuple):
    """One camera at one exposure, the same for all its patches.

    Attributes:
      shot: float32 [], variance of raw noise per raw value; raw values are in [0, 1].
      read: float32 [], variance of raw noise at black.
      rgb_to_camera: float32 [3, 3], linear sRGB to white-balanced camera colours; rows sum to 1.
      gains: float32 [3], white balance and exposure: what raw values are multiplied with.
      tone: float32 [] in [0, 1], strength of the tone curve.
      malvar: float32 [], 1 for Malvar's demosaicking, 0 for bilinear.
      jpeg_quality: float32 [], 1..100; None for no JPEG.
      processing: what the camera does to the noise; None for nothing.
    """

    shot: jax.Array
    read: jax.Array
    rgb_to_camera: jax.Array
    gains: jax.Array
    tone: jax.Array
    malvar: jax.Array
    jpeg_quality: jax.Array | None = None
    processing: Processing | None = None


# --- Settings ------------------------------------------------------------------------------------


def make_options(data_config: Any) -> Options:
    """Takes the camera fields of a checked `config.data`; see configs/common.py.

    Raises:
      InputError: the file that a field names is wrong; names it.
    """
    path, quality = str(data_config.camera_levels), tuple(data_config.camera_jpeg_quality)
    processed = bool(getattr(data_config, "camera_processing", False))  # configs of before
    try:
        levels = read_levels(expand(path)) if path else ()
    except InputError as error:
        raise InputError(f"data.camera_levels: {error}") from error
    if quality == (0, 0):
        return Options(levels, processed=processed)
    return Options(levels, (float(quality[0]), float(quality[1])))


def read_levels(path: str | Path) -> tuple[tuple[float, float], ...]:
    """Reads the measured noise levels of a JSON file: (shot, read) of each entry, weakest first.

    The file holds a list such as `[{"camera": "S6", "iso": 800, "shot": 4e-3, "read": 2e-5}]`. The
    variance of raw noise is shot * x + read for raw values x in [0, 1] (black to white level), as
    in the NoiseProfile of a DNG file.

    Raises:
      InputError: the file cannot be read, or an entry is wrong; names the entry and field.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"{path}: cannot be read: {reason}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: no JSON: {error.msg} in line {error.lineno}") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f'{path}: needs a list of {{"camera", "iso", "shot", "read"}}')
    levels = [_level(f"{path}: entry {i}", entry) for i, entry in enumerate(entries, start=1)]
    return tuple(sorted(levels))


def _level(place: str, entry: Any) -> tuple[float, float]:
    fields = ("camera", "iso", "shot", "read")
    if not isinstance(entry, dict) or set(entry) != set(fields):
        raise InputError(f"{place}: needs exactly the fields {', '.join(fields)}")
    if not isinstance(entry["camera"], str):
        raise InputError(f"{place}: camera must be a name in quotes, not {entry['camera']!r}")
    place += f" ({entry['camera']})"
    for field in fields[1:]:
        value = entry[field]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < float("inf"):
            raise InputError(f"{place}: {field} must be a number of at least 0, not {value!r}")
    if max(entry["shot"], entry["read"]) > 1:
        raise InputError(
            f"{place}: shot or read is above 1: give variances for raw values scaled to [0, 1]"
        )
    return float(entry["shot"]), float(entry["read"])


def sample_setting(
    key: jax.Array, options: Options, quantile: jax.Array | None = None
) -> CameraSetting:
    """Draws a camera, its exposure and its noise level.

    Args:
      key: a JAX random key.
      options: what to draw from.
      quantile: float32 [] in [0, 1), how strong the noise is among all levels; None to draw it.
    """
    # One draw of all numbers, because each call of jax.random takes half a second to compile.
    u = prng.uniform(key, (9 + len(_MATRIX_WEIGHTS),))
    # Brooks et al. leave the normals unbounded; three deviations keep the gains positive.
    normal = jnp.clip(math.sqrt(2) * jax.lax.erf_inv(2 * u[:2] - 1), -3, 3)
    strength = u[2] if quantile is None else quantile
    if options.levels:
        i = jnp.floor(strength * len(options.levels)).astype(jnp.int32)
        shot, read = jnp.asarray(options.levels, jnp.float32)[i]
    else:
        low, high = _WIDE_LOG_SHOT_RANGE if options.processed else _LOG_SHOT_RANGE
        deviation = _WIDE_READ_DEVIATION if options.processed else _READ_DEVIATION
        log_shot = low + strength * (high - low)
        shot = jnp.exp(log_shot)
        read = jnp.exp(_READ_SLOPE * log_shot + _READ_OFFSET + deviation * normal[0])
    quality = None
    if options.jpeg_quality:
        low, high = options.jpeg_quality
        quality = low + u[3] * (high - low)
    shares = u[9:] * _MATRIX_WEIGHTS
    xyz_to_camera = jnp.tensordot(shares / shares.sum(), _XYZ_TO_CAMERA, 1)
    rgb_to_camera = jnp.matmul(xyz_to_camera, _RGB_TO_XYZ, precision=jax.lax.Precision.HIGHEST)
    red, blue = (
        low + u[4] * (high - low) + _GAIN_SPREAD * (2 * u[i] - 1)
        for i, (low, high) in ((5, _RED_GAIN), (6, _BLUE_GAIN))
    )
    exposure = _EXPOSURE_MEAN + _EXPOSURE_DEVIATION * normal[1]
    return CameraSetting(
        shot=shot,
        read=read,
        rgb_to_camera=rgb_to_camera / rgb_to_camera.sum(axis=1, keepdims=True),
        gains=jnp.stack([red, jnp.ones_like(red), blue]) / exposure,
        tone=_TONE_RANGE[0] + u[7] * (_TONE_RANGE[1] - _TONE_RANGE[0]),
        malvar=(u[8] < _MALVAR_SHARE).astype(jnp.float32),
        jpeg_quality=quality,
        processing=(sample_processing(prng.fold_in(key, 1)) if options.processed else None),
    )


# --- Processing and its inverse ------------------------------------------------------------------


def _inverse(matrix: jax.Array) -> jax.Array:
    """Inverts [3, 3] by cross products of its rows."""
    a, b, c = matrix
    columns = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=1)
    return columns / jnp.dot(a, jnp.cross(b, c))


def _tone(encoded: jax.Array, strength: jax.Array) -> jax.Array:
    """Blends between no curve and 3 x^2 - 2 x^3, which darkens shadows and brightens highlights."""
    return encoded + strength * (encoded**2 * (3 - 2 * encoded) - encoded)


def _inverse_tone(toned: jax.Array, strength: jax.Array) -> jax.Array:
    """Inverts `_tone`: about its centre a cubic without square term, solved by sines."""
    slope = 1 + strength / 2
    radius = jnp.sqrt(slope / (6 * strength))
    return 0.5 + 2 * radius * jnp.sin(jnp.arcsin(1.5 * (toned - 0.5) / (radius * slope)) / 3)


def _tone_strength(setting: CameraSetting) -> jax.Array:
    return jnp.maximum(setting.tone, 1e-3)  # the sines have no limit at 0; 1/4000 is invisible


def unprocess(clean: jax.Array, setting: CameraSetting) -> tuple[jax.Array, jax.Array]:
    """Takes an sRGB photograph to linear camera colours: inverse tone curve, gamma and matrix.

    Raw values are these colours divided by the gains of white balance. Everywhere the same gains
    would leave no white pixel saturated, so, as in Brooks et al., they fade to 1 in highlights.

    Args:
      clean: float32 [H, W, 3] in [0, 1].
      setting: the camera.

    Returns:
      (white-balanced colours, gains), both [H, W, 3]. sRGB colours that the camera does not see as
      such have values below 0.
    """
    # Off 0 and 1, where the slope of the inverse may be infinite.
    encoded = _inverse_tone(jnp.clip(clean, 1e-7, 1 - 1e-7), _tone_strength(setting))
    linear = jnp.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    balanced = times(linear, setting.rgb_to_camera)
    brightness = balanced.mean(axis=-1, keepdims=True)
    fade = jnp.clip((brightness - _HIGHLIGHTS) / (1 - _HIGHLIGHTS), 0, 1) ** 2
    inverse = (1 / setting.gains).reshape(1, 1, 3)
    inverse_gains = jnp.maximum(fade + (1 - fade) * inverse, inverse)
    return balanced, 1 / inverse_gains


def process(balanced: jax.Array, setting: CameraSetting) -> jax.Array:
    """Takes white-balanced linear camera colours to sRGB: matrix, gamma, tone curve.

    Args:
      balanced: float32 [H, W, 3]; what comes out below 0 or above 1 is clipped.
      setting: the camera.

    Returns:
      float32 [H, W, 3] in [0, 1], not rounded.
    """
    return _encode(times(balanced, _inverse(setting.rgb_to_camera)), setting)


def _encode(linear: jax.Array, setting: CameraSetting) -> jax.Array:
    """Takes linear sRGB, clipped to [0, 1], to sRGB: gamma and tone curve."""
    linear = jnp.clip(linear, 0, 1)
    power = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    encoded = jnp.where(linear <= 0.0031308, 12.92 * linear, power)
    return _tone(encoded, _tone_strength(setting))


def _sites(shape: tuple[int, ...], phase: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Finds rows and columns of an RGGB mosaic that hold red: (bool [H, 1], bool [1, W]).

    `phase`: int32 [2], 0 or 1, how far the first red pixel is from the corner.
    """
    rows = (jnp.arange(shape[0], dtype=jnp.int32) + phase[0]) % 2 == 0
    columns = (jnp.arange(shape[1], dtype=jnp.int32) + phase[1]) % 2 == 0
    return rows[:, None], columns[None, :]


def mosaic(colours: jax.Array, phase: jax.Array) -> jax.Array:
    """Picks the one colour that each pixel of an RGGB sensor records: [H, W, 3] -> [H, W]."""
    rows, columns = _sites(colours.shape, phase)
    red, green, blue = (colours[..., i] for i in range(3))
    return jnp.where(rows & columns, red, jnp.where(rows | columns, green, blue))


def demosaic(raw: jax.Array, phase: jax.Array, malvar: jax.Array) -> jax.Array:
    """Fills in all three colours at each pixel of a mosaic.

    Takes [H, W] to [H, W, 3], borders reflected.

    `malvar`: 1 for Malvar, He and Cutler's linear filters, 0 for bilinear interpolation.
    """
    rows, columns = _sites(raw.shape, phase)
    padded = jnp.pad(raw, 2, mode="reflect")  # without the edge pixel, which keeps the pattern
    kernels = jnp.asarray(np.concatenate([_BILINEAR, _LAPLACIAN])[:, None])
    filtered = jax.lax.conv_general_dilated(
        padded[None, None], kernels, (1, 1), "VALID", precision=jax.lax.Precision.HIGHEST
    )[0]
    across, horizontal, vertical, corners = filtered[:4] + malvar * filtered[4:]
    aside = jnp.where(rows, horizontal, vertical)  # of red at green
    beside = jnp.where(rows, vertical, horizontal)  # of blue at green
    green_site = rows ^ columns
    red = jnp.where(green_site, aside, jnp.where(rows, raw, corners))
    green = jnp.where(green_site, raw, across)
    blue = jnp.where(green_site, beside, jnp.where(rows, corners, raw))
    return jnp.stack([red, green, blue], axis=-1)


# --- Noise ---------------------------------------------------------------------------------------


def raw_noise(key: jax.Array, raw: jax.Array, setting: CameraSetting) -> jax.Array:
    """Draws a sensor's noise on a mosaic [H, W]: variance shot * x + read, raw + noise in [0, 1].

    `raw` is in [0, 1]. The Gaussian stands for photons and electronics together (Foi et al. 2008).
    """
    # Above 0, where the square root has no slope.
    variance = jnp.maximum(setting.shot * raw + setting.read, 1e-12)
    noise = jnp.sqrt(variance) * prng.normal(key, raw.shape)
    return jnp.clip(raw + noise, 0, 1) - raw


def add_noise(key: jax.Array, clean: jax.Array, setting: CameraSetting) -> jax.Array:
    """Puts a camera's noise on one image, which without noise would stay as it is.

    The patch lies at a random place of the mosaic and of JPEG's blocks. JPEG's losses count as
    noise: they are in the noisy image alone.

    Args:
      key: a JAX random key.
      clean: float32 [H, W, 3] in [0, 1], H and W at least 3, or 9 where noise is processed.
      setting: scalars and matrices; map over a batch with `jax.vmap`.

    Returns:
      float32 [H, W, 3], 8-bit levels in [0, 1].
    """
    noise_key, place_key = prng.split(key)
    sides = np.array([2, 2, 16, 16] if setting.processing else [2, 2, 8, 8], np.float32)
    place = jnp.floor(prng.uniform(place_key, (4,)) * sides).astype(jnp.int32)
    phase, corner = place[:2], place[2:]
    balanced, gains = unprocess(clean, setting)
    if setting.processing is None:
        raw = mosaic(jnp.clip(balanced / gains, 0, 1), phase)
        noise = raw_noise(noise_key, raw, setting) * mosaic(gains, phase)
        noisy = to_8_bits(process(balanced + demosaic(noise, phase, setting.malvar), setting))
        return noisy if setting.jpeg_quality is None else jpeg(noisy, setting.jpeg_quality, corner)

    to_linear = _inverse(setting.rgb_to_camera)
    noise = times(_processed_noise(noise_key, balanced, gains, phase, setting), to_linear)
    filtered = filter_noise(noise, setting.processing)
    filtered, noise = (x[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] for x in (filtered, noise))
    noise = keep_at_edges(filtered, noise, clean, setting.processing)
    noisy = to_8_bits(_encode(times(balanced, to_linear) + noise, setting))
    quality = setting.processing.jpeg_quality
    compressed = jpeg(noisy, jnp.maximum(quality, 1.0), corner, setting.processing.subsampled)
    return jnp.where(quality > 0, compressed, noisy)


def _processed_noise(
    key: jax.Array, balanced: jax.Array, gains: jax.Array, phase: jax.Array, setting: CameraSetting
) -> jax.Array:
    """Draws noise of a mosaic reduced in size, or of each channel by itself.

    It has a margin around it.

    Not clipped like `raw_noise`: cameras put black above 0 until the noise is smoothed, and
    smoothing would spread the bias that clipping makes.

    Returns:
      float32 [H + 2 M, W + 2 M, 3] in white-balanced camera colours.
    """
    processing = setting.processing
    assert processing is not None
    variance = setting.shot * jnp.clip(balanced / gains, 0, 1) + setting.read
    around = ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0))
    deviation = jnp.pad(jnp.sqrt(variance) * gains, around, mode="reflect")
    height, width, _ = deviation.shape
    # What is reduced by half was twice as large.
    large = (2 * height, 2 * width)
    white = prng.normal(key, large)
    raw = white * mosaic(resize(deviation, 1 / processing.scale, large), phase)
    developed = demosaic(raw, phase, setting.malvar)
    reduced = resize(developed, processing.scale, (height, width))
    each = white.reshape(4, height, width)[:3].transpose(1, 2, 0) * deviation
    return jnp.where(processing.mosaic, reduced, each)


def match_level(
    key: jax.Array, clean: jax.Array, setting: CameraSetting, deviation: jax.Array
) -> CameraSetting:
    """Makes the setting noisier or less so, until its noise has a wanted level.

    Twenty halvings of a factor on shot noise, at most e^10 up or down. Read noise follows by the
    slope of the published line, so a good camera stays good and a bad one bad.

    Args:
      key: a JAX random key, of the noise that is measured.
      clean: float32 [H, W, 3] in [0, 1].
      setting: the camera.
      deviation: float32 [], wanted standard deviation of the noise over all pixels and channels, in
        [0, 1] units. Out of reach, the nearest level is returned.
    """

    def stronger(log_factor: jax.Array) -> CameraSetting:
        shot = setting.shot * jnp.exp(log_factor)
        return setting._replace(shot=shot, read=setting.read * jnp.exp(_READ_SLOPE * log_factor))

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        weak = jnp.std(add_noise(key, clean, stronger(middle)) - clean) < deviation
        return jnp.where(weak, middle, low), jnp.where(weak, high, middle)

    low, high = jax.lax.fori_loop(0, 20, halve, (jnp.float32(-10), jnp.float32(10)))
    return stronger((low + high) / 2)
