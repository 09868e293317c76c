"""Paths as users write them, and what folders hold besides photographs."""

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nt_jax import denoise, images
from nt_jax.broken import Broken
from nt_jax.data.builders import photos
from nt_jax.data.catalogue import layouts, sources
from nt_jax.errors import InputError
from nt_jax.evaluation.samples import samples_of_folders
from nt_jax.files import replacing
from nt_jax.inference.files import pair_up, plan
from nt_jax.paths import exists, expand, look_through, split_names

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGE).save(path)
    return root


def below(root, paths):
    return [path.relative_to(root).as_posix() for path in paths]


# --- Folders -------------------------------------------------------------------------------------

LITTER = (
    "._a.png",
    ".ipynb_checkpoints/a-checkpoint.png",
    ".Trash-1000/files/a.png",
    "@eaDir/a.png/SYNOPHOTO_THUMB_M.png",
    "__MACOSX/a.png",
    "deep/.hidden/a.png",
    "deep/@eaDir/a.png",
)


def test_litter_is_left_out_everywhere(tmp_path):
    touch(tmp_path, "deep/a.png", *LITTER)
    assert below(tmp_path, sources.find_photos(tmp_path)) == ["deep/a.png"]
    assert below(tmp_path, images.list_images(tmp_path)) == ["deep/a.png"]
    assert [p.as_posix() for p in images.find_images(tmp_path, tmp_path / "o")] == ["deep/a.png"]
    assert [source.name for source in photos.list_photos(tmp_path).sources] == ["deep/a.png"]


def test_litter_holds_no_pairs(tmp_path):
    litter = [name.replace(".png", f"_{role}.png") for name in LITTER for role in ("gt", "noisy")]
    touch(tmp_path, "a_gt.png", "a_noisy.png", "__MACOSX/gt/b.png", "__MACOSX/noisy/b.png", *litter)
    pairs, problems = sources.list_pairs(tmp_path)
    assert ([pair.name for pair in pairs], problems) == (["a"], [])


def test_linked_folders_are_followed_once(tmp_path):
    data, disk = tmp_path / "data", tmp_path / "disk"
    touch(data, "cam1/a_gt.png", "cam1/a_noisy.png")
    touch(disk, "cam2/deep/b_gt.png", "cam2/deep/b_noisy.png")
    (data / "cam2").symlink_to(disk / "cam2")
    (data / "again").symlink_to(data / "cam1")
    (data / "cam1" / "round").symlink_to(data)
    (data / "up").symlink_to("..")
    (disk / "cam2" / "round").symlink_to(disk / "cam2")
    (data / "dead").symlink_to(tmp_path / "nowhere")
    assert [pair.name for pair in sources.find_pairs(data)] == ["cam1/a", "cam2/deep/b"]


def test_results_do_not_leave_the_folder_and_links_out_of_it_are_named(tmp_path, capsys):
    touch(tmp_path, "in/a.png", "in/sub/b.png", "outside/c.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "inner").symlink_to(tmp_path / "in" / "sub")
    jobs = plan(pair_up(tmp_path / "in", tmp_path / "out"))
    assert below(tmp_path / "in", [job.source for job in jobs]) == ["a.png", "sub/b.png"]
    assert "in/link: left out, a link" in capsys.readouterr().out


def test_pictures_of_our_own_models_and_runs_are_no_photos(tmp_path, capsys):
    touch(
        tmp_path, "in/a.png", "in/den/report.png", "in/den/pairs/gt/0.png", "in/run/samples/0.png"
    )
    (tmp_path / "in/den/adapt.json").write_text("{}")
    (tmp_path / "in/run/config.json").write_text("{}")
    (tmp_path / "in/run/checkpoints").mkdir()
    jobs = plan(pair_up(tmp_path / "in", tmp_path / "out"))
    assert below(tmp_path / "in", [job.source for job in jobs]) == ["a.png"]
    said = capsys.readouterr().out
    assert "in/den: left out, made by nt_jax" in said
    assert "in/run: left out" in said
    named = plan(pair_up(tmp_path / "in" / "den", tmp_path / "out"))  # who names it wants it
    assert len(named) == 2


def test_an_empty_path_is_no_folder():
    with pytest.raises(InputError, match="--input: is empty; name a file or folder"):
        denoise.main(["--input=", "--output=out"])


def test_other_files_are_counted_in_a_line(tmp_path, capsys):
    touch(tmp_path, "in/a.png")
    for name in ("b.heic", "c.cr3", "sub/d.heic", ".DS_Store", "noext"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    extensions = images.EXTENSIONS - {".cr3"}  # which is read where rawpy is
    found = look_through(tmp_path / "in", extensions)
    assert found.left_out() == ["4 other files left out: .cr3 .heic noext"]
    (tmp_path / "in" / "c.cr3").unlink()
    plan(pair_up(tmp_path / "in", tmp_path / "out"))
    assert capsys.readouterr().out == "3 other files left out: .heic noext\n"
    notes = []
    sources.find_photos(tmp_path / "in", notes)
    assert notes == ["3 other files left out: .heic noext"]
    (tmp_path / "in" / "a.png").unlink()
    with pytest.raises(InputError, match="no image found"):
        plan(pair_up(tmp_path / "in", tmp_path / "out"))
    assert "3 other files left out" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["{}_gt.png {}_noisy.png", "gt/{}.png noisy/{}.png"])
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_two_forms_of_unicode_are_one_name(tmp_path, layout, forms):
    for part, form in zip(layout.split(), forms, strict=True):
        touch(tmp_path, unicodedata.normalize(form, part.format("Blüte")))
    (pair,) = sources.find_pairs(tmp_path)
    assert pair.name == unicodedata.normalize("NFC", "Blüte")


def test_three_folders_match_in_two_forms_of_unicode(tmp_path):
    for folder, form in (("a", "NFC"), ("b", "NFD"), ("c", "NFC")):
        touch(tmp_path / folder, unicodedata.normalize(form, "Blüte.png"))
    folders = [tmp_path / name for name in "abc"]
    assert len(samples_of_folders(*folders, Broken(skip=False))) == 1


@pytest.mark.parametrize(
    "names",
    [
        ["0001_001_S6_00100_00060_3200_L/NOISY_SRGB_010.PNG"],
        ["a/0001_GT_SRGB_010.PNG", "a/0001_NOISY_SRGB_010.PNG"],
        ["x_gt.png", "x_noisy.png"],
        ["x_mean.JPG", "x_real.JPG"],
        ["gt/x.png", "noisy/x.png"],
        ["train/target/x.png", "train/input/x.png"],
        ["x.png", "street_Noisy_3.png"],
    ],
)
def test_noisy_images_are_no_clean_photographs(tmp_path, names):
    touch(tmp_path / "d", *names)
    for call in (
        lambda: sources.find_photos(tmp_path / "d"),
        lambda: photos.list_photos(tmp_path / "d"),
        lambda: layouts.check_clean(tmp_path / "d"),
    ):
        with pytest.raises(InputError, match="noisy by its name, but clean"):
            call()


def test_the_noisy_one_of_two_folders_is_no_folder_of_photographs(tmp_path):
    touch(tmp_path, "GT/x.png", "NOISY/x.png")
    with pytest.raises(InputError, match="NOISY is noisy by its name"):
        sources.find_photos(tmp_path / "NOISY")
    assert len(sources.find_photos(tmp_path / "GT")) == 1


def test_photographs_may_be_called_what_they_like(tmp_path):
    touch(tmp_path / "noisy", "cat_real.png", "input.png", "clean_energy.png", "a/unreal.png")
    assert len(sources.find_photos(tmp_path / "noisy")) == 4


# --- Layouts of pairs ----------------------------------------------------------------------------


@pytest.mark.parametrize("clean", ["gt", "GT", "clean", "Clean", "target", "ground_truth"])
@pytest.mark.parametrize("noisy", ["noisy", "NOISY", "input", "Input"])
@pytest.mark.parametrize("form", ["{}/{}.png", "train/{}_crops/{}.png", "{}/sub/{}.png"])
def test_two_folders_by_whatever_name(tmp_path, clean, noisy, form):
    touch(tmp_path, form.format(clean, 1), form.format(noisy, 1))
    (pair,) = sources.find_pairs(tmp_path)
    assert (clean in pair.clean.as_posix(), noisy in pair.noisy.as_posix()) == (True, True)


@pytest.mark.parametrize(
    ("clean", "noisy", "name"),
    [
        ("gt/1_gt.png", "noisy/1_noisy.png", "1"),
        ("target/GT_1.png", "input/NOISY_1.png", "1"),
        ("clean/0001_GT_SRGB_010.PNG", "noisy/0001_NOISY_SRGB_010.PNG", "0001_SRGB_010"),
        ("gt/x_real.png", "noisy/x_real.png", "x_real"),
        ("gt/1.png", "noisy/1_noisy.jpg", "1"),
        ("a_target.png", "a_input.png", "a"),
        ("a-clean.png", "a-noisy.png", "a"),
        ("clean_a.png", "noisy_a.png", "a"),
        ("a_gt_1.png", "a_noisy_1.png", "a_1"),
    ],
)
def test_names_that_differ_in_the_word_for_their_role(tmp_path, clean, noisy, name):
    touch(tmp_path, clean, noisy)
    (pair,) = sources.find_pairs(tmp_path)
    found = (pair.name, pair.clean, pair.noisy)
    assert found == (name, tmp_path / clean, tmp_path / noisy)


@pytest.mark.parametrize(
    ("clean", "noisy"),
    [
        ("a_gt.png", ["a_noisy_1.png", "a_noisy_2.png", "a_noisy_iso3200.png"]),
        ("gt/a.png", ["noisy/a_1.png", "noisy/a_2.png"]),
        ("gt/a.png", ["noisy/a.png", "noisy/a_2.png", "noisy/a (3).png"]),
        ("clean/a.png", ["noisy/a/1.png", "noisy/a/2.png"]),
        ("gt/a_gt.png", ["noisy/a_noisy_1.png", "noisy/a_noisy_2.png"]),
    ],
)
def test_several_noisy_versions_of_one_clean_image(tmp_path, clean, noisy):
    touch(tmp_path, clean, *noisy)
    pairs = sources.find_pairs(tmp_path)
    assert {pair.clean for pair in pairs} == {tmp_path / clean}
    assert {pair.noisy for pair in pairs} == {tmp_path / name for name in noisy}
    assert len({pair.name for pair in pairs}) == len(noisy)
    # One scene, that is not to lie in two splits.
    assert {pair.scene for pair in pairs} == {"a"}


def test_a_number_at_the_end_is_no_version_where_it_has_its_own_clean_image(tmp_path):
    touch(tmp_path, "gt/a.png", "gt/a_1.png", "noisy/a.png", "noisy/a_1.png")
    assert [(p.clean.name, p.noisy.name) for p in sources.find_pairs(tmp_path)] == [
        ("a.png", "a.png"),
        ("a_1.png", "a_1.png"),
    ]


def test_two_folders_of_one_role_are_named(tmp_path):
    touch(tmp_path, "gt/a.png", "clean/a.png", "noisy/a.png")
    with pytest.raises(InputError, match="two folders of clean images"):
        sources.find_pairs(tmp_path)


# --- Names ---------------------------------------------------------------------------------------


def test_home_is_expanded_and_files_called_so_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()  # an earlier mistake does not make the next one right
    assert expand("~/x") == tmp_path / "home" / "x"
    assert expand("~") == tmp_path / "home"
    touch(tmp_path, "~backup.png")
    assert expand("~backup.png") == Path("~backup.png")
    assert expand("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert expand("a/~/b") == Path("a/~/b")
    touch(tmp_path, "home/photos/a.png")
    assert sources.parse_spec("~/photos=2") == [("~/photos", 2.0)]
    assert len(sources.load_photos("~/photos=2")) == 1


def test_what_exists_under_the_whole_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "iso=3200/a.png", "Paris, 2024/a.png", "a/a.png", "a,b=2/a.png")
    assert sources.parse_spec("iso=3200") == [("iso=3200", None)]
    assert sources.parse_spec("iso=3200=2,a") == [("iso=3200", 2.0), ("a", None)]
    assert sources.parse_spec("a,Paris, 2024=3, a=1") == [
        ("a", None),
        ("Paris, 2024", 3.0),
        ("a", 1.0),
    ]
    assert sources.parse_spec("a,b=2") == [("a,b=2", None)]
    names = split_names("a/a.png,Paris, 2024/a.png,none.png", os.path.exists)
    assert names == ["a/a.png", "Paris, 2024/a.png", "none.png"]


def test_a_list_longer_than_any_name_is_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"folder {i}" for i in range(40)]
    touch(tmp_path, *(f"{name}/a.png" for name in names))
    assert sources.parse_spec(",".join(names)) == [(name, None) for name in names]
    assert split_names(",".join(names), exists) == names


def test_a_folder_with_entries_that_may_not_be_looked_at(tmp_path, monkeypatch):
    touch(tmp_path, "a.png")
    real = os.stat

    def refuse(path, *args, **options):
        if str(path).endswith("a.png"):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", refuse)  # the tests may run as root, who may look anywhere
    monkeypatch.setattr(os, "lstat", refuse)
    assert not exists(tmp_path / "a.png")
    assert look_through(tmp_path, frozenset({".png"})).files == []


@pytest.mark.parametrize("length", [200, 241, 247, 255])
def test_names_as_long_as_a_disk_allows_are_written(tmp_path, length):
    path = tmp_path / ("長" * 83)[: (length - 4) // 3]
    path = path.with_name(path.name + "x" * (length - 4 - len(path.name.encode())) + ".png")
    assert len(path.name.encode()) == length
    images.write_photo(path, images.Photo(IMAGE))
    np.testing.assert_array_equal(images.read_rgb(path), IMAGE)
    with pytest.raises(InputError), replacing(path):
        raise OSError(28, "No space left on device")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_imports_of_reading_are_light():
    code = (
        "import nt_jax.images, nt_jax.inference.files, nt_jax.data.catalogue.layouts, sys;"
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'tensorflow_datasets', 'clu')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
