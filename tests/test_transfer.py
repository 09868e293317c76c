"""The command: files in, files out, wrong input."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage import data
from tiny_models import save_tiny

import nt_jax
from nt_jax import transfer
from nt_jax.errors import InputError
from nt_jax.images import Photo, read_photo, write_photo
from nt_jax.inference import files

CLEAN = data.coffee()[:40, :56]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(model_folder):
    return nt_jax.load(model_folder)


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "reference.png"
    write_photo(path, Photo(data.chelsea()[:64, :64]))
    return path


@pytest.fixture
def clean(tmp_path):
    path = tmp_path / "clean.png"
    write_photo(path, Photo(CLEAN))
    return path


@pytest.fixture
def run(model_folder, reference):
    def run(*arguments, **flags):
        flags = {"model": model_folder, "reference": reference} | flags
        transfer.main([f"--{name}={value}" for name, value in flags.items()] + list(arguments))

    return run


def everything(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_one_file(run, model, clean, reference, tmp_path, capsys):
    output = tmp_path / "result.png"
    run(clean=clean, output=output, seed=5, strength=0.5, tile=32)
    expected = model.transfer(CLEAN, reference=read_photo(reference).pixels, seed=5, strength=0.5)
    # The tiny model's values may lie on the edge between two steps.
    difference = read_photo(output).pixels - 255 * expected
    assert np.abs(difference).max() <= 0.5 + 255e-5
    level = 255 * np.sqrt(np.mean((expected - CLEAN / 255) ** 2))
    line = f"[1/1] {output}  56x40  seed 5  noise of level {level:.1f}\n"
    assert capsys.readouterr().out == line
    before = output.read_bytes()
    run(clean=clean, output=output, seed=5, strength=0.5)
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("dtype", "grey"), [(np.uint8, True), (np.uint16, True), (np.uint16, False)]
)
def test_depth_grey_and_alpha_are_kept(run, model, reference, tmp_path, dtype, grey):
    pixels = CLEAN.astype(dtype) * (257 if dtype == np.uint16 else 1)
    pixels = pixels[..., 0] if grey else pixels
    alpha = np.arange(pixels.shape[0] * pixels.shape[1]).reshape(pixels.shape[:2]).astype(dtype)
    write_photo(tmp_path / "in.tif", Photo(pixels, alpha, b"profile"))
    run(clean=tmp_path / "in.tif", output=tmp_path / "out.png")
    result = read_photo(tmp_path / "out.png")
    assert result.pixels.shape == pixels.shape
    assert result.pixels.dtype == dtype
    np.testing.assert_array_equal(result.alpha, alpha)
    largest = np.iinfo(dtype).max
    image = pixels.astype(np.float32) / largest
    image = np.repeat(image[..., None], 3, -1) if grey else image
    expected = model.transfer(image, reference=read_photo(reference).pixels)
    expected = image[..., 0] + (expected - image)[..., 1] if grey else expected
    assert np.abs(result.pixels - largest * expected).max() <= 0.5 + largest * 1e-5


def test_a_folder_keeps_names_and_counts_seeds(run, model, reference, tmp_path):
    photos, output = tmp_path / "photos", tmp_path / "made" / "noisy"
    names = ["b.png", "a/c.PNG", "a.tif"]
    for name in names:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        write_photo(photos / name, Photo(CLEAN))
    (photos / "notes.txt").write_text("no image")
    run(clean=photos, output=output, seed=7)
    assert everything(output) == sorted(names)
    for index, name in enumerate(sorted(names)):
        expected = model.transfer(CLEAN, reference=read_photo(reference).pixels, seed=7 + index)
        found = read_photo(output / name).pixels
        assert np.abs(found - 255 * expected).max() <= 0.5 + 255e-5


def test_several_references_are_averaged(run, model, clean, reference, tmp_path):
    other = tmp_path / "other.jpg"
    write_photo(other, Photo(data.rocket()[:400, :300]))
    output = tmp_path / "result.png"
    run(reference=f"{reference},{other}", clean=clean, output=output)
    images = [read_photo(path).pixels for path in (reference, other)]
    expected = model.transfer(CLEAN, reference=images)
    assert np.abs(read_photo(output).pixels - 255 * expected).max() <= 0.5 + 255e-5


def test_a_16_bit_reference_is_embedded_as_its_8_bit_version(model):
    pixels = data.rocket()[:300, :300]
    wide, narrow = Photo(pixels.astype(np.uint16) * 257), Photo(pixels)
    np.testing.assert_allclose(
        files.noise_of_photos(model, [wide]).embedding,
        files.noise_of_photos(model, [narrow]).embedding,
        atol=1e-6,
    )
    found = files.noise_of_photos(model, [narrow]).embedding
    np.testing.assert_allclose(found, model.embed(pixels), atol=1e-6)


def test_an_output_folder_takes_a_single_file(run, clean, tmp_path):
    (tmp_path / "out").mkdir()
    run(clean=clean, output=tmp_path / "out")
    assert everything(tmp_path / "out") == ["clean.png"]


def test_report(run, clean, reference, tmp_path, capsys):
    flags = {"clean": clean, "output": tmp_path / "o.png", "report": tmp_path / "page.html"}
    run(**flags, reference_clean=reference)
    assert "generated" in (tmp_path / "page.html").read_text()
    assert capsys.readouterr().out.endswith(f"report: {tmp_path / 'page.html'}\n")
    run("--report", clean=clean, output=tmp_path / "made" / "o.png")
    assert everything(tmp_path / "made") == ["o.html", "o.png"]


def test_broken_images_of_a_folder_are_skipped_where_asked_for(run, model, tmp_path, capsys):
    photos, output = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name in ("a.png", "c.png"):
        write_photo(photos / name, Photo(CLEAN))
    (photos / "b.png").write_text("no image")
    run("--skip_broken", clean=photos, output=output)
    assert everything(output) == ["a.png", "c.png"]
    out = capsys.readouterr().out
    assert f"skipped: {photos / 'b.png'} is not a readable" in out
    assert "seed 2" in out  # that of its place among all
    for name in ("a.png", "c.png"):
        (photos / name).unlink()
    with pytest.raises(InputError, match=r"b\.png is not a readable"):
        run("--skip_broken", clean=photos, output=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_names_of_references(run, model, clean, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    photo = Photo(data.chelsea()[:64, :64])
    for name in ("Paris, 2024.png", "b.png"):
        write_photo(tmp_path / name, photo)
    results = []
    for reference in (
        tmp_path / "Paris, 2024.png",
        "~/b.png",
        f"~/Paris, 2024.png,{tmp_path}/b.png",
    ):
        run(reference=reference, clean="~/clean.png", output="~/out/x.png")
        results.append(read_photo(tmp_path / "out" / "x.png").pixels)
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[0].astype(int) - results[2]).max() <= 1


def test_noise_keeps_its_level_on_grey(model, reference):
    embedding = model.embed(read_photo(reference).pixels)
    grey = np.full((48, 48), 128, np.uint8)
    colour = np.repeat(grey[..., None], 3, -1)
    for tile in (16, 512):
        pieces = list(model.transfer_tiles(grey, embedding, tile=tile))
        result = np.empty((48, 48, 3), np.float32)
        for piece in pieces:
            result[piece.rows, piece.columns] = piece.pixels
        expected = model.transfer(colour, embedding=embedding)[..., 1]
        for channel in range(3):
            np.testing.assert_allclose(result[..., channel], expected, atol=1e-5)


def test_two_images_that_would_become_one_file(run, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "find_images", lambda *_: [Path("a.dng"), Path("a.tif")])
    monkeypatch.setattr(files, "read_photo", lambda _: Photo(CLEAN))
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"a\.tif and .*a\.dng would both become .*a\.tif"):
        run(clean=tmp_path / "photos", output=tmp_path / "out")


# --- Wrong input ---------------------------------------------------------------------------------


def cases(tmp_path):
    """Arguments by what is wrong with them, and what the message must say."""
    photos = tmp_path / "photos"
    photos.mkdir()
    write_photo(photos / "a.png", Photo(CLEAN))
    write_photo(photos / "b.png", Photo(CLEAN, alpha=CLEAN[..., 0]))
    broken = tmp_path / "broken"
    broken.mkdir()
    write_photo(broken / "a.png", Photo(CLEAN))
    write_photo(broken / "b.jpg", Photo(CLEAN))
    (broken / "b.jpg").write_bytes((broken / "b.jpg").read_bytes()[:-300])
    many = tmp_path / "many"
    many.mkdir()
    for name in ("a.png", "c.png"):
        write_photo(many / name, Photo(CLEAN))
    (many / "b.png").write_text("no image")
    (many / "d.png").write_bytes(b"")
    noisy = tmp_path / "pairs"
    noisy.mkdir()
    for name in ("a_gt.png", "a_noisy.png"):
        write_photo(noisy / name, Photo(CLEAN))
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    write_photo(tmp_path / "small.png", Photo(CLEAN[:, :16]))
    good, out = photos / "a.png", tmp_path / "new" / "out"
    file = {"output": tmp_path / "new" / "out.png"}
    return {
        "no reference": (
            {"reference": tmp_path / "none.png", "clean": good} | file,
            "none.png: no such",
        ),
        "no references": (
            {"reference": "none.png," * 40, "clean": good} | file,
            "none.png: no such file",
        ),
        "no clean": ({"clean": tmp_path / "none.png"}, "none.png: no such file"),
        "text": ({"clean": tmp_path / "text.png"}, "text.png is not a readable"),
        "text reference": (
            {"reference": tmp_path / "text.png", "clean": good} | file,
            "text.png is not",
        ),
        "truncated among good": ({"clean": broken}, "b.jpg cannot be decoded"),
        "noisy": ({"clean": noisy}, "a_noisy.png is noisy by its name, but clean"),
        "several broken": ({"clean": many}, "replace it; 2 of 4 images are unusable"),
        "empty folder": ({"clean": tmp_path / "empty"}, "no image found"),
        "output is a file": ({"clean": photos, "output": tmp_path / "file"}, "is a file, but"),
        "output below a file": (
            {"clean": photos, "output": tmp_path / "file" / "x"},
            "cannot be made: Not a directory",
        ),
        "no format": ({"clean": good, "output": tmp_path / "out.gif"}, "must end in"),
        "no suffix": ({"clean": good, "output": out}, "must end in"),
        "alpha": ({"clean": photos / "b.png", "output": tmp_path / "out.jpg"}, "alpha"),
        "in place": ({"clean": good, "output": good}, "overwrite an input"),
        "folder in place": ({"clean": photos, "output": photos}, "overwrite an input"),
        "no model": ({"clean": photos, "model": tmp_path / "none"}, "no model"),
        "seed": ({"clean": photos, "seed": 2**32 - 1}, "seed: expected"),
        "negative seed": ({"clean": photos, "seed": -1}, "seed: expected"),
        "seed no number": ({"clean": photos, "seed": "x"}, "--seed"),
        "report": ({"clean": photos, "report": tmp_path / "page.pdf"}, "a report must end in"),
        "clean without report": ({"clean": photos, "reference_clean": good}, "give --report"),
        "tile": ({"clean": photos, "tile": 3}, "tile"),
        "strength": ({"clean": photos, "strength": -1}, "strength"),
        "strength no number": ({"clean": photos, "strength": "much"}, "--strength"),
        "unknown flag": ({"clean": photos, "nonsense": 1}, "--nonsense"),
        "missing flag": ({}, "--clean"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "no reference",
        "no references",
        "no clean",
        "text",
        "text reference",
        "truncated among good",
        "noisy",
        "several broken",
        "empty folder",
        "output is a file",
        "output below a file",
        "no format",
        "no suffix",
        "alpha",
        "in place",
        "folder in place",
        "no model",
        "seed",
        "negative seed",
        "seed no number",
        "report",
        "clean without report",
        "tile",
        "strength",
        "strength no number",
        "unknown flag",
        "missing flag",
    ],
)
def test_wrong_input_says_so_and_writes_nothing(run, tmp_path, case):
    arguments, message = cases(tmp_path)[case]
    before = everything(tmp_path)
    with pytest.raises(InputError) as error:
        run(**({"output": tmp_path / "new" / "out"} | arguments))
    assert message in str(error.value)
    assert everything(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_an_unwritable_folder(run, clean, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    real = Path.open

    def refuse(path, *args, **kwargs):
        if path.parent == tmp_path / "out":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, who may write anywhere
    with pytest.raises(InputError, match="cannot be written to: Permission denied"):
        run(clean=clean, output=tmp_path / "out")


def test_links_do_not_lead_out_of_the_output_folder(run, tmp_path):
    photos, outside, output = (tmp_path / name for name in ("photos", "outside", "output"))
    for folder in (photos / "a", outside, output):
        folder.mkdir(parents=True)
    write_photo(photos / "a" / "b.png", Photo(CLEAN))
    (output / "a").symlink_to(outside)
    with pytest.raises(InputError, match="link out of"):
        run(clean=photos, output=output)
    assert not everything(outside)


# --- As a process --------------------------------------------------------------------------------


def command(*arguments):
    return [sys.executable, "-m", "nt_jax.transfer", *map(str, arguments)]


def test_exit_codes_of_the_process(model_folder, clean, reference, tmp_path):
    flags = [f"--model={model_folder}", f"--reference={reference}", f"--clean={clean}"]
    good = subprocess.run(
        command(*flags, f"--output={tmp_path / 'o.png'}"), capture_output=True, text=True
    )
    assert (good.returncode, good.stderr) == (0, "")
    bad = subprocess.run(
        command(*flags, f"--output={tmp_path / 'o.gif'}"), capture_output=True, text=True
    )
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: ")
    assert bad.stderr.count("\n") == 1


def test_sigterm_leaves_nothing(model_folder, reference, tmp_path):
    write_photo(tmp_path / "large.png", Photo(np.zeros((1000, 1000, 3), np.uint8)))
    flags = {
        "model": model_folder,
        "reference": reference,
        "clean": tmp_path / "large.png",
        "output": tmp_path / "out.png",
    }
    code = (
        "import sys; from nt_jax import transfer; from nt_jax import images;"
        "encode = images._encode;"
        "images._encode = lambda *a: (encode(*a), print('written', flush=True), sys.stdin.read());"
        f"transfer.main({[f'--{name}={value}' for name, value in flags.items()]!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "written\n"
    assert any(name.endswith(".part") for name in everything(tmp_path))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert everything(tmp_path) == ["large.png", "reference.png"]


def test_the_clean_reference_is_not_overwritten(run, clean, reference, tmp_path):
    truth = tmp_path / "truth.png"
    write_photo(truth, Photo(data.chelsea()[:64, :64]))
    before = truth.read_bytes()
    for output, report in ((truth, tmp_path / "r.html"), (tmp_path / "out.png", truth)):
        with pytest.raises(InputError, match="overwrite"):
            run(clean=clean, reference_clean=truth, output=output, report=report)
    assert truth.read_bytes() == before
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("named", [False, True])
def test_compilation_cache(tmp_path, named):
    code = "from nt_jax.compilation import use_compilation_cache; use_compilation_cache();"
    code += "import jax; print(jax.config.jax_compilation_cache_dir)"
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    if named:
        environment["JAX_COMPILATION_CACHE_DIR"] = "/elsewhere"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    expected = "/elsewhere" if named else str(tmp_path / "nt_jax" / "jax")
    assert result.stdout.strip() == expected
