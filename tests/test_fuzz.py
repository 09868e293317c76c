"""Damaged image files: taken or refused in one line. The long version is a soak experiment."""

import contextlib
import functools
import io

from tiny_models import save_tiny

from experiments.soak import fuzz_images, image_mutations
from nt_jax.inference import loading


def test_damaged_files_are_taken_whole_or_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", functools.cache(loading.load))
    files = tmp_path / "files"
    files.mkdir()
    for name, data in image_mutations.mutations(120, seed=1):
        (files / name).write_bytes(data)
    save_tiny(tmp_path / "model")
    (tmp_path / "reference.png").write_bytes(image_mutations.sound_files()["rgb.png"])
    outcomes = fuzz_images.Outcomes()
    with contextlib.redirect_stdout(io.StringIO()):
        fuzz_images.fuzz_transfer(sorted(files.iterdir()), tmp_path, outcomes)
        fuzz_images.fuzz_prepare(sorted(files.iterdir()), tmp_path, outcomes)
    assert not outcomes.faults
    assert min(outcomes.counts["taken"], outcomes.counts["refused"]) > 20


def test_sound_files_are_taken(tmp_path):
    from nt_jax.images import image_size, read_photo, read_rgb

    for name, data in image_mutations.sound_files().items():
        path = tmp_path / name
        path.write_bytes(data)
        size = (image_mutations.SIDE, image_mutations.SIDE)
        assert read_rgb(path).shape == (*size, 3)
        assert read_photo(path).pixels.shape[:2] == image_size(path) == size


def test_the_same_seed_gives_the_same_files():
    first, again = (dict(image_mutations.mutations(60, seed=3)) for _ in range(2))
    assert first == again
    assert len(first) == 60
