"""Image files: what is kept, what is refused, and that nothing partial is left."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from nt_jax import images
from nt_jax.errors import InputError
from nt_jax.images import Photo, find_images, read_photo, write_photo

RNG = np.random.default_rng(0)
SIZE = (20, 24)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(dtype=np.uint8, channels=3):
    shape = SIZE if channels == 1 else (*SIZE, channels)
    return RNG.integers(np.iinfo(dtype).max, size=shape, dtype=dtype, endpoint=True)


def png_header(width, height, depth=8):
    """A PNG that declares a size and holds no pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


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


def bad_files():
    good = io.BytesIO()
    Image.fromarray(pixels()).save(good, "JPEG")
    sixteen = images._encode_png16(deep := pixels(np.uint16), Photo(deep))
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, pixels(np.uint16), photometric="rgb")
    return {
        "text.png": (b"This is no image.\n", "not a readable PNG"),
        "empty.jpg": (b"", "not a readable PNG"),
        "truncated.jpg": (good.getvalue()[:-200], "truncated or damaged"),
        "truncated.png": (sixteen[:-200], "truncated or damaged"),
        "truncated.tif": (tiff.getvalue()[:-200], "truncated or damaged"),
        "cut_header.tif": (b"II*\0\x08", "truncated or damaged"),
        "no_pixels.png": (png_header(0, 100), "not a readable PNG"),
        "bomb.png": (png_header(60000, 60000), "205 megapixels"),
        "bomb16.png": (png_header(60000, 60000, 16), "205 megapixels"),
        "hollow.png": (png_header(64, 64), "truncated or damaged"),
    }


@pytest.mark.parametrize("name", bad_files())
def test_broken_files_are_refused(tmp_path, name):
    data, message = bad_files()[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        read_photo(path)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_folder_and_small_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_photo(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder"):
        read_photo(tmp_path)
    Image.fromarray(np.zeros((15, 40, 3), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match=r"40x15.*at least 16x16"):
        read_photo(tmp_path / "small.png")


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
