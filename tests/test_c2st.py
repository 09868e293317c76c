"""The classifier test: chance where nothing differs, near 1 where anything does."""

import numpy as np
import pytest
import scipy.ndimage

from nt_jax.errors import InputError
from nt_jax.evaluation import c2st

IMAGES, PATCHES, SIZE = 6, 8, 16
# No two images are crops of one photograph.
APART = [str(image) for image in range(IMAGES)]


@pytest.fixture(scope="module")
def patches():
    """Smooth clean patches, and a function that puts signal-dependent noise on them."""
    rng = np.random.default_rng(0)
    shape = (IMAGES * PATCHES, SIZE, SIZE, 3)
    clean = scipy.ndimage.gaussian_filter(rng.normal(size=shape), (0, 3, 3, 0))
    clean = np.clip(128 + 400 * clean, 0, 255).astype(np.uint8)
    image = np.repeat(np.arange(IMAGES), PATCHES)
    level = (4 + 4 * image)[:, None, None, None] * (0.5 + clean / 255)

    def noisy(seed, blur=0.0, factor=1.0):
        noise = np.random.default_rng(seed).normal(size=shape)
        noise = scipy.ndimage.gaussian_filter(noise, (0, blur, blur, 0))
        noise *= factor / noise.std()
        return np.clip(np.rint(clean + level * noise), 0, 255).astype(np.uint8)

    return clean, image, noisy


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(c2st, "_STEPS", 150)


def test_second_draw_is_chance(patches, quick):
    clean, image, noisy = patches
    accuracy = c2st.c2st(clean, noisy(1), noisy(2), image, APART)
    assert accuracy.shape == (IMAGES,)
    assert 0.35 < accuracy.mean() < 0.65


@pytest.mark.parametrize(
    "difference", [{"blur": 0.7}, {"factor": 1.5}], ids=["correlated", "louder"]
)
def test_difference_is_found(patches, quick, difference):
    clean, image, noisy = patches
    assert c2st.c2st(clean, noisy(1), noisy(2, **difference), image, APART).mean() > 0.8


def test_seed_determines_everything(patches, monkeypatch):
    monkeypatch.setattr(c2st, "_STEPS", 5)
    clean, image, noisy = patches
    runs = [c2st.c2st(clean, noisy(1), noisy(2), image, APART, seed) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_same_noise_is_exactly_chance(patches, monkeypatch):
    monkeypatch.setattr(c2st, "_STEPS", 5)
    clean, image, noisy = patches
    np.testing.assert_array_equal(c2st.c2st(clean, noisy(1), noisy(1), image, APART), 0.5)


@pytest.mark.parametrize("photographs", [4, IMAGES], ids=["crops", "apart"])
def test_no_photograph_is_on_both_sides(patches, monkeypatch, photographs):
    clean, image, noisy = patches
    trained, judged = [], []
    monkeypatch.setattr(c2st, "_train", lambda inputs, places, rng: trained.append(places))

    def judge(params, inputs, places):
        judged.append(places)
        return np.tile([-1.0, 1.0], (len(places), 1))

    monkeypatch.setattr(c2st, "_judge", judge)
    crops_of = np.arange(IMAGES) % photographs
    accuracy = c2st.c2st(clean, noisy(1), noisy(2), image, [str(name) for name in crops_of])
    np.testing.assert_array_equal(accuracy, np.ones(IMAGES))
    for learnt, asked in zip(trained, judged, strict=True):
        assert set(crops_of[image[learnt]]).isdisjoint(crops_of[image[asked]])
        assert len(learnt) + len(asked) == len(image)
    np.testing.assert_array_equal(np.sort(np.concatenate(judged)), np.arange(len(image)))


def test_needs_four_images_of_two_photographs(patches):
    clean, image, noisy = patches
    few = image < 3
    with pytest.raises(InputError, match="4 images or more, of two photographs at least; got 3"):
        c2st.c2st(clean[few], noisy(1)[few], noisy(2)[few], image[few], APART[:3])
    with pytest.raises(InputError, match="of two photographs at least"):
        c2st.c2st(clean, noisy(1), noisy(2), image, ["one"] * IMAGES)


def test_patches_lie_on_a_grid():
    image = np.arange(40 * 70 * 3).reshape(40, 70, 3)
    patches = c2st.patches_of(image, 32)
    np.testing.assert_array_equal(patches, [image[:32, :32], image[:32, 32:64]])
    assert len(c2st.patches_of(image, 16, most=3)) == 3
    assert [c2st.patch_size(side) for side in (16, 31, 32, 500)] == [16, 16, 32, 32]
