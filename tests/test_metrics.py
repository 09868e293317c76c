"""Metrics against the released program's values, other libraries, and cases known by hand.

OpenCV, scikit-image and SciPy compute the references here in float64; none shares code with
`nt_jax.metrics`.
"""

import functools
import pathlib

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.special
import scipy.stats
import skimage.data
import skimage.measure
import skimage.metrics

from nt_jax import metrics
from nt_jax.arrays import as_images, as_noise
from nt_jax.errors import InputError

GOLDEN = pathlib.Path(__file__).parent / "golden" / "official_small.npz"
TRIPLE = {
    "akld": metrics.akld,
    "ks": metrics.ks,
    "kld": metrics.kld,
    "lag1_error": metrics.lag1_error,
    "psd_error": metrics.psd_error,
    "channel_correlation_error": metrics.channel_correlation_error,
    "noise_level_error": metrics.noise_level_error,
}
triple_metrics = pytest.mark.parametrize("metric", TRIPLE.values(), ids=TRIPLE)


@pytest.fixture(scope="module")
def golden():
    """The released program's batch, NHWC, generated image clipped, and its metric values."""
    with np.load(GOLDEN) as file:
        images = {k: file[k].transpose(0, 2, 3, 1) for k in ("clean", "noisy", "generated_noise")}
        values = {k: file[k] for k in file if k.endswith("_per_image") or k.endswith("_noisy")}
    generated = np.clip(images["clean"] + images["generated_noise"], 0, 1)
    return images["clean"], images["noisy"], generated, values


@pytest.fixture(scope="module")
def photos():
    """Two 48 × 64 crops and two noisy versions, the second with other, correlated noise."""
    rng = np.random.default_rng(0)
    crops = skimage.data.astronaut()[60:108, 180:244], skimage.data.coffee()[150:198, 200:264]
    clean = np.stack(crops).astype(np.float32) / 255
    white = rng.standard_normal((2, *clean.shape))
    noisy = clean + (0.03 + 0.1 * clean) * white[0]
    generated = clean + 0.15 * scipy.ndimage.gaussian_filter(white[1], (0, 0.6, 0.6, 0.4))
    return clean, *(np.clip(v, 0, 1).astype(np.float32) for v in (noisy, generated))


# --- Against the released program and other libraries --------------------------------------------


def test_released_program(golden):
    clean, noisy, generated, values = golden
    found = {
        "akld_per_image": metrics.akld(clean, noisy, generated),
        "ks_per_image": metrics.ks(clean, noisy, generated),
        "psnr_noisy": metrics.psnr(clean, noisy),
        "ssim_noisy": metrics.ssim(clean, noisy),
    }
    for name, value in found.items():
        assert value.shape == (2,)
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, values[name], rtol=1e-5, err_msg=name)


def test_akld_opencv(photos):
    taps = cv2.getGaussianKernel(7, -1)

    def local_variance(noise):
        squared = noise.astype(np.float64) ** 2
        blurred = cv2.sepFilter2D(squared, -1, taps, taps, borderType=cv2.BORDER_REFLECT_101)
        return np.maximum(blurred, 1e-10)

    expected = []
    for clean, noisy, generated in zip(*photos, strict=True):
        ratio = local_variance(generated - clean) / local_variance(noisy - clean)
        ratio = np.clip(ratio, 0.1, 10)
        expected.append(np.mean(ratio - 1 - np.log(ratio)) / 2)
    np.testing.assert_allclose(metrics.akld(*photos), expected, rtol=1e-5)


def test_ks_and_kld_scipy(photos):
    edges = np.linspace(-1, 1, 257)
    for i, (clean, noisy, generated) in enumerate(zip(*photos, strict=True)):
        real, fake = (np.digitize((v - clean).ravel(), edges) for v in (noisy, generated))
        expected = scipy.stats.ks_2samp(real, fake, method="asymp").statistic
        np.testing.assert_allclose(metrics.ks(*photos)[i], expected, rtol=1e-5)

        p, q = (np.bincount(v, minlength=258) / v.size for v in (real, fake))
        expected = scipy.special.rel_entr(p, q)[(p > 0) & (q > 0)].sum()
        np.testing.assert_allclose(metrics.kld(*photos)[i], expected, rtol=1e-4)
        assert (p > 0).sum() != (q > 0).sum(), "the case where a bin is empty on one side only"


@pytest.mark.parametrize("size", [(48, 64), (401, 650)], ids=["full size", "halved"])
def test_psnr_and_ssim_scikit_image(size):
    # 650 × 401 rounds to a factor of two, and 401 leaves a row over.
    height, width = size
    clean = skimage.data.rocket()[:height, -width:].astype(np.float32) / 255
    if clean.shape[:2] != size:
        clean = np.pad(clean, [(0, n - m) for n, m in zip((*size, 3), clean.shape, strict=True)])
    rng = np.random.default_rng(1)
    noisy = np.clip(clean + 0.1 * rng.standard_normal(clean.shape), 0, 1).astype(np.float32)

    expected = skimage.metrics.peak_signal_noise_ratio(clean, noisy, data_range=1)
    np.testing.assert_allclose(metrics.psnr(clean, noisy), [expected], rtol=1e-5)

    factor = 1 if height < 384 else 2
    reduced = [
        skimage.measure.block_reduce(v, (factor, factor, 1), np.mean)[
            : height // factor, : width // factor
        ].astype(np.float64)
        for v in (clean, noisy)
    ]
    expected = skimage.metrics.structural_similarity(
        *reduced,
        channel_axis=2,
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    np.testing.assert_allclose(metrics.ssim(clean, noisy), [expected], rtol=1e-5)


def test_correlations_numpy(photos):
    noise = photos[2] - photos[0]
    lag, channel = metrics.lag_autocorrelation(noise, 2), metrics.channel_correlation(noise)
    for i, one in enumerate(noise.astype(np.float64)):
        pairs = [(one[:, :-2, c], one[:, 2:, c]) for c in range(3)]
        pairs += [(one[:-2, :, c], one[2:, :, c]) for c in range(3)]
        expected = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])
        np.testing.assert_allclose(lag[i], expected, atol=1e-5)
        np.testing.assert_allclose(channel[i], np.corrcoef(one.reshape(-1, 3).T), atol=1e-5)


# At 40 × 40 some frequencies on the edge of a bin come out of floating point just above it.
@pytest.mark.parametrize(("height", "width", "bins"), [(48, 64, 24), (40, 40, 20)])
def test_radial_power_spectrum_numpy(photos, height, width, bins):
    noise = (photos[2] - photos[0]).astype(np.float64)[:, :height, :width]
    spectrum = metrics.radial_power_spectrum(noise, bins)
    # Integers decide the bin, i < 2·bins·frequency <= i + 1, where a float edge could be unsure.
    fy, fx = np.fft.fftfreq(height, 1 / height), np.fft.fftfreq(width, 1 / width)
    squared = ((fy[:, None] * width) ** 2 + (fx * height) ** 2).astype(np.int64)
    for i, one in enumerate(noise):
        power = (np.abs(np.fft.fft2(one, axes=(0, 1))) ** 2).mean(axis=2) / (height * width)
        for k in range(bins):
            low, high = ((j * height * width) ** 2 for j in (k, k + 1))
            ring = (4 * bins**2 * squared > low) & (4 * bins**2 * squared <= high)
            np.testing.assert_allclose(spectrum[i, k], power[ring].mean(), rtol=1e-4)


def test_noise_level_curve_scipy(photos):
    clean, noisy, _ = photos
    clean = np.clip(clean, 0.21, 0.87)  # the first two and the last bin stay empty
    std, counts = metrics.noise_level_curve(clean, noisy, bins=10)
    assert std.shape == counts.shape == (2, 10)
    for i in range(2):
        x, noise = clean[i].ravel(), (noisy[i] - clean[i]).astype(np.float64).ravel()
        expected, *_ = scipy.stats.binned_statistic(x, noise, "std", 10, (0, 1))
        expected_counts, _ = np.histogram(x, 10, (0, 1))
        np.testing.assert_array_equal(counts[i], expected_counts)
        np.testing.assert_allclose(std[i], expected, rtol=1e-5)
    assert np.isnan(std[:, [0, 1, 9]]).all()
    assert (counts[:, [0, 1, 9]] == 0).all()


def test_errors_are_the_differences_they_say(photos):
    clean, noisy, generated = photos
    real, fake = noisy - clean, generated - clean

    lags = [np.asarray(metrics.lag_autocorrelation(v, 1)) for v in (real, fake)]
    np.testing.assert_allclose(metrics.lag1_error(*photos), abs(lags[1] - lags[0]), rtol=1e-4)

    decibel = [10 * np.log10(metrics.radial_power_spectrum(v, 24)) for v in (real, fake)]
    expected = np.sqrt(np.mean((decibel[1] - decibel[0]) ** 2, axis=1))
    np.testing.assert_allclose(metrics.psd_error(*photos), expected, rtol=1e-4)

    matrices = [np.asarray(metrics.channel_correlation(v)) for v in (real, fake)]
    difference = abs(matrices[1] - matrices[0])
    expected = (difference[:, 0, 1] + difference[:, 0, 2] + difference[:, 1, 2]) / 3
    np.testing.assert_allclose(metrics.channel_correlation_error(*photos), expected, rtol=1e-4)

    (s, c), (t, _) = (metrics.noise_level_curve(clean, v, 16) for v in (noisy, generated))
    expected = np.nansum(c * abs(t - s), axis=1) / np.nansum(c * s, axis=1)
    np.testing.assert_allclose(metrics.noise_level_error(*photos), expected, rtol=1e-4)


# --- Cases known by hand -------------------------------------------------------------------------


@triple_metrics
def test_identical_noise_scores_zero(metric, photos):
    clean, noisy, generated = photos
    np.testing.assert_allclose(metric(clean, noisy, noisy), 0, atol=1e-6)
    assert (metric(clean, noisy, generated) > 0.01).all()


@triple_metrics
def test_images_do_not_see_each_other(metric, photos):
    together = metric(*photos)
    apart = np.concatenate([metric(*(v[i] for v in photos)) for i in range(2)])
    assert together.dtype == jnp.float32
    assert together[0] != together[1]
    np.testing.assert_allclose(together, apart, rtol=1e-5)


def test_identical_images(photos):
    clean = photos[0]
    np.testing.assert_allclose(metrics.psnr(clean, clean), 80, rtol=1e-6)
    np.testing.assert_allclose(metrics.ssim(clean, clean), 1, rtol=1e-6)


def test_psnr_of_one_step():
    clean = np.full((8, 8, 3), 100, np.uint8)
    expected = 10 * np.log10(255**2)
    np.testing.assert_allclose(metrics.psnr(clean, clean + np.uint8(1)), [expected], rtol=1e-4)


def test_the_three_klds_by_numpy(photos):
    """Each as its paper's program counts, in whole grey levels, image by image."""
    photos = [np.rint(255 * images).astype(np.uint8) for images in photos]
    edges = {
        metrics.kld: np.linspace(-1, 1, 257) * 255,
        metrics.kld_tails: np.r_[-1000, np.linspace(-0.1, 0.1, 65) * 255, 1000],
        metrics.kld_grey_levels: np.arange(-260, 261, 4),
    }
    for metric, bins in edges.items():
        found = np.asarray(metric(*photos))
        for i, images in enumerate(zip(*photos, strict=True)):
            clean, noisy, generated = (image.astype(int) for image in images)
            p, q = (np.histogram(x - clean, bins)[0].astype(float) for x in (noisy, generated))
            if metric is metrics.kld_grey_levels:
                p, q = p + 1, q + 1
            p, q = p / p.sum(), q / q.sum()
            both = (p > 0) & (q > 0)
            expected = (p[both] * np.log(p[both] / q[both])).sum()
            np.testing.assert_allclose(found[i], expected, rtol=1e-3, atol=1e-6)


def test_akld_clamps_ratio():
    clean = np.full((16, 16, 3), 0.5)
    noisy = np.clip(clean + 0.1, 0, 1)
    low, high = 0.5 * (0.1 - 1 - np.log(0.1)), 0.5 * (10 - 1 - np.log(10))
    np.testing.assert_allclose(metrics.akld(clean, noisy, clean), [low], rtol=1e-5)
    np.testing.assert_allclose(metrics.akld(clean, clean, noisy), [high], rtol=1e-5)


@pytest.mark.parametrize("level", [0.2, 1e-3])
def test_small_noise_counts_as_much_as_large(level):
    rng = np.random.default_rng(7)
    clean = np.full((24, 24, 3), 0.5, np.float32)
    once = (clean + level * rng.uniform(-1, 1, clean.shape)).astype(np.float32)
    twice = clean + 2 * (once - clean)
    expected = 0.5 * (4 - 1 - np.log(4))
    np.testing.assert_allclose(metrics.akld(clean, once, twice), [expected], rtol=1e-4)
    np.testing.assert_allclose(metrics.psd_error(clean, once, twice), [20 * np.log10(2)], rtol=1e-4)
    np.testing.assert_allclose(metrics.noise_level_error(clean, once, twice), [1], rtol=1e-4)
    noise = once - clean
    diagonal = np.diagonal(metrics.channel_correlation(noise), axis1=1, axis2=2)
    np.testing.assert_allclose(diagonal, 1, rtol=1e-4)


def test_no_noise_is_finite():
    clean = np.full((24, 24, 3), 0.5, np.float32)
    noisy = clean + 0.1 * np.random.default_rng(8).uniform(-1, 1, clean.shape).astype(np.float32)
    for name, metric in TRIPLE.items():
        assert np.isfinite(metric(clean, clean, noisy)).all(), name
        assert np.isfinite(metric(clean, noisy, clean)).all(), name
        assert metric(clean, clean, clean) < 1e-5, name


@pytest.fixture(scope="module")
def gaussian_draws():
    """Flat grey, 128 × 128, and two independent draws of white Gaussian noise, σ = 20/255."""
    clean = np.full((2, 128, 128, 3), 0.5, np.float32)
    draws = np.random.default_rng(2).normal(0, 20 / 255, (2, *clean.shape))
    return clean, *np.clip(clean + draws, 0, 1).astype(np.float32)


def test_akld_of_two_draws_and_its_floor(gaussian_draws):
    clean, first, second = gaussian_draws
    np.testing.assert_allclose(metrics.akld(clean, first, second), 0.043, atol=0.002)
    floor = metrics.akld_floor(clean, first, jax.random.key(0))
    np.testing.assert_allclose(floor, 0.043, atol=0.003)
    assert (floor != metrics.akld_floor(clean, first, jax.random.key(1))).all()
    np.testing.assert_array_equal(floor, metrics.akld_floor(clean, first, jax.random.key(0)))


def test_akld_floor_follows_local_variance(gaussian_draws):
    # Noise in the left half only: about half the floor (the border adds a little), as for a true
    # second draw.
    half = np.arange(128)[:, None] < 64
    clean, first, second = (np.where(half, v, 0.5) for v in gaussian_draws)
    true_floor = metrics.akld(clean, first, second)
    np.testing.assert_allclose(true_floor, 0.043 / 2, rtol=0.3)
    floor = metrics.akld_floor(clean, first, jax.random.key(0))
    np.testing.assert_allclose(floor, true_floor, rtol=0.2)
    assert (metrics.akld_floor(clean, clean, jax.random.key(0)) == 0).all(), "no noise, no error"


def test_akld_floor_of_correlated_noise_is_that_of_a_second_draw(gaussian_draws):
    clean, *draws = gaussian_draws
    blur = functools.partial(scipy.ndimage.gaussian_filter, sigma=(0, 1, 1, 0), mode="wrap")
    first, second = (clean + 2 * blur(draw - clean) for draw in draws)
    true_floor = metrics.akld(clean, first, second)
    assert (true_floor > 0.1).all()
    floor = metrics.akld_floor(clean, first, jax.random.key(0))
    np.testing.assert_allclose(floor, true_floor, rtol=0.15)


def test_ks_and_kld_of_disjoint_noise():
    clean = np.full((8, 8, 3), 0.5)
    assert metrics.ks(clean, clean + 0.1, clean - 0.1) == 1
    assert metrics.kld(clean, clean + 0.1, clean - 0.1) == 0


def test_full_range_falls_in_the_last_bin():
    black, white = np.zeros((8, 8, 3)), np.ones((8, 8, 3))
    half_white = np.where(np.arange(8)[:, None] < 4, white, black)
    np.testing.assert_allclose(metrics.kld(black, white, half_white), [np.log(2)], rtol=1e-6)
    _, counts = metrics.noise_level_curve(half_white, black, bins=4)
    np.testing.assert_array_equal(counts, [[96, 0, 0, 96]])


def test_ks_sees_sign_of_tiny_noise():
    # Bins meet at 0: half of the values just below it is a distance of one half.
    clean = np.full((8, 8, 3), 1e-9, np.float32)
    below = clean.copy()
    below[:4] = 0
    assert metrics.ks(clean, clean, below) == 0.5


def test_autocorrelation_of_autoregressive_noise():
    # x(t) = ρ x(t − 1) + white, along both axes: correlation ρ^lag along either.
    rho = 0.6
    white = np.random.default_rng(4).standard_normal((2, 300, 300, 3))
    noise = scipy.signal.lfilter([1], [1, -rho], white, axis=1)
    noise = scipy.signal.lfilter([1], [1, -rho], noise, axis=2)[:, 44:, 44:]
    np.testing.assert_allclose(metrics.lag_autocorrelation(noise, 1), rho, atol=0.02)
    np.testing.assert_allclose(metrics.lag_autocorrelation(noise, 2), rho**2, atol=0.03)
    # One axis only: the other is white, and the mean of the two is reported.
    noise = scipy.signal.lfilter([1], [1, -rho], white, axis=1)[:, 44:, 44:]
    np.testing.assert_allclose(metrics.lag_autocorrelation(noise, 1), rho / 2, atol=0.02)
    np.testing.assert_allclose(metrics.lag_autocorrelation(white[:, 44:, 44:], 1), 0, atol=0.01)


def test_spectrum_of_white_noise_and_of_a_wave(gaussian_draws):
    clean, first, _ = gaussian_draws
    variance = (20 / 255) ** 2
    spectrum = metrics.radial_power_spectrum(first - clean + 0.3, 16)
    np.testing.assert_allclose(spectrum, variance, rtol=0.25)
    np.testing.assert_allclose(np.mean(spectrum), variance, rtol=0.03)

    wave = np.sin(2 * np.pi * 20 / 128 * np.arange(128))[None, :, None]  # 0.156 cycles per pixel
    wave = np.broadcast_to(wave, (128, 128, 3)).astype(np.float32)
    spectrum = metrics.radial_power_spectrum(wave, 16)
    assert np.argmax(spectrum) == 4, "bin 4 holds (0.125, 0.15625]"
    np.testing.assert_allclose(np.delete(spectrum, 4, axis=1), 0, atol=1e-5)


def test_level_errors_of_doubled_noise(gaussian_draws):
    clean, first, _ = gaussian_draws
    half = clean + 0.5 * (first - clean)
    doubled = (clean, half, first)
    np.testing.assert_allclose(metrics.noise_level_error(*doubled), 1, rtol=1e-3)
    np.testing.assert_allclose(metrics.psd_error(*doubled), 10 * np.log10(4), rtol=1e-3)
    np.testing.assert_allclose(metrics.lag1_error(*doubled), 0, atol=1e-4)
    np.testing.assert_allclose(metrics.channel_correlation_error(*doubled), 0, atol=1e-4)
    np.testing.assert_allclose(metrics.noise_level_error(clean, half, clean), 1, rtol=1e-6)


def test_channel_correlation_of_mixed_noise():
    # Second channel = first + as much again of its own: correlation 1/√2; third: independent.
    white = np.random.default_rng(5).standard_normal((3, 128, 128))
    noise = np.stack([white[0], white[0] + white[1], white[2]], axis=-1)
    expected = [[1, 0.5**0.5, 0], [0.5**0.5, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(metrics.channel_correlation(noise), [expected], atol=0.03)
    constant = noise.copy()
    constant[..., 2] = 0.3
    expected = [[1, 0.5**0.5, 0], [0.5**0.5, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(metrics.channel_correlation(constant), [expected], atol=0.03)


# --- What is accepted and refused ----------------------------------------------------------------


def test_kinds_of_input_agree(photos):
    bytes_ = [np.round(v * 255).astype(np.uint8) for v in photos]
    floats = [v.astype(np.float64) / 255 for v in bytes_]
    from_bytes = metrics.akld(*bytes_)
    np.testing.assert_allclose(from_bytes, metrics.akld(*floats), rtol=1e-5)
    np.testing.assert_allclose(from_bytes, metrics.akld(*map(jnp.asarray, bytes_)), rtol=1e-5)
    np.testing.assert_allclose(from_bytes, metrics.akld(bytes_[0], *floats[1:]), rtol=1e-5)


def test_as_images_keeps_kind():
    image = np.array([[[0, 51, 255]]], np.uint8)
    for convert, kind in ((np.asarray, np.ndarray), (jnp.asarray, jax.Array)):
        found = as_images(convert(image), "image")
        assert isinstance(found, kind)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.float32([[[[0, 51 / 255, 1]]]]))
    half = jnp.full((2, 4, 5, 3), 0.5, jnp.bfloat16)
    assert as_images(half, "half").dtype == jnp.float32
    assert as_noise(-3.0 * half, "noise").min() == -1.5


def test_traced_images_are_clipped(photos):
    clean, noisy, generated = photos
    stretched = clean + 3 * (generated - clean)
    assert stretched.min() < 0 < 1 < stretched.max()
    expected = metrics.akld(clean, noisy, np.clip(stretched, 0, 1))
    found = jax.jit(metrics.akld)(clean, noisy, stretched)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(InputError, match=r"clean: .*int32 of shape \[4, 4, 3\]: "):
        jax.jit(metrics.akld)(*[jnp.zeros((4, 4, 3), int)] * 3)


GOOD = np.full((2, 12, 12, 3), 0.5, np.float32)
NAN = GOOD.copy()
NAN[1, 2, 3, 0] = np.nan
BAD_IMAGES = {
    "gray": (GOOD[..., 0], r"float32 of shape \[2, 12, 12\] with values in \[0.5, 0.5\]"),
    "rgba": (np.zeros((12, 12, 4), np.uint8), r"uint8 of shape \[12, 12, 4\]"),
    "channels first": (np.zeros((2, 3, 12, 12)), r"shape \[2, 3, 12, 12\]"),
    "rank 5": (GOOD[None], r"shape \[1, 2, 12, 12, 3\]"),
    "empty": (GOOD[:0], r"shape \[0, 12, 12, 3\]: it holds no pixels"),
    "above 1": (GOOD * 2.5, r"values in \[1.25, 1.25\]: scale or clip"),
    "just above 1": (np.full((12, 12, 3), 1.0001), r"values in \[1.0001, 1.0001\]"),
    "below 0": (GOOD - 0.75, r"values in \[-0.25, -0.25\]"),
    "nan": (NAN, r"values in \[nan, nan\]: replace the NaN"),
    "infinite": (np.full((12, 12, 3), np.inf), r"values in \[inf, inf\]"),
    "16 bit": (np.full((12, 12, 3), 4096, np.uint16), r"uint16 .*\[4096, 4096\]: convert"),
    "bool": (np.zeros((12, 12, 3), bool), "bool of shape"),
    "complex": (GOOD.astype(complex), "complex128 of shape"),
    "text": ("image.png", r"of shape \[\]"),
    "ragged": ([GOOD[0], GOOD[0, :5]], "got no array"),
}


@pytest.mark.parametrize(("image", "seen"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_refuses_bad_images(image, seen):
    with pytest.raises(InputError, match=f"^generated: expected uint8 or float.*{seen}"):
        metrics.ks(GOOD, GOOD, image)


def test_refuses_bad_jax_images():
    with pytest.raises(InputError, match=r"^clean: .*values in \[nan, nan\]"):
        metrics.psnr(jnp.asarray(NAN), GOOD)
    with pytest.raises(InputError, match=r"^image: .*int32.* with values in \[7, 7\]"):
        metrics.psnr(GOOD, jnp.full((12, 12, 3), 7))


@triple_metrics
def test_every_metric_checks_every_input(metric):
    for i, name in enumerate(("clean", "noisy", "generated")):
        images = [GOOD] * 3
        images[i] = NAN
        with pytest.raises(InputError, match=f"^{name}: "):
            metric(*images)
        images[i] = GOOD[:, :10]
        with pytest.raises(InputError, match=rf"one shape.*{name} \[2, 10, 12, 3\]"):
            metric(*images)


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim, metrics.noise_level_curve])
def test_every_pair_checks_both_inputs(metric):
    for images in ((NAN, GOOD), (GOOD, NAN), (GOOD, GOOD[:1])):
        with pytest.raises(InputError):
            metric(*images)
    with pytest.raises(InputError):
        metrics.akld_floor(GOOD, NAN, jax.random.key(0))


def test_refuses_images_too_small():
    for metric, smallest in ((metrics.akld, 4), (metrics.lag1_error, 3), (metrics.psd_error, 2)):
        fits = np.random.default_rng(6).random((3, smallest, smallest, 3), np.float32)
        assert np.isfinite(metric(*fits)).all()
        with pytest.raises(InputError, match=f"needs {smallest} x {smallest} pixels"):
            metric(*fits[:, :, 1:])
    assert metrics.ssim(GOOD[:, :11], GOOD[:, :11]).shape == (2,)
    with pytest.raises(InputError, match="needs 11 x 11 pixels"):
        metrics.ssim(GOOD[:, :10], GOOD[:, :10])


def test_refuses_bad_noise_and_counts():
    noise = GOOD - 1
    for bad in (NAN, noise.astype(np.int32), np.full_like(noise, np.inf), noise[..., :2]):
        with pytest.raises(InputError, match=r"^noise: expected finite float noise"):
            metrics.channel_correlation(bad)
    for lag in (0, 11):
        with pytest.raises(InputError, match=f"^lag: .*got {lag}"):
            metrics.lag_autocorrelation(noise, lag)
    for bins in (0, 7):
        with pytest.raises(InputError, match=f"^bins: .*got {bins}"):
            metrics.radial_power_spectrum(noise, bins)
    with pytest.raises(InputError, match=r"^bins: .*got 0"):
        metrics.noise_level_curve(GOOD, GOOD, 0)
