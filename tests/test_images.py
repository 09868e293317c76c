"""Image files: what is kept, what is refused, and that nothing partial is left."""

import logging
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps, IptcImagePlugin, PngImagePlugin

from nt_jax import images
from nt_jax.errors import InputError
from nt_jax.formats import raw
from nt_jax.images import Photo, find_images, read_photo, write_photo

RNG = np.random.default_rng(0)
SIZE = (20, 24)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(dtype=np.uint8, channels=3):
    shape = SIZE if channels == 1 else (*SIZE, channels)
    return RNG.integers(np.iinfo(dtype).max, size=shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        (".png", np.uint8),
        (".png", np.uint16),
        (".tif", np.uint8),
        (".tiff", np.uint16),
        (".webp", np.uint8),
    ],
)
def test_lossless_formats_keep_everything(tmp_path, suffix, dtype, channels, alpha):
    photo = Photo(pixels(dtype, channels), pixels(dtype, 1) if alpha else None, PROFILE)
    path = tmp_path / f"image{suffix}"
    write_photo(path, photo)
    again = read_photo(path)
    expected = photo.pixels
    if suffix == ".webp" and channels == 1:  # has no grey
        expected = np.repeat(expected[..., None], 3, axis=-1)
    np.testing.assert_array_equal(again.pixels, expected)
    assert again.pixels.dtype == dtype
    assert (again.alpha is None) == (photo.alpha is None)
    if alpha:
        np.testing.assert_array_equal(again.alpha, photo.alpha)
    assert again.icc_profile == PROFILE
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_keeps_grey_and_profile(tmp_path, channels):
    smooth = np.broadcast_to(np.linspace(20, 220, SIZE[1], dtype=np.uint8), SIZE)
    smooth = smooth if channels == 1 else np.repeat(smooth[..., None], 3, axis=-1)
    write_photo(tmp_path / "a.JPG", Photo(smooth, icc_profile=PROFILE))
    again = read_photo(tmp_path / "a.JPG")
    assert again.pixels.shape == smooth.shape
    assert again.icc_profile == PROFILE
    assert np.abs(again.pixels.astype(int) - smooth).max() <= 4
    with Image.open(tmp_path / "a.JPG") as image:
        assert image.format == "JPEG"


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_16_bits_become_8_where_the_format_has_no_more(tmp_path, suffix):
    write_photo(tmp_path / f"a{suffix}", Photo(np.full((16, 16, 3), 32896, np.uint16)))
    assert (read_photo(tmp_path / f"a{suffix}").pixels == 128).all()


def test_depths_map_full_range_to_full_range():
    bytes_ = np.arange(256, dtype=np.uint8)
    words = images.as_depth(bytes_, np.dtype(np.uint16))
    assert (words[0], words[-1]) == (0, 65535)
    np.testing.assert_array_equal(images.as_depth(words, np.dtype(np.uint8)), bytes_)
    every = np.arange(65536, dtype=np.uint16)
    rounded = np.rint(every / 257).astype(np.uint8)
    np.testing.assert_array_equal(images.as_depth(every, np.dtype(np.uint8)), rounded)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_float_and_back_is_exact(dtype, channels):
    values = pixels(dtype, channels)
    image = images.to_float(values)
    assert image.shape == (*SIZE, 3)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(images.from_float(image, values.dtype, channels == 1), values)


def test_grey_is_luma():
    image = np.zeros((1, 3, 3), np.float32)
    image[0, range(3), range(3)] = 1
    grey = images.from_float(image, np.dtype(np.uint8), grey=True)
    np.testing.assert_array_equal(grey, [[76, 150, 29]])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_exif_rotation_is_applied(tmp_path, suffix, orientation):
    image = Image.fromarray(np.repeat(np.repeat(pixels()[:3, :2], 8, 0), 12, 1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    image.save(path, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    np.testing.assert_array_equal(read_photo(path).pixels, expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_rotation_of_16_bit_files(tmp_path, suffix):
    values, path = pixels(np.uint16), tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, values, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    else:
        write_photo(path, Photo(values))
        exif = Image.Exif()
        exif[0x0112] = 6
        body = b"eXIf" + exif.tobytes()[6:]
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        data = path.read_bytes()
        path.write_bytes(data[:33] + chunk + data[33:])
    np.testing.assert_array_equal(read_photo(path).pixels, np.rot90(values, -1))


@pytest.mark.parametrize(
    ("options", "axis"),
    [
        ({"byteorder": ">"}, None),
        ({"planarconfig": "separate"}, -1),
        ({"compression": "lzw"}, None),
    ],
)
def test_16_bit_tiff_layouts(tmp_path, options, axis):
    values = pixels(np.uint16)
    stored = values if axis is None else np.moveaxis(values, axis, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    again = read_photo(tmp_path / "a.tif").pixels
    assert again.dtype == np.uint16
    np.testing.assert_array_equal(again, values)


@pytest.mark.parametrize(
    ("mode", "suffix", "channels", "alpha"),
    [
        ("1", ".png", 1, False),
        ("P", ".png", 3, False),
        ("PA", ".png", 3, True),
        ("CMYK", ".jpg", 3, False),
        ("CMYK", ".tif", 3, False),
    ],
)
def test_other_kinds_become_rgb_or_grey(tmp_path, mode, suffix, channels, alpha):
    image = Image.fromarray(pixels(channels=4 if alpha else 3))
    path = tmp_path / f"a{suffix}"
    if mode in ("P", "PA"):
        image.quantize(16).save(path)
    else:
        image.convert(mode).save(path)
    photo = read_photo(path)
    assert photo.pixels.shape == (SIZE if channels == 1 else (*SIZE, 3))
    assert (photo.alpha is not None) == alpha
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert(("L" if channels == 1 else "RGB") + "A" * alpha))
    np.testing.assert_array_equal(photo.pixels, expected if channels == 1 else expected[..., :3])


def test_unsupported_pixels_and_several_frames_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((20, 20, 3), np.float32), photometric="rgb")
    with pytest.raises(InputError, match="float32"):
        read_photo(tmp_path / "float.tif")
    frames = [Image.fromarray(pixels()) for _ in range(2)]
    for name in ("many.webp", "many.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(InputError, match="holds 2 images"):
            read_photo(tmp_path / name)


def test_the_limit_of_pixels_is_ours_and_pillows_stays(tmp_path, monkeypatch):
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    read_photo(tmp_path / "a.png")
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize(
    ("name", "photo", "message"),
    [
        ("a.gif", Photo(pixels()), "must end in"),
        ("a", Photo(pixels()), "must end in"),
        ("a.jpg", Photo(pixels(), pixels(channels=1)), "alpha"),
        ("a.webp", Photo(np.zeros((16, 16384, 3), np.uint8)), "16384x16 is too large"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, name, photo, message):
    with pytest.raises(InputError, match=message):
        write_photo(tmp_path / name, photo)
    assert not list(tmp_path.iterdir())


def test_failed_writing_leaves_nothing_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_photo(path, Photo(pixels()))
    before = path.read_bytes()

    def full_disk(temporary, *_):
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images, "_encode", full_disk)
    with pytest.raises(InputError, match="No space left on device"):
        write_photo(path, Photo(pixels()))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_writing_into_nowhere_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_photo(tmp_path / "none" / "a.png", Photo(pixels()))


def test_find_images(tmp_path):
    root, outside = tmp_path / "in", tmp_path / "outside.png"
    outside.write_bytes(b"")
    for name in (
        "b.PNG",
        "a/z.jpg",
        "a.tif",
        ".hidden.png",
        ".dir/x.png",
        "notes.txt",
        "out/o.png",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (root / "link.png").symlink_to(outside)
    (root / "inside.png").symlink_to(root / "b.PNG")
    (root / "loop").symlink_to(root)
    found = [path.as_posix() for path in find_images(root, root / "out")]
    assert found == ["a.tif", "a/z.jpg", "b.PNG", "inside.png"]
    with pytest.raises(InputError, match="no image found"):
        find_images(tmp_path / "empty", tmp_path / "out")


# --- What a TIFF says of its samples -------------------------------------------------------------

WRITERS = {"transfer": read_photo, "training": images.read_rgb}


def tiff(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


def both(path, expected):
    """Both ways of reading give `expected`, in [0, 1] and [H, W, 3], to half a step of theirs."""
    deep = images.to_float(read_photo(path).pixels)
    np.testing.assert_allclose(deep, expected, atol=0.51 / np.iinfo(np.uint8).max)
    np.testing.assert_allclose(images.read_rgb(path) / 255, expected, atol=1.01 / 255)
    assert images.image_size(path) == deep.shape[:2]
    return deep


@pytest.mark.parametrize("bits", [*range(1, 17), 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_white_is_that_of_the_bits_of_a_sample(tmp_path, bits, channels):
    white = 2**bits - 1
    values = np.rint(pixels(np.uint16, channels) / 65535 * white).astype(np.uint32)
    data = np.unpackbits(values.astype(">u4").view(np.uint8).reshape(*values.shape, 4), axis=-1)
    rows = data[..., -bits:].reshape(len(values), -1)
    packed = np.packbits(rows, axis=1).tobytes()
    path = tmp_path / "a.tif"
    path.write_bytes(packed_tiff(packed, bits, channels))
    expected = values / white if channels == 3 else np.repeat((values / white)[..., None], 3, -1)
    deep = both(path, expected)
    assert read_photo(path).pixels.dtype == (np.uint8 if bits <= 8 else np.uint16)
    np.testing.assert_allclose(deep, expected, atol=0.51 / (255 if bits <= 8 else 65535))


def packed_tiff(data, bits, channels, photometric=None):
    """A big-endian TIFF of one strip, rows padded to bytes."""
    photometric = (1 if channels == 1 else 2) if photometric is None else photometric
    end = 8 + 2 + 12 * 9 + 4
    tags = [
        *((256, 3, SIZE[1]), (257, 3, SIZE[0]), (258, 3, bits), (259, 3, 1)),
        *((262, 3, photometric), (273, 4, end + 6), (277, 3, channels), (278, 3, SIZE[0])),
        (279, 4, len(data)),
    ]
    head = b"MM\0*" + struct.pack(">IH", 8, len(tags))
    for code, kind, value in tags:
        if code == 258 and channels == 3:
            head += struct.pack(">HHII", code, kind, 3, end)
        else:
            head += struct.pack(">HHI", code, kind, 1) + struct.pack(
                ">HH" if kind == 3 else ">I", *([value, 0] if kind == 3 else [value])
            )
    return head + bytes(4) + struct.pack(">3H", bits, bits, bits) + data


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_may_be_zero(tmp_path, dtype):
    values = pixels(dtype, 1)
    tiff(tmp_path / "a.tif", values, photometric="miniswhite")
    white = np.iinfo(dtype).max
    both(tmp_path / "a.tif", np.repeat((1 - values / white)[..., None], 3, -1))
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels, white - values)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("layout", ["strips", "tiles", "planes", "planes in tiles", "swapped"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_layouts_give_the_same_pixels(tmp_path, dtype, layout, compression):
    values = pixels(dtype)
    options = {"compression": compression, "predictor": compression is not None}
    options |= {"tile": (16, 16)} if "tiles" in layout else {"rowsperstrip": 3}
    stored = values
    if "planes" in layout:
        stored, options["planarconfig"] = np.moveaxis(values, -1, 0), "separate"
    if layout == "swapped":
        options["byteorder"] = ">"
    tiff(tmp_path / "a.tif", stored, photometric="rgb", **options)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels, values)
    both(tmp_path / "a.tif", values / np.iinfo(dtype).max)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_inks_become_rgb(tmp_path, dtype):
    inks, white = pixels(dtype, 4), np.iinfo(dtype).max
    tiff(tmp_path / "a.tif", inks, photometric="separated", iccprofile=PROFILE)
    both(tmp_path / "a.tif", (1 - inks[..., :3] / white) * (1 - inks[..., 3:] / white))
    assert read_photo(tmp_path / "a.tif").icc_profile is None


def test_a_palette_of_a_tiff(tmp_path):
    colours = RNG.integers(0, 256, (3, 256)).astype(np.uint16)
    index = pixels(np.uint8, 1)
    tiff(tmp_path / "a.tif", index, photometric="palette", colormap=colours * 257)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels, colours.T[index])


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.zeros((*SIZE, 3), np.float32), {"photometric": "rgb"}, "floating-point .*float32"),
        (np.zeros(SIZE, np.float16), {"photometric": "minisblack"}, "floating-point"),
        (np.zeros(SIZE, np.int16), {"photometric": "minisblack"}, "signed integer"),
        (np.zeros(SIZE, np.complex64), {"photometric": "minisblack"}, "complex"),
        (np.zeros((*SIZE, 3), np.uint8), {"photometric": "cielab"}, "the .* CIELAB"),
        (np.zeros((*SIZE, 3), np.uint16), {"photometric": "icclab"}, "the .* ICCLAB"),
        (np.zeros((*SIZE, 8), np.uint16), {"photometric": "minisblack"}, "more than 3 channels"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(tmp_path, array, options, message):
    if array.ndim == 3:
        options = options | {"planarconfig": "contig"}
    tiff(tmp_path / "a.tif", array, **options)
    for read in (read_photo, images.read_rgb, images.image_size):
        with pytest.raises(InputError, match=rf"a\.tif has {message}"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["unspecified", "unassalpha", "assocalpha", "second"])
def test_alpha_is_what_a_tag_says_it_is(tmp_path, dtype, channels, kind):
    colours, opacity = pixels(dtype, channels), pixels(dtype, 1)
    opacity[:2], white = 0, np.iinfo(dtype).max
    stored = colours
    if kind == "assocalpha":
        share = (opacity / white) if channels == 1 else (opacity / white)[..., None]
        stored = np.rint(colours * share).astype(dtype)
    infrared = pixels(dtype, 1)
    planes = [stored, opacity] if kind != "second" else [stored, infrared, opacity]
    kinds = [kind] if kind != "second" else ["unspecified", "unassalpha"]
    photometric = "rgb" if channels == 3 else "minisblack"
    options = {"photometric": photometric, "planarconfig": "contig", "extrasamples": kinds}
    tiff(tmp_path / "a.tif", np.dstack(planes), **options)
    photo = read_photo(tmp_path / "a.tif")
    assert photo.pixels.shape == colours.shape
    if kind == "unspecified":
        assert photo.alpha is None
    else:
        np.testing.assert_array_equal(photo.alpha, opacity)
    if kind == "assocalpha":
        dark = opacity < 16
        assert not photo.pixels[opacity == 0].any()
        lost = np.abs(photo.pixels.astype(int) - colours)[~dark]
        assert (
            lost
            <= white
            / np.maximum(opacity[~dark], 1).astype(float).reshape(-1, *[1] * (channels > 1))
            + 1
        ).all()
    else:
        np.testing.assert_array_equal(photo.pixels, colours)
    write_photo(tmp_path / "b.tif", photo)
    again = read_photo(tmp_path / "b.tif")
    np.testing.assert_array_equal(again.pixels, photo.pixels)


def test_a_transparent_colour_of_a_deep_png(tmp_path):
    values = pixels(np.uint16)
    write_photo(tmp_path / "a.png", Photo(values))
    data = (tmp_path / "a.png").read_bytes()
    body = b"tRNS" + values[3, 4].astype(">u2").tobytes()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    photo = read_photo(tmp_path / "a.png")
    assert np.argwhere(photo.alpha == 0).tolist() == [[3, 4]]
    np.testing.assert_array_equal(photo.pixels, values)


@pytest.mark.parametrize("bits", [2, 4])
def test_a_transparent_grey_of_few_bits(tmp_path, bits):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 16, 16, bits, 0, 0, 0, 0)
    row = b"\0" + bytes(range(2 * bits))  # the first pixels are 0, the last of the second byte 1
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"tRNS", b"\0\1")
        + chunk(b"IDAT", zlib.compress(16 * row))
        + chunk(b"IEND", b"")
    )
    photo = read_photo(tmp_path / "a.png")
    ones = photo.pixels == 255 // (2**bits - 1)
    assert ones.any()
    np.testing.assert_array_equal(photo.alpha == 0, ones)


# --- Which image of a file -----------------------------------------------------------------------


def layered(path, *layers):
    with tifffile.TiffWriter(path) as file:
        for array, options in layers:
            file.write(array, metadata=None, **({"photometric": "rgb"} | options))
    return path


def test_a_reduced_page_is_not_the_photograph(tmp_path):
    values = pixels()
    small = np.repeat(np.repeat(values[:16, :16], 1, 0), 1, 1)
    reduced = (small, {"subfiletype": 1})
    for layers in ([(values, {}), reduced], [reduced, (values, {})]):
        layered(tmp_path / "a.tif", *layers)
        np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels, values)
        assert images.image_size(tmp_path / "a.tif") == SIZE
    layered(tmp_path / "b.tif", (small, {"subfiletype": 1, "subifds": 1}), (values, {}))
    np.testing.assert_array_equal(read_photo(tmp_path / "b.tif").pixels, values)
    layered(tmp_path / "c.tif", (small, {"subifds": 1}), (values, {}))
    with pytest.raises(InputError, match="larger image"):
        read_photo(tmp_path / "c.tif")


def raw_file(path):
    mosaic = [(33421, "H", 2, (2, 2), False), (33422, "B", 4, b"\0\1\1\2", False)]
    return layered(
        path,
        (pixels()[:16, :16], {"subfiletype": 1, "subifds": 1}),
        (pixels(np.uint16, 1), {"photometric": 32803, "extratags": mosaic}),
    )


@pytest.mark.parametrize("name", ["shot.dng", "shot.NEF", "shot.tif", "shot.ARW"])
def test_raw_files_are_refused_with_how_to_develop_them(tmp_path, monkeypatch, name):
    monkeypatch.setattr(raw, "can_develop", lambda: False)
    raw_file(tmp_path / name)
    for read in (read_photo, images.read_rgb, images.image_size):
        with pytest.raises(
            InputError, match=r"raw file: develop it to a 16-bit TIFF.*nt_jax\[raw\]"
        ):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "head",
    [
        b"\0\0\0\x18ftypcrx \0\0\0\x01",
        b"FUJIFILMCCD-RAW 0201",
        b"IIRO\x08\0\0\0",
        b"IIU\0\x18\0\0\0",
        b"II*\0\x10\0\0\0CR\x02\0",
        b"FOVb" + bytes(12),
        b"\0MRM" + bytes(12),
    ],
)
def test_raw_files_are_known_whatever_they_are_called(tmp_path, monkeypatch, head):
    monkeypatch.setattr(raw, "can_develop", lambda: False)
    (tmp_path / "a.jpg").write_bytes(head + bytes(100))
    with pytest.raises(InputError, match="raw file: develop it"):
        read_photo(tmp_path / "a.jpg")


def test_raw_files_are_developed_where_rawpy_is(tmp_path):
    pytest.importorskip("rawpy")
    path = dng(tmp_path / "shot.dng")
    photo = read_photo(path)
    assert photo.pixels.dtype == np.uint16
    assert photo.pixels.shape[:2] == images.image_size(path)
    assert min(photo.pixels.shape[:2]) >= 60
    middle = photo.pixels[20:40, 20:40].mean((0, 1)) / 65535
    # A quarter of white, by the curve of sRGB.
    np.testing.assert_allclose(middle, 0.537, atol=0.05)


def test_exif_of_a_raw_file_is_kept(tmp_path, monkeypatch):
    developed = pixels(np.uint16)
    monkeypatch.setattr(raw, "can_develop", lambda: True)
    monkeypatch.setattr(raw, "size", lambda _: SIZE)
    monkeypatch.setattr(raw, "develop", lambda _: developed)
    path = dng(tmp_path / "shot.dng", [(0x0110, "s", 0, "Camera", True), (0x0112, "H", 1, 6, True)])
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, developed)
    exif = images.metadata.exif_of_bytes(photo.exif)
    assert (exif[0x0110], exif.get(0x0112)) == ("Camera", None)
    (tmp_path / "shot.raf").write_bytes(b"FUJIFILMCCD-RAW 0201" + bytes(100))
    assert read_photo(tmp_path / "shot.raf").exif is None


def dng(path, extra=()):
    """A DNG of a flat grey at a quarter of white, whose camera saw half as much red and blue."""
    mosaic = np.full((64, 80), 4096, np.uint16)
    mosaic[::2, ::2] = mosaic[1::2, 1::2] = 2048
    unit = [(int(i == j), 1) for i in range(3) for j in range(3)]
    xyz = np.linalg.inv(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    del unit
    matrix = [int(v) for row in xyz for value in row for v in (round(value * 10000), 10000)]
    tags = [
        (50706, "B", 4, b"\1\4\0\0", True),
        (50708, "s", 0, "Test", True),
        (50714, "H", 1, 0, True),
        (50717, "H", 1, 16383, True),
        (50721, "2i", 9, matrix, True),
        (50728, "2I", 3, [1, 2, 1, 1, 1, 2], True),
        (50778, "H", 1, 21, True),
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, b"\0\1\1\2", True),
        *extra,
    ]
    tifffile.imwrite(path, mosaic, photometric=32803, metadata=None, extratags=tags)
    return path


# --- Metadata ------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [".png", ".jpg", ".tif", ".webp", "16.png", "16.tif"])
@pytest.mark.parametrize("source", [".jpg", ".png", ".tif", ".webp"])
def test_exif_and_resolution_are_kept_and_the_orientation_is_not(tmp_path, source, target):
    exif = Image.Exif()
    exif[0x0110], exif[0x0112] = "Camera", 6
    exif[0x8769] = {0x9003: "2026:01:01 00:00:00", 0x8827: 3200, 0xA002: SIZE[1]}
    exif[0x8825] = {1: "N"}
    path = tmp_path / f"a{source}"
    if source == ".webp":
        exif[0x011A], exif[0x011B], exif[0x0128] = 300.0, 300.0, 2
        Image.fromarray(pixels()).save(path, exif=exif, lossless=True)
    else:
        loaded = Image.Exif()  # whose directories Pillow can write into a TIFF
        loaded.load(exif.tobytes())
        Image.fromarray(pixels()).save(path, exif=loaded, dpi=(300, 300))
    photo = read_photo(path)
    assert photo.pixels.shape == (SIZE[1], SIZE[0], 3)
    if target.startswith("16"):
        photo = replace(photo, pixels=images.as_depth(photo.pixels, np.dtype(np.uint16)))
    write_photo(tmp_path / f"b{target}", photo)
    with Image.open(tmp_path / f"b{target}") as image:
        kept = image.getexif()
        assert kept.get(0x0110) == "Camera"
        assert kept.get(0x0112, 1) == 1
        shot = kept.get_ifd(0x8769)
        assert (shot[0x9003], shot[0x8827]) == ("2026:01:01 00:00:00", 3200)
        assert shot[0xA002] == SIZE[0]
        assert kept.get_ifd(0x8825)[1] == "N"
        if target != ".webp":
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.02)
    again = read_photo(tmp_path / f"b{target}")
    assert again.pixels.shape == photo.pixels.shape
    assert again.resolution == pytest.approx((300, 300), abs=0.02)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_keeps_its_byte_order(tmp_path, suffix, order):
    """A maker's note stays the bytes it is, and most are read in the order of what is around."""
    exif = Image.Exif()
    exif.endian = order
    exif[0x8769] = {0x927C: b"\1\0\x95\0\7\0"}
    write_photo(tmp_path / f"a{suffix}", Photo(pixels(), exif=exif.tobytes()))
    kept = read_photo(tmp_path / f"a{suffix}").exif.removeprefix(b"Exif\0\0")
    assert kept[:2] == {"<": b"II", ">": b"MM"}[order]
    assert images.metadata.exif_of_bytes(kept).get_ifd(0x8769)[0x927C] == b"\1\0\x95\0\7\0"


def test_exif_of_a_big_tiff_is_kept(tmp_path):
    tags = [(315, "s", 0, "Me", True), (33432, "s", 0, "(c) Me", True)]
    about = {"photometric": "rgb", "metadata": None, "extratags": tags, "byteorder": "<"}
    about |= {"resolution": (300, 300), "resolutionunit": "INCH"}
    tifffile.imwrite(tmp_path / "a.tif", pixels(), bigtiff=True, **about)
    photo = read_photo(tmp_path / "a.tif")
    kept = images.metadata.exif_of_bytes(photo.exif)
    assert (kept[315], kept[33432], photo.resolution) == ("Me", "(c) Me", (300, 300))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_large_profile_of_a_png(tmp_path, monkeypatch, dtype):
    profile = PROFILE + bytes(2**21)
    photo = Photo(pixels(dtype), icc_profile=profile)
    write_photo(tmp_path / "a.png", photo)
    again = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(again.pixels, photo.pixels)
    assert again.icc_profile == profile
    monkeypatch.setattr(images.png, "_LARGEST_PROFILE", 2**20)
    again = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(again.pixels, photo.pixels)
    assert again.icc_profile is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_texts_of_exif_keep_their_bytes(tmp_path, suffix):
    texts = {0x8298: "© Jürgen".encode(), 0x013B: "Jürgen".encode("latin-1"), 0x010E: b"a\0b"}
    exif = Image.Exif()
    exif.update(texts)
    exif[0x4746], exif[0x9C9B] = 4, "Straße".encode("utf-16-le") + b"\0\0"
    # Pillow takes no bytes for a text of that directory: as many replace a text in ASCII.
    exif[0x8769] = {0xA430: "OWNER?"}
    data = exif.tobytes().replace(b"OWNER?", "Jürg".encode() + b"\0")
    photo = Photo(pixels(), exif=data, resolution=(300, 300))
    for _ in range(2):  # as written, and as read and written again
        write_photo(tmp_path / f"a{suffix}", photo)
        photo = read_photo(tmp_path / f"a{suffix}")
        kept = images.metadata.exif_of_bytes(photo.exif)
        assert {tag: kept[tag].encode("latin-1") for tag in texts} == texts
        assert (kept[0x4746], kept[0x9C9B]) == (exif[0x4746], exif[0x9C9B])
        owner = kept.get_ifd(0x8769)[0xA430]
        assert owner.rstrip("\0").encode("latin-1") == "Jürg".encode()


XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"
   xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"
   xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" crs:Exposure2012="+1.50">
  <dc:subject xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Bag><rdf:li>Köln &amp; Rhein</rdf:li>
  </rdf:Bag></dc:subject>
  <xmp:Thumbnails><rdf:Alt><rdf:li>small</rdf:li></rdf:Alt></xmp:Thumbnails>
 </rdf:Description>
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()
IPTC = b"\x1c\2\x19\0\5Rhein\x1c\2\x5a\0\4City"


@pytest.mark.parametrize("target", [".png", ".jpg", ".tif", ".webp", "16.png", "16.tif"])
@pytest.mark.parametrize("source", [".jpg", ".png", ".tif", ".webp"])
def test_what_people_wrote_is_kept_and_the_rest_of_xmp_is_not(tmp_path, source, target):
    path = tmp_path / f"a{source}"
    image = Image.fromarray(pixels())
    if source == ".tif":
        tags = [(700, 1, len(XMP), XMP, True), (33723, 7, len(IPTC), IPTC, True)]
        tifffile.imwrite(path, pixels(), photometric="rgb", metadata=None, extratags=tags)
    elif source == ".png":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
        image.save(path, pnginfo=text)
    elif source == ".jpg":
        block = b"8BIM\4\4\0\0" + len(IPTC).to_bytes(4, "big") + IPTC + bytes(len(IPTC) % 2)
        content = b"Photoshop 3.0\0" + block
        segment = b"\xff\xed" + (len(content) + 2).to_bytes(2, "big") + content
        image.save(path, xmp=XMP, extra=segment)
    else:
        image.save(path, xmp=XMP)
    photo = read_photo(path)
    assert (photo.iptc == IPTC) == (source in (".jpg", ".tif"))
    if target.startswith("16"):
        photo = replace(photo, pixels=images.as_depth(photo.pixels, np.dtype(np.uint16)))
    write_photo(tmp_path / f"b{target}", photo)
    again = read_photo(tmp_path / f"b{target}")
    assert again.xmp == photo.xmp
    assert again.iptc == (photo.iptc if target.endswith(("jpg", "tif")) else None)
    with Image.open(tmp_path / f"b{target}") as image:
        image.load()
        written = image.info.get("xmp") or image.getexif()[700]
        text = written.decode() if isinstance(written, bytes) else written
        if again.iptc:
            fields = IptcImagePlugin.getiptcinfo(image)
            assert (fields[2, 25], fields[2, 90]) == (b"Rhein", b"City")
    root = ElementTree.fromstring(text.strip("\ufeff"))
    assert next(root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li")).text == "Köln & Rhein"
    assert 'xmp:Rating="4"' in text
    for gone in ("Orientation=", "Exposure2012=", "Thumbnails"):
        assert gone not in text


@pytest.mark.parametrize(
    "data",
    [
        b"no XML",
        XMP[: len(XMP) // 2],
        XMP.replace(b"<x:xmpmeta", b'<!DOCTYPE x [<!ENTITY a "b">]><x:xmpmeta'),
        XMP.replace(b"Rating", b"Other" * 14_000),
        b"<a>" * 10_000,
        "Ä".encode("latin-1"),
        b'<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description/></r:RDF>',
    ],
    ids=["text", "truncated", "entities", "large", "nested", "bytes", "empty"],
)
def test_xmp_that_is_damaged_or_says_nothing_is_left_out(tmp_path, data):
    write_photo(tmp_path / "a.webp", Photo(pixels(), xmp=data))
    photo = read_photo(tmp_path / "a.webp")
    assert photo.xmp is None
    assert photo.pixels.shape == (*SIZE, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_bytes_of_exif_have_the_type_that_it_says(tmp_path, suffix):
    """UserComment and the like are UNDEFINED (7), GPS' version is BYTE (1): EXIF 2.32, tables."""
    exif = Image.Exif()
    exif[0x8769] = {0x9286: b"ASCII\0\0\0a comment", 0xA300: b"\3", 0xA005: {2: b"0100"}}
    exif[0x8825] = {0: b"\2\3\0\0", 0x1B: b"ASCII\0\0\0GPS"}
    photo = Photo(pixels(), exif=exif.tobytes(), resolution=(300, 300))
    for _ in range(2):
        write_photo(tmp_path / f"a{suffix}", photo)
        photo = read_photo(tmp_path / f"a{suffix}")
    data = photo.exif.removeprefix(b"Exif\0\0")
    tags = {}

    def walk(at):
        count = int.from_bytes(data[at : at + 2], order)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind = (int.from_bytes(data[entry + i : entry + i + 2], order) for i in (0, 2))
            tags[tag] = kind
            if tag in (0x8769, 0x8825, 0xA005):
                walk(int.from_bytes(data[entry + 8 : entry + 12], order))

    order = "little" if data[:2] == b"II" else "big"
    walk(int.from_bytes(data[4:8], order))
    assert {tag: tags[tag] for tag in (0x9286, 0xA300, 2, 0x1B)} == dict.fromkeys(
        (0x9286, 0xA300, 2, 0x1B), 7
    )
    assert tags[0] == 1
    kept = images.metadata.exif_of_bytes(photo.exif)
    assert kept.get_ifd(0x8769)[0x9286] == b"ASCII\0\0\0a comment"
    assert kept.get_ifd(0x8825)[0x1B] == b"ASCII\0\0\0GPS"


def test_a_profile_of_grey_does_not_describe_what_became_rgb(tmp_path):
    profile = PROFILE[:16] + b"GRAY" + PROFILE[20:]
    for suffix, expected in ((".webp", None), (".png", profile)):
        write_photo(tmp_path / f"a{suffix}", Photo(pixels(channels=1), icc_profile=profile))
        assert read_photo(tmp_path / f"a{suffix}").icc_profile == expected


def test_a_resolution_that_a_jpeg_has_no_room_for_is_left_out(tmp_path):
    for dots, expected in ((65535.0, (65535.0, 65535.0)), (70000.0, None)):
        write_photo(tmp_path / "a.jpg", Photo(pixels(), resolution=(dots, dots)))
        assert read_photo(tmp_path / "a.jpg").resolution == expected


def test_damaged_metadata_is_left_out(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*" + b"\xff" * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        photo = read_photo(tmp_path / "a.jpg")
    assert photo.exif is None
    assert photo.pixels.shape == (*SIZE, 3)


def test_bmp_is_read_and_written_as_the_others(tmp_path):
    for channels in (1, 3):
        write_photo(tmp_path / "a.bmp", Photo(pixels(np.uint16, channels), resolution=(300, 300)))
        photo = read_photo(tmp_path / "a.bmp")
        assert (photo.pixels.ndim == 2) == (channels == 1)
        assert photo.resolution == pytest.approx((300, 300), abs=0.02)
    with pytest.raises(InputError, match="alpha"):
        write_photo(tmp_path / "a.bmp", Photo(pixels(), pixels(channels=1)))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_a_missing_decoder_is_no_damage_of_the_file(tmp_path, monkeypatch, suffix):
    bits = np.uint8 if suffix == ".webp" else np.uint16
    write_photo(tmp_path / f"a{suffix}", Photo(pixels().astype(bits)))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(InputError, match=rf"a{suffix} needs a decoder .*imagecodecs"):
        read_photo(tmp_path / f"a{suffix}")


# --- What other code sees ------------------------------------------------------------------------


def test_reading_and_writing_change_nothing_of_others(tmp_path, monkeypatch):
    paths = []
    for suffix in (".png", ".jpg", ".tif", ".webp", ".bmp"):
        write_photo(tmp_path / f"a{suffix}", Photo(pixels()))
        paths.append(tmp_path / f"a{suffix}")
    seen = []

    def state():
        loggers = [logging.getLogger(name) for name in ("PIL", "tifffile", "imagecodecs", "")]
        settings = [(item.propagate, list(item.handlers), item.level) for item in loggers]
        return Image.MAX_IMAGE_PIXELS, list(warnings.filters), settings

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    before = state()
    for name in ("exif_of_tiff", "kept_exif"):  # amid reading
        real = getattr(images.metadata, name)
        monkeypatch.setattr(
            images.metadata, name, lambda *a, real=real: (seen.append(state()), real(*a))[1]
        )
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(images.read_rgb, paths * 8))
    for path, array in zip(paths * 8, read, strict=True):
        np.testing.assert_array_equal(array, images.read_rgb(path))
    assert all(now == before for now in [*seen, state()])
    assert len(seen) > 80
