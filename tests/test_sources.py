"""Finding and reading photographs and pairs."""

import errno
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nt_jax import images
from nt_jax.data.catalogue import sources
from nt_jax.data.sampling import bank
from nt_jax.data.sampling.bank import load_bank
from nt_jax.errors import InputError


def _write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def _image(seed=0, height=12, width=16):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _touch_pairs(folder, names, size=(12, 16)):
    for seed, name in enumerate(names):
        _write(folder / name, _image(seed, *size))


def test_find_photos_is_recursive_sorted_and_ignores_case_and_other_files(tmp_path):
    for name in ("b.PNG", "a.jpg", "deep/er/c.JPeG", "d.tiff", "e.webp", "f.bmp"):
        _write(tmp_path / name, _image())
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._b.PNG").write_text("what macOS leaves behind")
    found = [path.relative_to(tmp_path).as_posix() for path in sources.find_photos(tmp_path)]
    assert found == ["a.jpg", "b.PNG", "d.tiff", "deep/er/c.JPeG", "e.webp", "f.bmp"]


def test_find_photos_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        sources.find_photos(tmp_path / "missing")
    with pytest.raises(InputError, match="no image found"):
        sources.find_photos(tmp_path)


def test_skimage_sets_are_in_the_wheel_and_disjoint():
    sets = {name: sources.load_photos(name) for name in sources.SKIMAGE_SETS}
    for photos in sets.values():
        assert len(photos) >= 2
        for _, image in photos:
            assert image.dtype == np.uint8
            assert min(image.shape[:2]) >= 256
            assert image.shape[2] == 3
    assert not {n for n, _ in sets["skimage"]} & {n for n, _ in sets["skimage-heldout"]}


@pytest.mark.parametrize("prefix", ["", "0001_"])  # SIDD-Small; SIDD-Medium and -Full
def test_sidd_layout(tmp_path, prefix):
    for instance in ("0001_001_S6_00100_00060_3200_L", "0199_010_GP_03200_02000_5500_N"):
        for number in ("010", "011"):
            for kind in ("GT", "NOISY"):
                _write(tmp_path / "Data" / instance / f"{prefix}{kind}_SRGB_{number}.PNG", _image())
    pairs = sources.find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == [
        "Data/0001_001_S6_00100_00060_3200_L_010",
        "Data/0001_001_S6_00100_00060_3200_L_011",
        "Data/0199_010_GP_03200_02000_5500_N_010",
        "Data/0199_010_GP_03200_02000_5500_N_011",
    ]
    assert pairs[0].clean.name == f"{prefix}GT_SRGB_010.PNG"
    assert pairs[0].noisy.name == f"{prefix}NOISY_SRGB_010.PNG"
    assert (pairs[0].group, pairs[0].iso, pairs[0].scene) == ("S6_100", 100, "001")
    assert (pairs[3].group, pairs[3].iso, pairs[3].scene) == ("GP_3200", 3200, "010")
    # One instance's folder alone still tells its camera and ISO.
    (pair, _) = sources.find_pairs(tmp_path / "Data" / "0001_001_S6_00100_00060_3200_L")
    assert pair.group == "S6_100"


def test_named_pairs(tmp_path):
    _touch_pairs(tmp_path, ["a_gt.png", "a_noisy.JPG", "sub/a_GT.png", "sub/a_Noisy.png", "x.png"])
    pairs = sources.find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["a", "sub/a"]
    assert [pair.noisy.name for pair in pairs] == ["a_noisy.JPG", "a_Noisy.png"]
    assert (pairs[1].group, pairs[1].iso, pairs[1].scene) == ("sub/a", None, "")


def test_polyu_layout(tmp_path):
    stems = ("Canon5D2_5_160_3200_chair_14", "NikonD800_6-3_125_5000_plant__4")
    _touch_pairs(tmp_path, [f"{stem}_{kind}.JPG" for stem in stems for kind in ("mean", "real")])
    first, second = sources.find_pairs(tmp_path)
    assert first.clean.name == "Canon5D2_5_160_3200_chair_14_mean.JPG"
    assert first.noisy.name == "Canon5D2_5_160_3200_chair_14_real.JPG"
    assert (first.group, first.iso, first.scene) == ("Canon5D2_3200", 3200, "chair")
    assert (second.group, second.iso, second.scene) == ("NikonD800_5000", 5000, "plant")


def test_two_folders(tmp_path):
    _touch_pairs(tmp_path, ["gt/a.png", "noisy/a.png", "gt/in/b.png", "noisy/in/b.jpg"])
    pairs = sources.find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["a", "in/b"]
    assert [pair.clean.parent.name for pair in pairs] == ["gt", "in"]


@pytest.mark.parametrize("clean", ["x", "gt-x"])
def test_no_noisy_image_takes_the_name_of_another(tmp_path, clean):
    _touch_pairs(tmp_path, [f"gt/{clean}.png", "noisy/noisy-x.png", "noisy/x.png"])
    pairs = {pair.name: pair.noisy.stem for pair in sources.find_pairs(tmp_path)}
    assert pairs == {"noisy-x": "noisy-x", "x": "x"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a_gt.png", "a_noisy.png", "b_gt.png"], r"b_gt\.png: its noisy partner is missing"),
        (["gt/a.png", "noisy/a.png", "noisy/b.png"], r"b\.png: its clean partner is missing"),
        (["a_gt.png", "a_gt.jpg", "a_noisy.png"], r"a_gt\.png: a second clean image"),
        (["a.png", "b.png"], "no pair found"),
        ([], "no pair found"),
    ],
)
def test_broken_pairs(tmp_path, names, message):
    _touch_pairs(tmp_path, names)
    with pytest.raises(InputError, match=message):
        sources.find_pairs(tmp_path)


def test_pair_of_unequal_sizes_and_unreadable_files(tmp_path):
    _write(tmp_path / "a_gt.png", _image())
    _write(tmp_path / "a_noisy.png", _image(0, 12, 17))
    with pytest.raises(InputError, match=r"a_noisy\.png: its size differs"):
        sources.find_pairs(tmp_path)
    (tmp_path / "a_noisy.png").write_bytes(b"not a PNG")
    with pytest.raises(InputError, match=r"a_noisy\.png is not a readable PNG"):
        sources.find_pairs(tmp_path)


def test_read_rgb_modes(tmp_path):
    image = _image()
    rgb = Image.fromarray(image)
    assert np.array_equal(sources.read_rgb(_write(tmp_path / "rgb.png", image)), image)
    alpha = np.dstack([image, np.full(image.shape[:2], 7, np.uint8)])
    assert np.array_equal(sources.read_rgb(_write(tmp_path / "rgba.png", alpha)), image)
    grey = image[..., 0]
    expected = np.repeat(grey[..., None], 3, -1)
    assert np.array_equal(sources.read_rgb(_write(tmp_path / "grey.png", grey)), expected)
    deep = grey.astype(np.uint16) * 257
    assert np.array_equal(sources.read_rgb(_write(tmp_path / "deep.png", deep)), expected)
    assert np.array_equal(sources.read_rgb(_write(tmp_path / "deep.tif", deep)), expected)
    paletted = rgb.quantize(16)
    paletted.save(tmp_path / "palette.png", transparency=0)
    assert np.array_equal(
        sources.read_rgb(tmp_path / "palette.png"), np.asarray(paletted.convert("RGB"))
    )
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert sources.read_rgb(tmp_path / "cmyk.jpg").shape == image.shape
    black_and_white = grey > 127
    _write(tmp_path / "bilevel.png", black_and_white)
    assert np.array_equal(
        sources.read_rgb(tmp_path / "bilevel.png")[..., 1], black_and_white * np.uint8(255)
    )
    _write(tmp_path / "float.tif", image[..., 0].astype(np.float32))
    with pytest.raises(InputError, match="floating-point"):
        sources.read_rgb(tmp_path / "float.tif")


def test_exif_orientation_is_applied(tmp_path):
    image = np.zeros((8, 24, 3), np.uint8)
    image[:, :8] = 255  # the left third is white
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    path = _write(tmp_path / "turned.png", image, exif=exif)
    upright = sources.read_rgb(path)
    assert upright.shape == (24, 8, 3)
    assert sources.image_size(path) == (24, 8)
    assert upright[:8].min() == 255
    assert upright[8:].max() == 0


def test_parse_spec():
    assert sources.parse_spec("skimage, a/b=3 ,c=d=0.5") == [
        ("skimage", None),
        ("a/b", 3.0),
        ("c=d", 0.5),
    ]
    assert sources.parse_spec("") == []
    for bad in ("a=0", "a=-1", "a=1e999", "a=1.2.3"):
        with pytest.raises(InputError, match="number above 0"):
            sources.parse_spec(bad)


def test_load_pairs_and_photos(tmp_path):
    _touch_pairs(tmp_path / "p", ["a_gt.png", "a_noisy.png"])
    ((pair, clean, noisy),) = sources.load_pairs(str(tmp_path / "p"))
    assert pair.name == "a"
    assert np.array_equal(clean, _image(0))
    assert np.array_equal(noisy, _image(1))
    _touch_pairs(tmp_path / "q", ["a.png", "b.png"])
    assert [name for name, _ in sources.load_photos(f"{tmp_path / 'q'}=2")] == ["a", "b"]


def test_a_temporary_file_of_another_run_may_go_away(tmp_path):
    (tmp_path / ".pixels.1.part").symlink_to(tmp_path / "gone")
    bank._write(tmp_path / "pixels", 4, lambda array: array.fill(7))
    assert (tmp_path / "pixels").read_bytes() == b"\7" * 4


def test_bank_lays_out_photos_then_pairs(tmp_path):
    photos = [_write(tmp_path / f"{i}.png", _image(i, 12 + i, 16)) for i in range(3)]
    _touch_pairs(tmp_path / "p", ["a_gt.png", "a_noisy.png"])
    bank = load_bank(photos, sources.find_pairs(tmp_path / "p"), 12)

    def image(offsets, i):
        size = bank.heights[i] * bank.widths[i]
        flat = bank.pixels[offsets[i] : offsets[i] + size]
        return flat.reshape(bank.heights[i], bank.widths[i], 3)

    for i in range(3):
        assert np.array_equal(image(bank.offsets, i), _image(i, 12 + i, 16))
        assert bank.noisy_offsets[i] == bank.offsets[i]
    assert np.array_equal(image(bank.offsets, 3), _image(0))
    assert np.array_equal(image(bank.noisy_offsets, 3), _image(1))
    assert len(bank.pixels) == (12 + 13 + 14 + 12 + 12) * 16
    with pytest.raises(InputError, match=r"0\.png: 16x12 is smaller than the patch of 13"):
        load_bank(photos, [], 13)


def _damage(path):
    path.write_bytes(path.read_bytes()[:-40])  # the header stays readable
    return path


@pytest.fixture
def many(tmp_path):
    """150 photographs and 50 pairs, of 16x16 pixels."""
    photos = [_write(tmp_path / f"{i:03d}.png", _image(i, 16, 16)) for i in range(150)]
    for i in range(50):
        for role in ("gt", "noisy"):
            _write(tmp_path / "pairs" / f"{i:02d}_{role}.png", _image(i, 16, 16))
    return SimpleNamespace(photos=photos, pairs=sources.find_pairs(tmp_path / "pairs"))


def test_a_bank_goes_on_without_one_image_in_a_hundred(many, tmp_path, capsys):
    whole = load_bank(many.photos, many.pairs, 16)
    assert whole.usable.all()
    assert capsys.readouterr().out == ""
    _damage(many.photos[7])
    _damage(many.pairs[3].noisy)
    caches = ("", tmp_path / "cache", tmp_path / "cache")  # written, then found again
    for cache in caches:
        bank = load_bank(many.photos, many.pairs, 16, cache)
        assert np.flatnonzero(~bank.usable).tolist() == [7, 153]
        for name in ("offsets", "noisy_offsets"):
            found = bank.pixels[getattr(bank, name)]
            expected = whole.pixels[getattr(whole, name)[bank.usable]]
            np.testing.assert_array_equal(found, expected)
        assert len(bank.heights) == len(bank.widths) == 198
        skipped = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
        assert len(skipped) == 2
        assert skipped[0].startswith(f"data: skipped {many.photos[7]}")
    many.photos[8].unlink()
    with pytest.raises(
        InputError, match=r"008\.png: No such.*; 3 of 200 images.*prepare"
    ) as caught:
        load_bank(many.photos, many.pairs, 16, tmp_path / "other")
    assert "\n" not in str(caught.value)
    assert not any((tmp_path / "other").glob("*"))


def test_problems_found_before_count(many, capsys):
    load_bank(many.photos, many.pairs, 16, problems=["a: no partner", "b: no partner"])
    assert capsys.readouterr().out == "data: skipped a: no partner\ndata: skipped b: no partner\n"
    with pytest.raises(InputError, match=r"a: no partner; 3 of 202 images"):
        load_bank(many.photos, many.pairs[1:], 16, problems=["a: no partner", "b", "c"])


def test_a_cache_of_another_length_is_written_anew(many, tmp_path, capsys):
    expected = load_bank(many.photos, [], 16).pixels
    load_bank(many.photos, [], 16, tmp_path / "cache")
    (cache,) = (tmp_path / "cache").iterdir()
    for length in (0, 1000, cache.stat().st_size + 1):
        os.truncate(cache, length)
        bank = load_bank(many.photos, [], 16, tmp_path / "cache")
        np.testing.assert_array_equal(bank.pixels, expected)
        assert f"{cache} has {length} bytes, not" in capsys.readouterr().out
    cache.unlink()
    np.testing.assert_array_equal(bank.pixels, expected)  # its pages live as long as it is mapped


def test_a_full_disk_under_the_cache(many, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        load_bank(many.photos, [], 16, tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


def test_strips_are_the_whole_image(tmp_path, monkeypatch):
    image = _image(0, 50, 40)
    kinds = {
        "rgb.png": Image.fromarray(image),
        "palette.png": Image.fromarray(image).quantize(16),
        "deep.png": Image.fromarray(image[..., 0].astype(np.uint16) * 257),
        "cmyk.jpg": Image.fromarray(image).convert("CMYK"),
    }
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, kind in kinds.items():
        kind.save(tmp_path / name, exif=exif)
    whole = {name: sources.read_rgb(tmp_path / name) for name in kinds}
    monkeypatch.setattr(images, "_STRIP", 70)
    monkeypatch.setattr(images, "LARGE", 100)
    for name, expected in whole.items():
        np.testing.assert_array_equal(sources.read_rgb(tmp_path / name), expected)


def test_importing_the_data_package_leaves_tensorflow_alone():
    code = (
        "import nt_jax.data.catalogue.sources, nt_jax.data.sampling.pipeline, sys;"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
