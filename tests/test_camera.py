"""Camera noise: each stage by what it must do, and the statistics of the whole."""

import io
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image

from experiments import camera_noise
from nt_jax import metrics
from nt_jax.errors import InputError
from nt_jax.evaluation import heldout
from nt_jax.noise import camera

PHASES = [(0, 0), (0, 1), (1, 0), (1, 1)]
SHOT, READ = 4e-3, 2e-5

sample_setting = jax.jit(camera.sample_setting, static_argnums=1)
add_noise = jax.jit(camera.add_noise)
demosaic = jax.jit(camera.demosaic)
jpeg = jax.jit(camera.jpeg)


def _setting(**changes) -> camera.CameraSetting:
    setting = sample_setting(jax.random.key(0), camera.PUBLISHED)
    changes = {"shot": SHOT, "read": READ, "malvar": 1.0} | changes
    return setting._replace(**{k: jnp.float32(v) for k, v in changes.items()})


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """float32 [256, 256, 3]."""
    return skimage.data.astronaut()[:256, 100:356].astype(np.float32) / 255


@pytest.fixture(scope="module")
def patch(photo) -> np.ndarray:
    """float32 [96, 96, 3], one shape for several tests."""
    return photo[:96, :96]


# --- The mosaic ----------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
def test_mosaic_is_rggb(phase):
    colours = jnp.broadcast_to(jnp.arange(3.0), (6, 8, 3))
    expected = np.tile([[0, 1], [1, 2]], (4, 5))[phase[0] :, phase[1] :][:6, :8]
    assert np.array_equal(camera.mosaic(colours, jnp.array(phase)), expected)


@pytest.mark.parametrize("malvar", [0.0, 1.0])
@pytest.mark.parametrize("phase", PHASES)
def test_demosaicking_reproduces_a_constant_and_a_ramp(phase, malvar):
    rows, columns = np.mgrid[:12, :14].astype(np.float32)
    ramp = (rows / 30 + columns / 40)[..., None]
    constant = np.array([0.2, 0.5, 0.3], np.float32)
    for image, margin in ((np.broadcast_to(constant, (12, 14, 3)), 0), (ramp + 0 * constant, 2)):
        raw = camera.mosaic(jnp.asarray(image), jnp.array(phase))
        result = np.asarray(demosaic(raw, jnp.array(phase), malvar))
        inside = slice(margin, -margin or None)
        assert result[inside, inside] == pytest.approx(image[inside, inside], abs=1e-6)


def test_malvar_restores_a_photograph_better_than_bilinear_interpolation(photo):
    phase = jnp.array((0, 0))
    raw = camera.mosaic(jnp.asarray(photo), phase)
    bilinear, malvar = (metrics.psnr(photo, demosaic(raw, phase, m).clip(0, 1)) for m in (0.0, 1.0))
    assert malvar[0] > bilinear[0] + 3  # Malvar et al. report 5.5 dB on Kodak's photographs


def test_demosaicking_is_linear():
    a, b = jax.random.normal(jax.random.key(0), (2, 12, 12))
    phase = jnp.array((1, 0))
    parts = np.asarray(demosaic(a, phase, 1.0) + 2 * demosaic(b, phase, 1.0))
    assert demosaic(a + 2 * b, phase, 1.0) == pytest.approx(parts, abs=1e-5)


# --- Processing ----------------------------------------------------------------------------------


def test_processing_undoes_unprocessing():
    levels = np.linspace(0, 1, 18, dtype=np.float32)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(81, 72, 3)

    @jax.jit
    @jax.vmap
    def there_and_back(key, tone):
        setting = camera.sample_setting(key, camera.PUBLISHED)._replace(tone=tone)
        return camera.process(camera.unprocess(colours, setting)[0], setting)

    keys = jax.random.split(jax.random.key(1), 4)
    result = np.asarray(there_and_back(keys, jnp.array([0.0, 0.02, 0.5, 1.0])))
    assert np.abs(result - colours).max() < 1e-3


def test_white_saturates_the_sensor_and_grey_lies_below_by_the_gains():
    setting = _setting(tone=1)
    grey = jnp.broadcast_to(jnp.array([0.0, 0.5, 1.0])[:, None, None], (3, 1, 3))
    balanced, gains = camera.unprocess(grey, setting)
    raw = np.asarray(balanced / gains)[:, 0]
    assert raw[0] == pytest.approx(0, abs=1e-4)
    assert raw[2] == pytest.approx(1, abs=1e-2)
    # The tone curve leaves 0.5 as it is; sRGB 0.5 is 0.214 in linear light.
    assert raw[1] == pytest.approx(0.21404 / np.asarray(setting.gains), rel=1e-3)
    assert np.asarray(gains[1, 0]) == pytest.approx(np.asarray(setting.gains), rel=1e-6)


# --- Noise ---------------------------------------------------------------------------------------


def test_variance_of_raw_noise_is_shot_times_signal_plus_read():
    levels = jnp.linspace(0.2, 0.7, 6)
    raw = jnp.repeat(levels[:, None], 40_000, axis=1)
    noise = np.asarray(camera.raw_noise(jax.random.key(2), raw, _setting(read=1e-3)))
    assert noise.mean(1) == pytest.approx(0, abs=5 * 0.07 / 200)
    assert noise.var(1) == pytest.approx(SHOT * levels + 1e-3, rel=5 * np.sqrt(2 / 40_000))


def test_the_sensor_clips_at_black_and_white():
    raw = jnp.repeat(jnp.array([0.0, 1.0])[:, None], 10_000, axis=1)
    black, white = np.asarray(raw + camera.raw_noise(jax.random.key(3), raw, _setting(read=1e-3)))
    assert (black.min(), white.max()) == (0, 1)
    for clipped in (black == 0, white == 1):
        assert clipped.mean() == pytest.approx(0.5, abs=0.03)


def test_without_noise_an_8_bit_image_stays_as_it_is(patch):
    result = np.asarray(add_noise(jax.random.key(4), patch, _setting(shot=0, read=0)))
    assert result == pytest.approx(patch, abs=1e-6)


def test_the_same_key_gives_the_same_noise(patch):
    first, again, other = (add_noise(jax.random.key(k), patch, _setting()) for k in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == jnp.float32
    levels = np.asarray(first) * 255
    assert levels == pytest.approx(np.round(levels), abs=1e-4)


def test_it_looks_like_camera_noise(photo):
    """The ranges measured on full-resolution SIDD crops; see experiments/camera_noise.py."""

    @jax.jit
    @jax.vmap
    def draw(key):
        setting_key, noise_key = jax.random.split(key)
        setting = camera.sample_setting(setting_key, camera.Options(levels=((SHOT, READ),)))
        return camera.add_noise(noise_key, photo, setting)

    noisy = np.asarray(draw(jax.random.split(jax.random.key(7), 8)))
    noise = noisy - photo
    lag1 = np.asarray(metrics.lag_autocorrelation(noise, 1))
    correlation = np.asarray(metrics.channel_correlation(noise))[:, [0, 0, 1], [1, 2, 2]]
    levels, _ = metrics.noise_level_curve(np.broadcast_to(photo, noisy.shape), noisy, 8)
    levels = np.asarray(levels).mean(0)
    assert 0.3 < lag1.mean() < 0.5
    assert 0.25 < correlation.mean() < 0.45
    assert 2 <= levels.argmax() <= 5
    assert levels[7] < 0.7 * levels.max()
    assert levels[0] < 0.7 * levels.max()


def test_a_level_can_be_matched(patch):
    target = 20 / 255
    match = jax.jit(camera.match_level)
    setting = match(jax.random.key(8), patch, _setting(shot=1e-4), target)
    noise = add_noise(jax.random.key(9), patch, setting) - patch
    assert noise.std() == pytest.approx(target, rel=0.05)
    before = _setting(shot=1e-4)
    slope = jnp.log(setting.read / before.read) / jnp.log(setting.shot / before.shot)
    assert slope == pytest.approx(2.18, rel=1e-4)


def test_gradients_are_finite():
    levels = np.linspace(0, 1, 64, dtype=np.float32)  # black and white included
    clean = jnp.asarray(np.stack([levels, levels[::-1], levels], -1).reshape(8, 8, 3))
    setting = _setting(read=0)._replace(jpeg_quality=jnp.float32(80))

    @jax.jit
    @jax.grad
    def gradient(arguments):
        return add_noise(jax.random.key(10), *arguments).sum()

    of_clean, of_setting = gradient((clean, setting))
    for leaf in jax.tree.leaves((of_clean, of_setting)):
        assert np.isfinite(leaf).all()
    assert np.abs(of_clean).max() > 0.1
    assert abs(of_setting.shot) > 0


# --- JPEG ----------------------------------------------------------------------------------------


def _pillow_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(np.round(image * 255).astype(np.uint8)).save(
        buffer, "JPEG", quality=quality, subsampling=0
    )
    return np.asarray(Image.open(buffer)).astype(np.float32) / 255


@pytest.mark.parametrize("quality", [95, 60, 30])
def test_jpeg_is_close_to_pillows(photo, quality):
    patch = photo[100:164, 60:116]  # whole blocks
    ours = np.asarray(jpeg(patch, jnp.float32(quality), jnp.array((0, 0))))
    pillows = _pillow_jpeg(patch, quality)
    loss = np.sqrt(np.mean((pillows - patch) ** 2))
    # Theirs rounds differently here and there in fixed-point arithmetic.
    assert np.sqrt(np.mean((ours - pillows) ** 2)) < 0.4 * loss
    assert np.sqrt(np.mean((ours - patch) ** 2)) == pytest.approx(loss, rel=0.05)


def test_jpeg_of_lower_quality_is_coarser_and_its_blocks_lie_where_told(photo):
    patch = photo[100:150, 60:110]
    losses = [
        float(np.abs(jpeg(patch, jnp.float32(q), jnp.array((0, 0))) - patch).mean())
        for q in (95, 60, 30)
    ]
    assert losses == sorted(losses)
    assert losses[2] > 2 * losses[0]
    # The same pixels as part of a larger picture whose blocks begin 3 rows and 5 columns before.
    larger = np.asarray(jpeg(photo[97:161, 55:119], jnp.float32(60), jnp.array((0, 0))))
    part = np.asarray(jpeg(patch, jnp.float32(60), jnp.array((3, 5))))
    assert part[5:45, 3:43] == pytest.approx(larger[8:48, 8:48], abs=1e-6)


# --- Settings ------------------------------------------------------------------------------------


def test_published_levels():
    setting = jax.jit(jax.vmap(lambda key: camera.sample_setting(key, camera.PUBLISHED)))(
        jax.random.split(jax.random.key(11), 4000)
    )
    shot, read = np.log(setting.shot), np.log(setting.read)
    assert np.histogram(shot, 8, (np.log(1e-4), np.log(1.2e-2)))[0] == pytest.approx(500, abs=110)
    residual = read - 2.18 * shot - 1.20
    assert residual.mean() == pytest.approx(0, abs=5 * 0.26 / np.sqrt(4000))
    assert residual.std() == pytest.approx(0.26, rel=0.06)
    assert np.asarray(setting.rgb_to_camera.sum(2)) == pytest.approx(1, abs=1e-5)
    assert setting.gains.min() > 0.8
    assert setting.jpeg_quality is None


def test_measured_levels_and_quality_are_drawn_and_quantiles_order_them(tmp_path):
    entries = [
        {"camera": "S6", "iso": iso, "shot": iso * 5e-6, "read": iso * 1e-8}
        for iso in (3200, 100, 800)
    ]
    file = tmp_path / "levels.json"
    file.write_text(json.dumps(entries))
    levels = camera.read_levels(file)
    assert [shot for shot, _ in levels] == pytest.approx([5e-4, 4e-3, 1.6e-2])
    options = camera.Options(levels, (50, 90))
    keys = jax.random.split(jax.random.key(12), 300)
    setting = jax.jit(jax.vmap(lambda key: camera.sample_setting(key, options)))(keys)
    values, counts = np.unique(np.asarray(setting.shot), return_counts=True)
    assert values == pytest.approx([5e-4, 4e-3, 1.6e-2])
    assert counts == pytest.approx(100, abs=45)
    assert np.asarray(setting.read) == pytest.approx(setting.shot / 500)
    assert 50 <= setting.jpeg_quality.min() < 55
    assert 85 < setting.jpeg_quality.max() <= 90
    strongest = sample_setting(keys[0], options, jnp.float32(0.9))
    assert strongest.shot == pytest.approx(1.6e-2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON"),
        ("[]", "needs a list of"),
        ('{"camera": "S6"}', "needs a list of"),
        ('[{"camera": "S6", "iso": 100, "shot": 1e-3}]', "entry 1: needs exactly the fields"),
        ('[{"camera": 6, "iso": 100, "shot": 1e-3, "read": 0}]', "entry 1: camera must be a name"),
        (
            '[{"camera": "S6", "iso": 100, "shot": 1e-3, "read": 0},'
            ' {"camera": "GP", "iso": 100, "shot": "much", "read": 0}]',
            r"entry 2 \(GP\): shot must be a number of at least 0, not 'much'",
        ),
        (
            '[{"camera": "S6", "iso": 100, "shot": 1e-3, "read": -1}]',
            r"entry 1 \(S6\): read must be a number of at least 0, not -1",
        ),
        ('[{"camera": "S6", "iso": NaN, "shot": 1e-3, "read": 0}]', "iso must be a number"),
        ('[{"camera": "S6", "iso": 100, "shot": 4.2, "read": 0}]', "above 1"),
    ],
)
def test_a_wrong_levels_file_is_one_line_with_the_place(tmp_path, content, message):
    file = tmp_path / "levels.json"
    file.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        camera.read_levels(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_levels_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: cannot be read: No such file"):
        camera.read_levels(tmp_path / "gone.json")


def test_held_out_patches_of_camera_noise_go_from_weak_to_strong():
    config = SimpleNamespace(
        seed=0,
        data=SimpleNamespace(
            noise_kinds=("camera",),
            sigma_range=(0, 70),
            lam_range=(5, 100),
            camera_levels="",
            camera_jpeg_quality=(0, 0),
            camera_processing=False,
        ),
        eval=SimpleNamespace(photos="skimage-heldout", pairs="", patches=4, patch_size=64),
    )
    patches = heldout.make_heldout(config)
    assert set(patches.kind) == {"camera"}
    for noisy, clean in (
        (patches.noisy, patches.clean),
        (patches.reference, patches.reference_clean),
    ):
        levels = (noisy - clean).std((1, 2, 3))
        assert np.all(np.diff(levels) > 0)
        assert levels[-1] > 4 * levels[0]


def test_the_comparison_checks_its_flags_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "pairs").mkdir()
    for output, seed, told in (
        ("out", "-1", "expected 0 to"),
        ("file", "0", "is a file"),
        ("pairs", "0", "is in the input folder"),
    ):
        flags = [f"--pairs={tmp_path / 'pairs'}", f"--output={tmp_path / output}"]
        with pytest.raises(InputError, match=told):
            camera_noise.main([*flags, f"--seed={seed}"])
