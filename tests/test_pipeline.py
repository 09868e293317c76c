"""Both loaders: what is in their batches, and that a batch is a function of (seed, step).

Clean images of pairs hold their own coordinates: red is the row, green the column, blue the image.
So a patch tells where it comes from and how it was turned. Photographs are of one grey each.
"""

import itertools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from PIL import Image

from nt_jax import filters, noise
from nt_jax.data.catalogue import sources
from nt_jax.data.catalogue.sources import SETTINGS
from nt_jax.data.sampling import augment
from nt_jax.data.sampling.device_loader import device_batches, device_crops
from nt_jax.data.sampling.pipeline import make_loader
from nt_jax.data.sampling.plan import Plan
from nt_jax.data.sampling.tables import _groups, _real_probability, make_tables
from nt_jax.data.sampling.tfdata_loader import tfdata_crops
from nt_jax.errors import InputError

PATCH, BATCH = 16, 16
HEIGHT, WIDTH = 40, 48
GREYS = (102, 128, 153)
# Images 0 and 3 share camera and ISO; image 1 has another camera with the same ISO.
INSTANCES = (
    "0001_001_S6_00100_00060_3200_L",
    "0002_001_GP_00100_00060_3200_L",
    "0003_001_S6_03200_00060_3200_L",
    "0004_001_S6_00100_00060_3200_L",
)
LOADERS = ("tfdata", "device")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("data")
    (root / "photos").mkdir()
    for i, grey in enumerate(GREYS):
        image = np.full((HEIGHT, WIDTH, 3), grey, np.uint8)
        Image.fromarray(image).save(root / "photos" / f"{i}.png")
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    for i, instance in enumerate(INSTANCES):
        folder = root / "pairs" / instance
        folder.mkdir(parents=True)
        clean = np.dstack([rows, columns, np.full_like(rows, 10 * i)])
        noisy = clean + np.array([0, 0, 100], np.uint8)
        Image.fromarray(clean).save(folder / "GT_SRGB_010.PNG")
        Image.fromarray(noisy).save(folder / "NOISY_SRGB_010.PNG")
    return SimpleNamespace(photos=str(root / "photos"), pairs=str(root / "pairs"))


@pytest.fixture(scope="module")
def config(folders):
    def make(**changes) -> SimpleNamespace:
        fields = {
            "loader": "device",
            "patch_size": PATCH,
            "photos": folders.photos,
            "pairs": folders.pairs,
            "cache": "",
            "mixing": "fixed",
            "real_fraction": 0.5,
            "real_reference": "same_iso",
            "pair_clean_fraction": 0.0,
            "noise_kinds": ("gaussian", "poisson", "poisson_gaussian"),
            "noise_kind_weights": (0.3, 0.3, 0.4),
            "sigma_range": (5, 20),
            "lam_range": (40, 100),
            "camera_levels": "",
            "camera_jpeg_quality": (0, 0),
            "blur_pair_clean": False,
            "blend_probability": 0.0,
            "cutmix_probability": 0.0,
            "dequantise": False,
        }
        return SimpleNamespace(**(fields | changes))

    return make


def _mesh(n: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:n]), ("data",))


def _loader(config, seed=0, devices=8):
    return make_loader(config, batch_size=BATCH, seed=seed, mesh=_mesh(devices))


def _collect(batches, n: int) -> dict[str, np.ndarray]:
    """The first n batches one after the other."""
    taken = [jax.tree.map(np.asarray, batch) for batch in itertools.islice(batches, n)]
    return {name: np.concatenate([batch[name] for batch in taken]) for name in taken[0]}


def _assert_equal(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(np.asarray(left[name]), np.asarray(right[name]), name)


@pytest.fixture(scope="module", params=LOADERS)
def mixed(request, config):
    """A loader of half real, half synthetic rows on eight devices."""
    return _loader(config(loader=request.param))


@pytest.fixture(scope="module")
def rows(mixed):
    return _collect(mixed(0), 60)


@pytest.fixture(scope="module")
def real_rows(rows):
    return {name: values[rows["kind"] == 0] for name, values in rows.items()}


@pytest.fixture(scope="module")
def synthetic_rows(rows):
    return {name: values[rows["kind"] != 0] for name, values in rows.items()}


def _coordinates(patches: np.ndarray) -> np.ndarray:
    """int [N, P, P, 3]: row, column and image number (times ten) of each pixel."""
    return np.round(patches * 255).astype(int)


def _turned_windows() -> list[np.ndarray]:
    """The 8 orientations of a window's coordinates, relative to its first pixel."""
    window = np.dstack(np.mgrid[:PATCH, :PATCH])
    turned = [np.rot90(window, k) for k in range(4)]
    return [*turned, *(image[:, ::-1] for image in turned)]


def _orientations(coordinates: np.ndarray) -> np.ndarray:
    """Which of the 8 orientations each patch has; fails if it is no window of an image."""
    relative = coordinates[..., :2] - coordinates[..., :2].min((1, 2), keepdims=True)
    matches = np.stack([(relative == turned).all((1, 2, 3)) for turned in _turned_windows()])
    assert np.all(matches.sum(0) == 1)
    return matches.argmax(0)


def _assert_uniform(values: np.ndarray, n: int):
    """Each of 0 .. n - 1 within five standard errors of its expected count."""
    expected = len(values) / n
    counts = np.bincount(values, minlength=n)
    assert len(counts) == n
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_batch_is_as_documented_and_sharded_over_data(mixed):
    batch = next(mixed(0))
    assert set(batch) == {"clean", "noisy", "reference", "kind", "sigma", "lam", "setting"}
    for name in ("clean", "noisy", "reference"):
        assert batch[name].shape == (BATCH, PATCH, PATCH, 3)
        assert batch[name].dtype == jnp.float32
        assert 0 <= batch[name].min() <= batch[name].max() <= 1
    assert batch["kind"].dtype == jnp.int32
    assert batch["sigma"].dtype == batch["lam"].dtype == jnp.float32
    for values in batch.values():
        assert values.sharding.spec == P("data")
        assert {shard.data.shape[0] for shard in values.addressable_shards} == {BATCH // 8}


def test_real_rows_are_spread_evenly(rows):
    assert np.array_equal(rows["kind"] == 0, np.arange(len(rows["kind"])) % 2 == 1)


def test_settings_are_those_of_the_names(rows):
    image = _coordinates(rows["clean"])[:, 0, 0, 2] // 10
    expected = np.array([SETTINGS.index(s) for s in ("S6_100", "GP_100", "S6_3200", "S6_100")])
    real = rows["kind"] == 0
    assert np.array_equal(rows["setting"][real], expected[image[real]])
    assert np.all(rows["setting"][~real] == len(SETTINGS))
    assert rows["setting"].dtype == np.int32


def test_clean_and_noisy_are_turned_alike(real_rows):
    clean, noisy = _coordinates(real_rows["clean"]), _coordinates(real_rows["noisy"])
    assert np.array_equal(noisy, clean + np.array([0, 0, 100]))


def test_orientations_and_places_are_uniform(real_rows):
    for name in ("clean", "reference"):
        coordinates = _coordinates(real_rows[name])
        _assert_uniform(_orientations(coordinates), 8)
        _assert_uniform(coordinates[..., 0].min((1, 2)), HEIGHT - PATCH + 1)
        _assert_uniform(coordinates[..., 1].min((1, 2)), WIDTH - PATCH + 1)


def test_a_real_reference_is_another_patch_of_the_same_iso(real_rows):
    clean, reference = _coordinates(real_rows["clean"]), _coordinates(real_rows["reference"])
    assert np.all(reference[..., 2] >= 100)  # noisy
    image, other = clean[:, 0, 0, 2] // 10, (reference[:, 0, 0, 2] - 100) // 10
    _assert_uniform(image, 4)
    assert np.array_equal(other[image == 2], image[image == 2])  # the only one of ISO 3200
    for i in (0, 1, 3):
        chosen = other[image == i]
        assert set(chosen) == {0, 1, 3}
        assert np.all(np.abs(np.bincount(chosen)[[0, 1, 3]] / len(chosen) - 1 / 3) < 0.25)
    # Its place and orientation are its own.
    same = _orientations(clean) == _orientations(reference)
    assert same.mean() == pytest.approx(1 / 8, abs=5 * np.sqrt(7 / 64 / len(same)))
    places = [patches[..., :2].min((1, 2)) for patches in (clean, reference)]
    assert abs(np.corrcoef(places[0][:, 0], places[1][:, 0])[0, 1]) < 5 / np.sqrt(len(same))


def test_a_synthetic_reference_comes_from_a_different_image(synthetic_rows):
    own = np.round(synthetic_rows["clean"].mean((1, 2, 3)) * 255)
    image = np.searchsorted(GREYS, own)
    _assert_uniform(image, 3)
    means = synthetic_rows["reference"].mean((1, 2, 3)) * 255
    other = np.abs(means[:, None] - np.array(GREYS)).argmin(1)
    assert np.all(other != image)
    _assert_uniform((other - image) % 3 - 1, 2)


def test_kinds_and_levels_are_drawn_as_configured(synthetic_rows):
    kind, sigma, lam = (synthetic_rows[name] for name in ("kind", "sigma", "lam"))
    shares = np.bincount(kind, minlength=5) / len(kind)
    assert shares == pytest.approx([0, 0.3, 0.3, 0.4, 0], abs=5 * np.sqrt(0.25 / len(kind)))
    assert np.all((sigma > 0) == np.isin(kind, (1, 3)))
    assert np.all((lam > 0) == np.isin(kind, (2, 3)))
    for values, low, high in ((sigma[sigma > 0] * 255, 5, 20), (lam[lam > 0], 40, 100)):
        assert low <= values.min() <= values.max() <= high
        error = (high - low) / np.sqrt(12 * len(values))
        assert values.mean() == pytest.approx((low + high) / 2, abs=5 * error)


@pytest.mark.parametrize("kind", ["gaussian", "poisson", "poisson_gaussian"])
@pytest.mark.parametrize("level", ["weak", "strong"])
def test_moments_by_kind_and_level(synthetic_rows, kind, level):
    """The noisy patch and the reference both have the row's one noise setting."""
    grey = np.array(GREYS) / 255
    clean = synthetic_rows["clean"][:, 0, 0, 0]
    nearest = np.abs(synthetic_rows["reference"].mean((1, 2, 3))[:, None] - grey).argmin(1)
    chosen = synthetic_rows["kind"] == noise.KINDS.index(kind)
    sigma, lam = synthetic_rows["sigma"][chosen], synthetic_rows["lam"][chosen]
    strength = sigma**2 + 0.5 / np.where(lam, lam, np.inf)
    part = strength > np.median(strength) if level == "strong" else strength < np.median(strength)
    for name, level_of in (("noisy", clean), ("reference", grey[nearest])):
        mean = level_of[chosen][part]
        variance = sigma[part] ** 2 + mean / np.where(lam[part], lam[part], np.inf)
        deviation = synthetic_rows[name][chosen][part] - mean[:, None, None, None]
        unit = deviation / np.sqrt(variance)[:, None, None, None]
        # Five standard errors; clipping starts 2.9 standard deviations away at the strongest.
        assert unit.mean() == pytest.approx(0, abs=5 / np.sqrt(unit.size) + 2e-3)
        assert (unit**2).mean() == pytest.approx(1, abs=5 * np.sqrt(2 / unit.size) + 0.01)


def test_noise_of_patch_and_reference_is_independent(synthetic_rows):
    noisy, reference = (
        synthetic_rows[name] - synthetic_rows[name].mean((1, 2, 3), keepdims=True)
        for name in ("noisy", "reference")
    )
    correlation = (noisy * reference).mean() / np.sqrt((noisy**2).mean() * (reference**2).mean())
    assert abs(correlation) < 5 / np.sqrt(noisy.size)


def test_resuming_at_any_step_gives_the_same_batches(mixed):
    first = list(itertools.islice(mixed(0), 7))
    resumed = list(itertools.islice(mixed(5), 2))
    for before, after in zip(first[5:], resumed, strict=True):
        _assert_equal(before, after)
    assert not np.array_equal(first[0]["noisy"], first[1]["noisy"])


def test_any_number_of_devices_gives_the_same_batches(config):
    one, eight = (next(_loader(config(), devices=n)(3)) for n in (1, 8))
    assert one.keys() == eight.keys()
    for name in one:
        # Two compilations may contract a multiplication and an addition differently: one ulp.
        np.testing.assert_allclose(one[name], eight[name], rtol=1e-6, atol=1e-6, err_msg=name)


def _plan(config, seed=0, devices=1) -> Plan:
    augmentation = augment.make_augmentation(config)
    return Plan(make_tables(config, BATCH), augmentation, BATCH, BATCH, seed, _mesh(devices))


def _crops(loader: str, plan: Plan, own: np.ndarray, steps: range):
    """The crops before noise of some steps, of the rows `own` of each."""
    if loader == "tfdata":
        taken = list(itertools.islice(tfdata_crops(plan, own)(steps.start), len(steps)))
        return {name: np.concatenate([crops[name] for crops in taken]) for name in taken[0]}
    tables = jax.tree.map(jnp.asarray, plan.tables)
    rows = np.concatenate([step * BATCH + own for step in steps])
    crop = jax.jit(lambda rows, tables: device_crops(plan, rows, tables))
    return jax.tree.map(np.asarray, crop(rows.astype(np.uint32), tables))


@pytest.mark.parametrize("loader", LOADERS)
def test_processes_make_their_rows_of_the_same_batch(config, loader):
    plan = _plan(config())
    whole = _crops(loader, plan, np.arange(BATCH), range(4, 5))
    own = [np.arange(BATCH)[half::2] for half in (0, 1)]
    halves = [_crops(loader, plan, rows, range(4, 5)) for rows in own]
    for name, values in whole.items():
        for half in (0, 1):
            assert np.array_equal(values[own[half]], halves[half][name]), name


@pytest.mark.parametrize("loader", LOADERS)
def test_seeds_differ(config, loader):
    crops = [
        _crops(loader, _plan(config(), seed), np.arange(BATCH), range(1)) for seed in (0, 0, 1)
    ]
    assert np.array_equal(crops[0]["noisy"], crops[1]["noisy"])
    assert not np.array_equal(crops[0]["noisy"], crops[2]["noisy"])


@pytest.mark.parametrize("loader", LOADERS)
def test_official_mixing(config, loader):
    """Rows are real or not by chance, a share of synthetic ones from blurred pair images."""
    changes = {
        "mixing": "uniform",
        "pair_clean_fraction": 0.2,
        "cutmix_probability": 0.5,
        "photos": f"{config().photos}=3",
    }
    plan = _plan(config(**changes))
    crops = _crops(loader, plan, np.arange(BATCH), range(60))
    real, n = crops["real"], len(crops["real"])
    assert real.mean() == pytest.approx(4 / 7, abs=5 * np.sqrt(0.25 / n))
    for name in ("clean", "reference_clean"):
        blurred = crops[f"blur_{name}"][~real]
        assert blurred.mean() == pytest.approx(0.2, abs=5 * np.sqrt(0.16 / len(blurred)))
        from_pairs = np.ptp(crops[name][~real], axis=(1, 2)).max(-1) > 0
        assert np.array_equal(from_pairs, blurred)
    # The second crop of CutMix: the same image, another place, clean and noisy together.
    for clean, noisy in (("clean", "noisy"), ("reference_clean", "reference")):
        second = crops[f"mix_{clean}"][real].astype(int)
        assert np.array_equal(crops[f"mix_{noisy}"][real], second + np.array([0, 0, 100]))
        assert np.array_equal(second[..., 2], crops[clean][real][..., 2])
        _assert_uniform(_orientations(second), 8)
        assert not np.array_equal(second, crops[clean][real])


def test_groups_of_references(config):
    pairs = sources.find_pairs(config().pairs)

    def references(real_reference):
        start, size, members = _groups(config(real_reference=real_reference), pairs, n_photos=3)
        return [sorted(members[start[i] : start[i] + size[i]] - 3) for i in range(3, 7)]

    assert references("same_image") == [[0], [1], [2], [3]]
    assert references("same_group") == [[0, 3], [1], [2], [0, 3]]
    assert references("same_iso") == [[0, 1, 3], [0, 1, 3], [2], [0, 1, 3]]


def test_rows_without_references_are_the_same_otherwise(config):
    def batch(real_reference):
        changed = config(real_reference=real_reference)
        return next(make_loader(changed, batch_size=8, seed=0, mesh=_mesh(1))(0))

    with_references, without = batch("same_image"), batch("none")
    assert set(with_references) - set(without) == {"reference"}
    for name, values in without.items():
        np.testing.assert_array_equal(values, with_references[name])


@pytest.mark.parametrize("loader", LOADERS)
def test_a_synthetic_reference_may_be_of_the_same_image(config, loader):
    noiseless = {"noise_kinds": ("gaussian",), "noise_kind_weights": (1,), "sigma_range": (0, 0)}
    changed = config(loader=loader, pairs="", synthetic_reference="same_image", **noiseless)
    batch = next(make_loader(changed, batch_size=8, seed=0, mesh=_mesh(1))(0))
    np.testing.assert_array_equal(batch["reference"], batch["clean"])  # photographs are plain


def test_tiles_of_one_photograph_are_no_other_images(config, tmp_path):
    names = ("Canon5D2_5_160_3200_chair_1", "Canon5D2_5_160_3200_plug_2", "a")
    names += ("Canon5D2_5_160_3200_chair_3",)
    for name in names:
        for role in ("gt", "noisy"):
            Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"{name}_{role}.png")
    pairs = sources.find_pairs(tmp_path)
    tables = config(real_reference="other_image", pairs=str(tmp_path))
    start, size, members = _groups(tables, pairs, n_photos=3)
    by_name = {pair.name: i for i, pair in enumerate(pairs)}
    for pair, i in by_name.items():
        tiles = {i, *(by_name[n] for n in names if "chair" in pair and "chair" in n)}
        chosen = members[start[i + 3] : start[i + 3] + size[i + 3]] - 3
        assert sorted(chosen) == sorted({0, 1, 2, 3} - tiles)
    chairs = [pair for pair in pairs if "chair" in pair.name]
    with pytest.raises(InputError, match="no tiles of one photograph"):
        _groups(tables, chairs, n_photos=3)


def test_weights_of_sources(config, folders, tmp_path):
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "single.png")
    spec = f"{folders.photos},{tmp_path}=1"
    tables = make_tables(config(photos=spec), BATCH)
    assert np.diff(tables.clean_cdf, prepend=0)[:4] == pytest.approx([0.25] * 4)
    tables = make_tables(config(photos=f"{folders.photos}=1,{tmp_path}=3"), BATCH)
    assert np.diff(tables.clean_cdf, prepend=0)[:4] == pytest.approx([1 / 12] * 3 + [0.75])
    # In proportion to the number of images: 4 photographs, 4 pairs.
    tables = make_tables(config(photos=spec, pair_clean_fraction=-1.0), BATCH)
    assert tables.clean_cdf[3] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.5, [0, 1, 0, 1, 0, 1, 0, 1]), (0.25, [0, 0, 0, 1] * 2), (1.0, [1] * 8), (0.0, [0] * 8)],
)
def test_fixed_real_fraction(config, fraction, expected):
    probability = _real_probability(config(real_fraction=fraction), 8, 3, 4)
    assert probability.tolist() == expected


@pytest.mark.parametrize("loader", LOADERS)
def test_photographs_only_and_pairs_only(config, loader):
    def crops(**changes):
        return _crops(loader, _plan(config(**changes)), np.arange(BATCH), range(1))

    assert not crops(pairs="", real_fraction=0.5)["real"].any()
    assert crops(photos="", real_fraction=1.0)["real"].all()


def _finish(crops, augmentation, most_synthetic):
    n = len(crops["real"])
    keys = jax.random.split(jax.random.key(0), n)
    finish = jax.jit(augment.finish, static_argnums=(2, 3))
    return jax.tree.map(np.asarray, finish(keys, crops, augmentation, most_synthetic))


def test_blend_and_cutmix_of_real_rows():
    n, size = 800, 32
    levels = {
        "clean": 100, "noisy": 120, "mix_clean": 200, "mix_noisy": 230,
        "reference_clean": 50, "reference": 90, "mix_reference_clean": 10, "mix_reference": 60,
    }  # fmt: skip
    crops = {k: np.full((n, size, size, 3), level, np.uint8) for k, level in levels.items()}
    augmentation = augment.Augmentation(
        (0, 1, 0, 0, 0), (0, 0), (1, 1), blend_probability=0.5, cutmix_probability=0.5
    )
    rows = _finish(crops | {"real": np.ones(n, bool)}, augmentation, 0)
    clean, noisy, reference = (rows[k][..., 0] * 255 for k in ("clean", "noisy", "reference"))
    pasted = clean > 150
    assert clean == pytest.approx(np.where(pasted, 200, 100), abs=1e-3)
    alpha = (noisy - clean) / np.where(pasted, 30, 20)
    assert np.ptp(alpha, axis=(1, 2)).max() < 1e-4
    alpha = alpha.mean((1, 2))
    blended = alpha < 1 - 1e-5
    five = 5 * np.sqrt(0.25 / n)
    assert blended.mean() == pytest.approx(0.5, abs=five)
    assert alpha[blended].min() > 0.8 - 1e-5
    assert alpha[blended].mean() == pytest.approx(0.9, abs=5 * 0.2 / np.sqrt(12 * n / 2))
    # The reference has the same alpha and its own paste.
    first = np.abs(reference - (50 + 40 * alpha[:, None, None])) < 1e-2
    second = np.abs(reference - (10 + 50 * alpha[:, None, None])) < 1e-2
    assert np.all(first ^ second)
    for mask in (pasted, second):
        present = mask.any((1, 2))
        assert present.mean() == pytest.approx(0.5, abs=five)
        for axis in (1, 2):
            side = mask[present].any(axis).sum(1)
            _assert_uniform(side - 8, 16)  # 8 .. 23 at patch 32, as 24 .. 71 at patch 96
            start = mask[present].any(axis).argmax(1)
            place = start / (size - side)
            assert (place.min(), place.max()) == (0, 1)
            assert place.mean() == pytest.approx(0.5, abs=5 * 0.35 / np.sqrt(len(place)))
        area = mask[present].sum((1, 2))
        sides = mask[present].any(1).sum(1) * mask[present].any(2).sum(1)
        assert np.array_equal(area, sides)  # a full rectangle
    both = (pasted.any((1, 2)) & second.any((1, 2))).mean()
    assert both == pytest.approx(0.25, abs=five)


def test_dequantisation_fills_the_levels_only_where_there_is_noise():
    n = 16
    clean = np.full((n, 16, 16, 3), 100, np.uint8)
    noisy = clean.copy()
    noisy[:, :8, :, 0] += 10  # noise in one channel of the upper half
    crops = {"clean": clean, "noisy": noisy, "reference_clean": clean, "reference": noisy}
    augmentation = augment.Augmentation((0, 1, 0, 0, 0), (0, 0), (1, 1), dequantise=True)
    rows = _finish(crops | {"real": np.ones(n, bool)}, augmentation, 0)
    for name in ("noisy", "reference"):
        offset = rows[name] * 255 - noisy
        assert np.abs(offset[:, 8:]).max() < 1e-4
        upper = offset[:, :8]
        assert np.abs(upper).max() <= 0.5 + 1e-4
        assert upper.mean() == pytest.approx(0, abs=5 * np.sqrt(1 / 12 / upper.size))
        assert upper.var() == pytest.approx(1 / 12, rel=0.05)
    assert not np.array_equal(rows["noisy"], rows["reference"])
    assert rows["clean"] * 255 == pytest.approx(clean, abs=1e-4)


def test_gaussian_blur_is_the_21_pixel_kernel_with_reflection():
    image = np.random.default_rng(0).uniform(0, 255, (24, 30, 3)).astype(np.float32)
    expected = scipy.ndimage.gaussian_filter(
        image.astype(np.float64), 3.5, mode="mirror", radius=10, axes=(0, 1)
    )
    assert np.asarray(filters.gaussian_blur(jnp.asarray(image)[None])[0]) == pytest.approx(
        expected, abs=1e-3
    )


def test_wiener_is_scipys_where_the_window_is_inside():
    image = np.random.default_rng(0).uniform(0, 1, (24, 30, 1)).astype(np.float32)
    image[:, :15] /= 10  # one half has less variance than the noise
    expected = scipy.signal.wiener(image[..., 0].astype(np.float64), 7, 0.2**2)
    found = filters.wiener(jnp.asarray(image)[None], jnp.full((1, 1), 0.2))[0, ..., 0]
    inside = slice(3, -3), slice(3, -3)
    assert np.asarray(found)[inside] == pytest.approx(expected[inside], abs=1e-5)


def test_only_marked_patches_of_synthetic_rows_are_blurred(monkeypatch):
    monkeypatch.setattr(noise, "add_noise", lambda key, clean, setting: clean)
    n = 4
    patches = np.random.default_rng(0).integers(0, 256, (n, 24, 24, 3), np.uint8)
    marked = np.array([False, True, False, True])
    crops = dict.fromkeys(("clean", "noisy", "reference_clean", "reference"), patches)
    crops |= {"blur_clean": marked, "blur_reference_clean": ~marked}
    crops["real"] = np.array([False, False, True, True])
    augmentation = augment.Augmentation((0, 1, 0, 0, 0), (0, 0), (1, 1), blur=True)
    rows = _finish(crops, augmentation, 2)
    blurred = np.stack(
        [np.round(filters.gaussian_blur(p.astype(np.float32)[None])[0]) for p in patches]
    )
    for name, expected in (
        ("clean", [patches[0], blurred[1], patches[2], patches[3]]),
        ("reference", [blurred[0], patches[1], patches[2], patches[3]]),
    ):
        assert rows[name] * 255 == pytest.approx(np.stack(expected), abs=1e-3)


def test_camera_rows_have_one_setting_for_patch_and_reference(config, tmp_path):
    """Two levels apart by a factor of 100 in variance: never one of each in a row."""
    file = tmp_path / "levels.json"
    file.write_text(
        '[{"camera": "weak", "iso": 100, "shot": 4e-5, "read": 0},'
        ' {"camera": "strong", "iso": 6400, "shot": 4e-3, "read": 0}]'
    )
    loader = _loader(
        config(
            pairs="",
            noise_kinds=("gaussian", "camera"),
            noise_kind_weights=(1, 3),
            camera_levels=str(file),
        ),
        devices=1,
    )
    rows = _collect(loader(0), 8)
    is_camera = rows["kind"] == noise.KINDS.index("camera")
    assert is_camera.mean() == pytest.approx(0.75, abs=5 * np.sqrt(0.19 / len(is_camera)))
    assert np.all(rows["sigma"][is_camera] == 0)
    assert np.all(rows["lam"] == 0)
    strong = [rows[name][is_camera].std((1, 2)).mean(1) > 0.01 for name in ("noisy", "reference")]
    assert np.array_equal(*strong)
    assert 0.2 < strong[0].mean() < 0.8
    noisy = rows["noisy"][is_camera]
    assert noisy * 255 == pytest.approx(np.round(noisy * 255), abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loader": "torch"}, "config.data.loader='torch': choose from tfdata, device"),
        ({"noise_kinds": ("salt",), "noise_kind_weights": (1,)}, "data.noise_kinds=.*choose from"),
        ({"noise_kinds": (), "noise_kind_weights": ()}, "data.noise_kinds"),
        ({"noise_kind_weights": (1, 1)}, "data.noise_kind_weights"),
        ({"noise_kind_weights": (0, 0, 0)}, "data.noise_kind_weights"),
        ({"noise_kind_weights": (1, 1, -1)}, "data.noise_kind_weights"),
        ({"sigma_range": (50, 5)}, "data.sigma_range"),
        ({"lam_range": (0, 5)}, "data.lam_range"),
        ({"camera_levels": "no/such.json"}, "data.camera_levels: no/such.json: cannot be read"),
        ({"camera_levels": "~nobody_here/a.json"}, "data.camera_levels: ~nobody_here/a.json"),
        ({"camera_jpeg_quality": (90, 50)}, "data.camera_jpeg_quality: needs"),
        ({"camera_jpeg_quality": (0, 50)}, r"for no JPEG, not \(0, 50\)$"),
        ({"blend_probability": 1.5}, "data.blend_probability"),
        ({"cutmix_probability": -0.5}, "data.cutmix_probability"),
        ({"mixing": "half"}, "data.mixing"),
        ({"real_fraction": 1.5}, "data.real_fraction"),
        ({"real_fraction": 0.01}, f"no pair would be used: give {1 / BATCH:g} or more"),
        ({"photos": "", "pairs": ""}, "data.photos: neither"),
        ({"photos": ""}, "data.photos: none given"),
        ({"pair_clean_fraction": 2.0}, "data.pair_clean_fraction"),
        ({"real_reference": "any"}, "data.real_reference"),
        ({"synthetic_reference": "any"}, "data.synthetic_reference"),
        ({"patch_size": 4}, "data.patch_size"),
        ({"patch_size": 44}, "smaller than the patch of 44"),
        ({"photos": "no/such/place"}, "no such folder"),
    ],
)
def test_wrong_fields_are_named(config, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        _loader(config(**changes))
    assert "\n" not in str(caught.value)


def test_one_photograph_is_not_enough(config, tmp_path):
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "only.png")
    with pytest.raises(InputError, match="only one photograph"):
        _loader(config(photos=str(tmp_path)))


@pytest.fixture
def hundreds(tmp_path):
    """200 photographs and 200 pairs of them, all links to the same few files."""
    folders = SimpleNamespace(photos=tmp_path / "photos", pairs=tmp_path / "pairs")
    for i in range(4):
        image = np.full((PATCH, PATCH, 3), 60 * i, np.uint8)
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    for folder, names in ((folders.photos, ("",)), (folders.pairs, ("_gt", "_noisy"))):
        folder.mkdir()
        for i in range(200):
            for name in names:
                (folder / f"{i:03d}{name}.png").symlink_to(tmp_path / f"{i % 4}.png")
    return folders


@pytest.mark.parametrize("loader", LOADERS)
def test_a_run_goes_on_without_broken_images_and_says_so(
    config, loader, hundreds, tmp_path, capsys
):
    fields = config(loader=loader, photos=str(hundreds.photos), pairs=str(hundreds.pairs))

    def start(step):
        record = tmp_path / "data.json"
        make_loader(fields, batch_size=BATCH, seed=0, mesh=_mesh(1), record=record)(step)
        return capsys.readouterr().out

    assert start(0).startswith("data: 200 photographs, 200 real pairs")
    assert "not the images" not in start(5)
    (hundreds.photos / "003.png").unlink()
    (hundreds.photos / "003.png").write_text("no image")
    (hundreds.pairs / "005_gt.png").unlink()
    out = start(5)
    assert f"skipped {hundreds.photos / '003.png'} is not a readable PNG" in out
    assert f"skipped {hundreds.pairs / '005_noisy.png'}: its clean partner is missing" in out
    assert "data: 199 photographs, 199 real pairs" in out
    assert "not the images and weights that this run began with (398 images now, 400 then)" in out
    assert "398 images now" in start(9)
    assert "not the images" not in start(0) + start(5)
    record = tmp_path / "data.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "version": 1}))
    assert "random numbers of version 1, now they are of version 2" in start(5)
    before = json.loads(record.read_text())
    del before["version"]  # as they were noted before there was one
    record.write_text(json.dumps(before))
    assert "random numbers of version 1" in start(5)


def test_too_many_broken_images_end_the_run(config, hundreds):
    for i in range(5):
        (hundreds.pairs / f"{i:03d}_noisy.png").unlink()
    with pytest.raises(InputError, match=r"000_gt.png: its noisy partner.*; 5 of 400 images"):
        _loader(config(photos=str(hundreds.photos), pairs=str(hundreds.pairs)))


def test_batch_must_fit_the_devices(config):
    with pytest.raises(InputError, match=r"train\.batch_size: 12 is no multiple of the 8 devices"):
        make_loader(config(), batch_size=12, seed=0, mesh=_mesh(8))


def test_too_many_pixels_for_the_device_loader(config):
    plan = _plan(config())
    pixels = np.broadcast_to(np.uint8(0), (2**31, 3))
    with pytest.raises(InputError, match=r"data\.loader: more than 2\^31 - 1 pixels"):
        device_batches(plan._replace(tables=plan.tables._replace(pixels=pixels)))
