"""Real noise on other photographs."""

import numpy as np
import pytest
from PIL import Image

from experiments.transplant_noise import main, transplant
from nt_jax.data.catalogue import sources
from nt_jax.errors import InputError, run_command


def test_the_new_noise_has_the_level_of_the_new_brightness():
    rng = np.random.default_rng(0)
    ramp = np.broadcast_to(np.linspace(20, 230, 200)[None, :, None], (200, 200, 3))
    level = lambda value: 2 + value / 20  # noqa: E731
    noisy = ramp + rng.normal(0, 1, ramp.shape) * level(ramp)
    for value in (60, 180):
        other = np.full(ramp.shape, float(value))
        noise = transplant(ramp, noisy, other) - other
        assert noise.std() == pytest.approx(level(value), rel=0.1)
        assert abs(noise.mean()) < 0.3


def test_the_new_noise_is_on_detail_where_the_old_was():
    """As noise reduction that keeps edges leaves it: three times as much on detail."""
    rng = np.random.default_rng(0)
    grain = 20 * rng.normal(size=(200, 200, 1))
    left, right = np.arange(200)[None, :, None] < 100, np.arange(200)[None, :, None] >= 100
    clean, other = (np.repeat(120 + grain * half, 3, axis=-1) for half in (left, right))
    noisy = clean + rng.normal(size=clean.shape) * np.where(left, 6.0, 2.0)
    noise = transplant(clean, noisy, other) - other
    assert noise[:, 105:].std() == pytest.approx(6, rel=0.15)
    assert noise[:, :95].std() == pytest.approx(2, rel=0.15)


def test_the_command_writes_pairs_that_training_reads(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(1)
    for name, level in (("pairs/clean", 0), ("pairs/noisy", 20), ("photos", 0)):
        (tmp_path / name).mkdir(parents=True)
        smooth = np.full((80, 90, 3), 120.0) + rng.normal(0, 1, (80, 90, 3)) * level
        Image.fromarray(smooth.round().astype(np.uint8)).save(tmp_path / name / "a.png")
    flags = [f"--{name}={tmp_path / name}" for name in ("pairs", "photos", "output")]
    monkeypatch.setattr("sys.argv", ["transplant_noise.py", *flags, "--each=3", "--size=32"])
    main()
    assert "wrote 3 pairs" in capsys.readouterr().out
    pairs = sources.find_pairs(str(tmp_path / "output"))
    assert len(pairs) == 3
    for pair in pairs:
        clean, noisy = (sources.read_rgb(file).astype(float) for file in (pair.clean, pair.noisy))
        assert clean.shape == (32, 32, 3)
        assert (noisy - clean).std() == pytest.approx(20, rel=0.1)
    with pytest.raises(InputError, match="is not empty"):  # two runs would be one data set
        main()
    weighted = f"--photos={tmp_path}/photos=2"
    monkeypatch.setattr("sys.argv", ["transplant_noise.py", *flags, weighted])
    with pytest.raises(InputError, match="weights mean nothing here"):
        main()


def test_a_wrong_run_leaves_nothing(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(1)
    for name in ("pairs/clean/a", "pairs/noisy/a", "pairs/clean/b", "pairs/noisy/b", "photos/a"):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (80, 90, 3), np.uint8)).save(file)
    damaged = tmp_path / "pairs/noisy/b.png"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))

    def line(*flags):
        """The one line that the command ends with, exit code 2, without output."""
        folders = [f"--{name}={tmp_path / name}" for name in ("pairs", "photos", "output")]
        monkeypatch.setattr("sys.argv", ["transplant_noise.py", *folders, "--size=32", *flags])
        with pytest.raises(SystemExit) as exit_:
            run_command(main)
        assert exit_.value.code == 2
        assert sorted(tmp_path.rglob("*")) == before
        (text,) = [t for t in capsys.readouterr().err.splitlines() if t.startswith("error")]
        return text

    assert "b.png" in line()
    assert "expected 0 to" in line("--seed=-1")
    assert "is a file" in line(f"--output={tmp_path / 'file'}")
    assert "is in the input folder" in line(f"--output={tmp_path / 'pairs'}")
