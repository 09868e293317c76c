"""`python -m nt_jax.adapt` with a tiny model and a tiny denoiser: files, resuming, wrong input."""

import html
import json
import math
import os
import re
import shlex
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from PIL import Image
from skimage import data
from tiny_models import save_tiny, save_tiny_spectrum_reader

import nt_jax
from experiments.release_model import join_denoiser
from nt_jax import adapt, metrics, spectra
from nt_jax.adaptation import finetune
from nt_jax.adaptation.pairs import add_noise, make_pairs, match_tone
from nt_jax.adaptation.report import look
from nt_jax.adaptation.survey import PhotoNoise, describe, survey
from nt_jax.checkpointing import Checkpointer
from nt_jax.configs.denoiser import get_config
from nt_jax.families.denoiser.state import init_state, make_network
from nt_jax.images import read_rgb
from nt_jax.inference.reference import raw_noise
from nt_jax.readings import NoiseReading

ISO = 0x8827
# Two names that a picture's title or a page would not take as they are.
PHOTOS = ("cost $5 $9.jpg", os.fsdecode(b"r\xe9sum\xe9.png"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two noisy photos, of which one tells its ISO, a tiny model, and a tiny denoiser."""
    root = tmp_path_factory.mktemp("adapt")
    rng = np.random.default_rng(0)
    (root / "noisy").mkdir()
    for name, image in zip(PHOTOS, (data.coffee(), data.chelsea()), strict=True):
        noisy = image[:224, :240] + rng.normal(0, 15, (224, 240, 3))
        exif = Image.Exif()
        if name == PHOTOS[0]:
            exif.get_ifd(0x8769)[ISO] = 3200
        photo = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        photo.save(root / "noisy" / name, exif=exif)
    save_tiny(root / "model", reader=True)
    _save_run(root / "run")
    join_denoiser(str(root / "run"), "small", root / "denoiser")
    return root


def _save_run(workdir):
    """A run of a tiny U-Net whose average is another network than its newest weights."""
    config = get_config("blind-small")
    config.model.width, config.model.blocks = 16, 1
    config.model.finest_blocks = 2
    config.model.conditioned = True
    init = jax.jit(partial(init_state, config, make_network(config)))
    state = jax.device_get(init(jax.random.key(0)))
    state = state.replace(params=jax.tree.map(lambda leaf: leaf + 0.1, state.params))
    workdir.mkdir()
    saved = json.loads(config.to_json())
    (workdir / "config.json").write_text(json.dumps(saved))
    with Checkpointer(workdir, saved, 1) as checkpointer:
        checkpointer.save(7, state)


@pytest.fixture(scope="module", autouse=True)
def shorter():
    """Fewer pairs and steps than any: a minute of a person's time is not one of the suite's."""
    with mock.patch.multiple(adapt, _FEWEST_PAIRS=8, _FEWEST_STEPS=4):
        yield


@pytest.fixture(scope="module")
def adapted(folder):
    output = folder / "noisy" / "mine"
    adapt.main(_flags(folder, output))
    return output


def _photos(folder, target):
    return shutil.copytree(folder / "noisy", target, ignore=shutil.ignore_patterns("mine"))


def _flags(folder, output, **other):
    named = {"noisy": folder / "noisy", "model": folder / "model", "denoiser": folder / "denoiser"}
    named |= {"output": output, "minutes": 0.1} | other
    return [f"--{name}={value}" for name, value in named.items()]


def test_the_output_is_a_denoiser_with_a_report(adapted, folder):
    denoiser, start = nt_jax.load_denoiser(adapted), nt_jax.load_denoiser(folder / "denoiser")
    image = data.chelsea()[:32, :32]
    assert denoiser(image).shape == (32, 32, 3)
    metadata = json.loads((adapted / "model.json").read_text())
    psnr = metadata["adapted"]["held_out_psnr"]
    # What it is follows from what it gained: another network, or the one it began with.
    changed = bool(np.abs(denoiser(image) - start(image)).max() > 1e-6)
    assert changed == (psnr["after"] > psnr["before"])
    page = (adapted / "report.html").read_text()
    assert "cost $5 $9.jpg" in page
    assert r"r\xe9sum\xe9.png" in page
    assert "<td>3200</td>" in page
    assert "ISO 3200: 1 photo, noise of level" in page
    command = html.unescape(re.search("<pre>(.*)</pre>", page)[1])
    assert shlex.split(command)[3] == f"--denoiser={adapted}"


def test_a_denoiser_that_reads_goes_on_reading(adapted, folder):
    denoiser, start = nt_jax.load_denoiser(adapted), nt_jax.load_denoiser(folder / "denoiser")
    assert denoiser.reader.patch_size == start.reader.patch_size == 64
    same = np.testing.assert_array_equal
    jax.tree.map(same, denoiser.reader.params, start.reader.params)
    photo = data.chelsea()[:64, :64]
    # What a condition changes begins with 0.
    shaken = replace(denoiser, params=jax.tree.map(lambda leaf: leaf + 0.01, denoiser.params))
    assert np.abs(shaken(photo) - shaken.fixed(photo)).max() > 1e-4


def test_it_knows_the_mean_noise_of_its_photos(adapted, folder, tmp_path):
    denoiser = nt_jax.load_denoiser(adapted)
    read = [denoiser.read(read_rgb(folder / "noisy" / name))[0] for name in PHOTOS]
    assert np.abs(read[0] - read[1]).max() > 0.01
    np.testing.assert_allclose(denoiser.condition, np.mean(read, axis=0), atol=1e-5)
    assert nt_jax.load_denoiser(folder / "denoiser").condition is None
    shutil.copytree(adapted, tmp_path / "copy", ignore=shutil.ignore_patterns("run", "pairs"))
    metadata = json.loads((adapted / "model.json").read_text())
    for wrong in ([1.0] * 3, "text", [math.nan] * spectra.CONDITIONS, ["1"] * spectra.CONDITIONS):
        metadata["adapted"]["condition"] = wrong
        (tmp_path / "copy" / "model.json").write_text(json.dumps(metadata))
        with pytest.raises(nt_jax.InputError, match="condition: expected 17 numbers"):
            nt_jax.load_denoiser(tmp_path / "copy")


def test_without_true_pairs_the_output_is_half_way(adapted, folder):
    start, trained = (nt_jax.load_denoiser(path) for path in (adapted / "start", adapted / "run"))
    half = finetune.half_way(start, trained.params)
    means = jax.tree.map(lambda one, other: (one + other) / 2, start.params, trained.params)
    jax.tree.map(np.testing.assert_array_equal, half.params, means)
    scores = finetune.score(start, half, adapted / "pairs")
    metadata = json.loads((adapted / "model.json").read_text())["adapted"]
    assert metadata["held_out_psnr"] == pytest.approx(scores._asdict(), abs=1e-4)
    expected = half if scores.after > scores.before else start
    written = nt_jax.load_denoiser(adapted).params
    jax.tree.map(np.testing.assert_array_equal, written, expected.params)


def test_training_starts_from_the_denoiser_that_was_given(adapted, folder):
    start = nt_jax.load_denoiser(folder / "denoiser")
    noisy = sorted((adapted / "pairs" / "held_out" / "noisy").iterdir())
    clean = [read_rgb(path.parents[1] / "gt" / path.name) / np.float32(255) for path in noisy]
    denoised = [start(read_rgb(path)) for path in noisy]
    scores = metrics.psnr(np.stack(clean), np.stack(denoised))
    metadata = json.loads((adapted / "model.json").read_text())
    assert metadata["adapted"]["held_out_psnr"]["before"] == pytest.approx(
        float(scores.mean()), abs=1e-3
    )
    assert metadata["adapted"]["base"]["recipe"] == start.metadata["recipe"]


def test_training_that_has_ended_is_not_gone_on_with(adapted):
    steps = json.loads((adapted / "model.json").read_text())["adapted"]["steps"]
    assert finetune.finetune(None, adapted / "run", deadline=0.0) == steps > 0


def test_a_row_of_the_picture_is_of_one_photo(adapted, folder):
    model, denoiser = nt_jax.load(folder / "model"), nt_jax.load_denoiser(adapted)
    photo = survey(model, denoiser, folder / "noisy" / PHOTOS[0])
    images = look(photo, model, denoiser, denoiser)
    assert {image.shape for image in images} == {(224, 240, 3)}
    made = images[-1] - 0.5
    silent = photo._replace(noise=photo.noise._replace(gain=np.zeros(3, np.float32)))
    assert np.abs(made).max() > 0.1
    assert np.abs(look(silent, model, denoiser, denoiser)[-1] - 0.5).max() < 1e-5


def test_the_command_to_use_it_is_one_for_a_shell(tmp_path, monkeypatch):
    (tmp_path / "my photos").mkdir()
    monkeypatch.chdir(tmp_path)
    for noisy, name in (
        ("my photos", f"{tmp_path.name}-denoised"),
        ("my photos/a b.JPG", f"{tmp_path.name}-denoised.JPG"),
        ("my photos/a.nef", f"{tmp_path.name}-denoised.tif"),
    ):
        flags = ["--denoiser=.", f"--input={noisy}", f"--output={name}"]
        command = shlex.split(adapt.use_of(Path("."), Path(noisy)))
        assert command == ["python", "-m", "nt_jax.denoise", *flags]


def test_levels_that_differ_are_told_whatever_the_iso():
    def photo(iso, level):
        one = np.ones(3, np.float32)
        reading = NoiseReading(level * one, np.float32(0.1), np.float32(0.1), one, 0 * one)
        return PhotoNoise(Path("a.jpg"), iso, raw_noise(None, reading))

    for first, other in ((None, None), (100, 12800), (800, 800)):
        warned = describe([photo(first, 1.0), photo(other, 30.0)])[-1]
        assert warned.startswith("warning: these photos' noise differs much in level")
    assert "warning" not in " ".join(describe([photo(100, 10.0), photo(200, 20.0)]))


def test_the_same_command_is_done_and_another_is_refused(adapted, folder, capsys):
    before = (adapted / "model.json").read_bytes()
    adapt.main(_flags(folder, adapted))
    # Its own patches lie below --noisy, and are no photos of it.
    assert "is done already" in capsys.readouterr().out
    more = folder / "noisy" / "more.png"
    shutil.copy(folder / "noisy" / PHOTOS[1], more)
    with pytest.raises(nt_jax.InputError, match="begun with other photos in --noisy"):
        adapt.main(_flags(folder, adapted))
    more.unlink()
    with pytest.raises(nt_jax.InputError, match="begun with another --seed"):
        adapt.main(_flags(folder, adapted, seed=1))
    assert (adapted / "model.json").read_bytes() == before


def test_a_pair_depends_on_its_number_and_not_on_where_a_run_was_cut_off(adapted, folder, tmp_path):
    model, denoiser = nt_jax.load(folder / "model"), nt_jax.load_denoiser(folder / "denoiser")
    photos = sorted(_photos(folder, tmp_path / "noisy").iterdir())
    found = [survey(model, denoiser, path) for path in photos]
    assert [photo.iso for photo in found] == [3200, None]
    assert len(describe(found)) >= 2
    shutil.copytree(adapted / "pairs", tmp_path / "pairs")
    made = sorted((tmp_path / "pairs").rglob("*.png"))
    assert len(made) == 2 * adapt._FEWEST_PAIRS
    lost = tmp_path / "pairs" / "held_out" / "noisy" / "00007.png"
    content = lost.read_bytes()
    lost.unlink()
    list(make_pairs(model, denoiser, found, [], tmp_path / "pairs", len(made) // 2, seed=0))
    assert lost.read_bytes() == content


def test_pairs_have_the_spectrum_that_the_model_reads_off_the_photo(folder, tmp_path):
    """With a reader that reads luma of 12 and colour of 4 grey levels off any photo."""
    shutil.copytree(folder / "model", tmp_path / "model")
    wanted = np.repeat(np.float32([12, 4]), spectra.SIZE // 2)
    save_tiny_spectrum_reader(tmp_path / "model", wanted)
    model, denoiser = nt_jax.load(tmp_path / "model"), nt_jax.load_denoiser(folder / "denoiser")
    photo = folder / "noisy" / PHOTOS[0]
    clean = np.full((192, 192, 3), 128, np.uint8)  # nothing is clipped
    piece = read_rgb(photo)[:192, :192]
    found = survey(model, denoiser, photo)
    noise = add_noise(model, clean, found, piece, 0) - clean / np.float32(255)
    measured = spectra.measure(noise[None])
    amplitude = np.exp(np.asarray(spectra.decode(measured.values))[0])
    inner = np.r_[1:7, 9:15]  # the widest ring and the coarsest of few frequencies aside
    np.testing.assert_allclose(amplitude[inner], wanted[inner], rtol=0.1)

    list(make_pairs(model, denoiser, [found], [photo], tmp_path / "pairs", 8, 0))
    assert len(list((tmp_path / "pairs" / "train" / "noisy").iterdir())) == 7


def test_a_patch_takes_the_tones_of_its_denoised_image_and_not_its_detail():
    """Of an image that is lifted by a parabola and has lost its detail, the parabola alone."""
    tones = np.linspace(20, 220, 64 * 64).reshape(64, 64, 1).repeat(3, axis=-1)
    detail = 4 * (-1.0) ** np.indices((64, 64)).sum(0)[..., None]
    patch = np.rint(tones + detail).astype(np.uint8)
    lifted = lambda x: 0.04 + 0.9 * x + 0.05 * x**2  # noqa: E731
    matched = match_tone(patch, lifted(tones / 255).astype(np.float32))
    np.testing.assert_allclose(matched / 255, lifted(patch / 255), atol=0.012)
    kept = (matched - lifted(tones / 255) * 255).std()
    assert kept > 3  # of 4: the detail stays
    np.testing.assert_array_equal(match_tone(patch, np.float32(patch / 255)), patch)


def test_wrong_input_leaves_nothing(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    _photos(folder, tmp_path / "broken")
    small, pairs, inside = tmp_path / "small", tmp_path / "few", tmp_path / "inside"
    _photos(folder, small)
    _photos(folder, inside)
    Image.fromarray(data.chelsea()[:191, :300]).save(small / "c.png")
    for part in ("gt", "noisy"):
        (pairs / part).mkdir(parents=True)
        Image.fromarray(data.chelsea()[:90, :100]).save(pairs / part / "a.png")
    broken = tmp_path / "broken" / PHOTOS[0]
    broken.write_bytes(broken.read_bytes()[:4000])
    (tmp_path / "other" / "letter.txt").write_text("mine")
    output = tmp_path / "out"
    for wrong, why in (
        ({"noisy": tmp_path / "empty"}, "no image found"),
        ({"noisy": tmp_path / "broken"}, "truncated or damaged"),
        ({"minutes": 0}, "more than 0"),
        ({"model": "nothing"}, "no model nothing"),
        ({"denoiser": folder / "model"}, "not a denoiser"),
        ({"pairs": tmp_path / "empty"}, "."),
        ({"noisy": small}, "c.png: 300x191 is smaller than 192"),
        ({"clean": small}, "c.png: 300x191 is smaller than 192"),
        ({"pairs": pairs}, "a.png: 100x90 is smaller than 96 pixels; leave it out"),
        ({"noisy": inside, "output": inside}, "lies in --noisy"),
        ({"clean": inside, "output": inside / "out"}, "lies in --clean"),
        ({"pairs": pairs, "output": pairs / "out"}, "lies in --pairs"),
        ({"output": small / "c.png" / "out"}, "cannot be made: Not a directory"),
        ({"output": tmp_path / ("x" * 300)}, "cannot be made: File name too long"),
        ({"output": tmp_path / "other"}, "no denoiser of this command"),
    ):
        with pytest.raises(nt_jax.InputError, match=why):
            adapt.main(_flags(folder, **({"output": output, "noisy": inside} | wrong)))
        assert not output.exists()
        assert not list(tmp_path.rglob("adapt.json"))
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "adapt.json").write_text(text)
    with pytest.raises(nt_jax.InputError, match=r"adapt\.json is damaged"):
        adapt._is_done(tmp_path, {"photos": []})
