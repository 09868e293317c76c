"""The evaluation commands, end to end on small images, and their parts."""

import json
import pathlib
import shutil
import sys
import types

import jax
import numpy as np
import pytest
import scipy.stats
import skimage.metrics
from PIL import Image
from skimage import data
from tiny_models import save_tiny

import nt_jax
from nt_jax import eval as command
from nt_jax import metrics
from nt_jax.broken import Broken
from nt_jax.checkpointing import save_model
from nt_jax.data.catalogue.references import next_other, photograph
from nt_jax.data.catalogue.sources import find_pairs, read_rgb
from nt_jax.errors import InputError, run_command
from nt_jax.evaluation import c2st, denoising, embedding, generation, report, samples, statistics
from nt_jax.evaluation.baselines import BASELINES
from nt_jax.evaluation.oracles import CEILING, ORACLES, camera_model, level_curve, white
from nt_jax.evaluation.report import markdown_table
from nt_jax.models.biased import init_biased
from nt_jax.models.ridnet import RIDNet

GENERATION_METRICS = {
    *(
        "akld",
        "akld_floor",
        "ks",
        "kld",
        "level_ratio_error",
        "lag1_error",
        "psd_error",
        "noise_level_error",
    ),
    *("channel_correlation_error", "c2st"),
}
SIZE = (32, 48)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def add_noise(image, sigma, seed):
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def crops(count, size=SIZE):
    photo = data.astronaut()
    return [photo[20 * i + 60 :, 20 * i + 100 :][: size[0], : size[1]] for i in range(count)]


@pytest.fixture
def pairs(tmp_path):
    """Four pairs as SIDD has them, of two groups."""
    folder = tmp_path / "pairs"
    for index, clean in enumerate(crops(4)):
        place = folder / f"Data/000{index}_00{index}_S6_{(100, 800)[index % 2]:05}_00100_3200_N"
        write(place / "GT_SRGB_010.PNG", clean)
        write(place / "NOISY_SRGB_010.PNG", add_noise(clean, (5, 20)[index % 2], index))
    return folder


@pytest.fixture
def triples(tmp_path):
    """Folders clean, noisy and generated of four images, of two sizes."""
    for index, size in enumerate([SIZE, SIZE, (24, 31), SIZE]):
        (clean,) = crops(1, size)
        images = (clean, add_noise(clean, 12, index), add_noise(clean, 16, 9 + index))
        for name, image in zip(("clean", "noisy", "generated"), images, strict=True):
            write(tmp_path / name / f"sub/{index}.png", image)
    return [tmp_path / name for name in ("clean", "noisy", "generated")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "ridnet"
    shape = {"features": 16, "blocks": 1}
    params = init_biased(jax.random.key(0), RIDNet(**shape))
    save_model(folder, {"kind": "ridnet", "model": shape}, {"denoiser": params})
    return folder


@pytest.fixture
def short(monkeypatch):
    """The classifier test in a moment, of no power."""
    monkeypatch.setattr(c2st, "_STEPS", 2)


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Runs a command; gives results.json and what was printed."""

    def evaluate(name, *switches, **flags):
        output = tmp_path / "scores"
        flags = {"output": output} | flags
        command.main([name, *(f"--{k}={v}" for k, v in flags.items()), *switches])
        return json.loads((output / "results.json").read_text()), capsys.readouterr().out

    return evaluate


# --- Commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["self", "other"])
def test_generation_of_a_model(evaluate, model, pairs, tmp_path, short, reference):
    results, printed = evaluate("generation", model=model, pairs=pairs, reference=reference)
    assert list(results["rows"]) == ["generated", *ORACLES]
    for row in results["rows"].values():
        assert set(row["mean"]) == set(row["interval"]) == GENERATION_METRICS
        assert all(low <= row["mean"][k] <= high for k, (low, high) in row["interval"].items())
    assert results["mean"] == results["rows"]["generated"]["mean"]
    assert len(results["images"]) == 4
    for name in GENERATION_METRICS:
        values = [image[name] for image in results["images"]]
        assert results["mean"][name] == pytest.approx(np.mean(values))
    assert results["arguments"]["reference"] == reference
    table = (tmp_path / "scores/results.md").read_text()
    assert table in printed
    assert f"reference {reference}" in table
    names = {path.name for path in (tmp_path / "scores").iterdir()}
    pictures = {"examples.png", "histograms.png", "noise_levels.png", "spectra.png"}
    assert names == {"results.json", "results.md"} | pictures
    for picture in pictures:
        with Image.open(tmp_path / "scores" / picture) as image:
            assert min(image.size) > 400
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pairs", "scores"]


def test_baselines_and_a_users_method(evaluate, pairs, short, monkeypatch):
    module = types.ModuleType("someones")
    module.copy = lambda clean, reference, key: clean
    module.crop = lambda clean, reference, key: clean[1:]
    monkeypatch.setitem(sys.modules, "someones", module)
    flags = {"pairs": pairs, "method": "someones:copy"}
    results, printed = evaluate("generation", "--baselines", **flags)
    assert list(results["rows"]) == ["someones:copy", *BASELINES, CEILING, *ORACLES]
    assert results["rows"][CEILING]["mean"]["akld"] == results["rows"][CEILING]["mean"]["ks"] == 0
    assert results["rows"][CEILING]["mean"]["c2st"] == 0.5
    level_error = {k: row["mean"]["noise_level_error"] for k, row in results["rows"].items()}
    assert level_error["someones:copy"] == pytest.approx(1)
    assert level_error["white Gaussian"] < 0.5
    assert "| white Gaussian " in printed
    with pytest.raises(InputError, match="a method gave"):
        evaluate("generation", pairs=pairs, method="someones:crop")


@pytest.mark.parametrize(
    "made",
    [
        np.full((16, 16, 3), 99),
        np.full((16, 16, 3), 99.0),
        np.full((16, 16, 3), 99, np.uint16),
        np.full((16, 16, 3), np.nan, np.float32),
    ],
    ids=["integers", "0 to 255", "16 bits", "NaN"],
)
def test_a_method_of_another_scale_is_refused(made):
    clean = np.zeros((16, 16, 3), np.uint8)
    row = generation.by_reference(lambda *_: made)
    with pytest.raises(InputError, match="expected uint8, or finite float with white at 1"):
        row(samples.Images(clean, clean, clean), jax.random.key(0))


def test_reference_other_is_used(model, pairs):
    found = samples.samples_of_pairs(find_pairs(pairs))
    seen = []

    def method(clean, reference, key):
        seen.append(reference)
        return np.clip(clean / 255 + 0.1 * jax.random.normal(key, clean.shape), 0, 1)

    rows = {"mine": generation.by_reference(method)}
    broken = Broken(skip=False)
    _, references = samples.other_references(found, broken)
    result = generation.evaluate(found[:3], references[:3], rows, broken)
    for index, other in enumerate((2, 3, 0)):
        np.testing.assert_array_equal(seen[index], read_rgb(found[other].noisy))
    assert "c2st" not in result.scores["mine"], "three images are too few"
    assert generation.summarize(result)["mine"]["c2st"] is None


def test_generated_folders_score_as_their_definition(evaluate, triples, short):
    clean, noisy, generated = triples
    results, _ = evaluate("generation", clean=clean, noisy=noisy, generated=generated)
    assert [image["name"] for image in results["images"]] == [f"sub/{i}" for i in range(4)]
    for index, image in enumerate(results["images"]):
        images = [np.array(Image.open(folder / f"sub/{index}.png")) for folder in triples]
        for name in (
            "akld",
            "ks",
            "kld",
            "level_ratio_error",
            "lag1_error",
            "psd_error",
            "noise_level_error",
        ):
            expected = float(getattr(metrics, name)(*images)[0])
            assert image[name] == pytest.approx(expected, rel=1e-4), name
    again, _ = evaluate("generation", clean=clean, noisy=noisy, generated=generated)
    assert again == results, "everything random hangs on the seed"


def test_true_noise_may_be_scored_as_generated(evaluate, triples, short):
    clean, noisy, _ = triples
    results, _ = evaluate("generation", clean=clean, noisy=noisy, generated=noisy)
    assert results["mean"]["akld"] == results["mean"]["ks"] == 0


def test_generated_files_may_have_another_extension(triples):
    path = triples[2] / "sub/0.png"
    image = np.array(Image.open(path))
    write(path.with_suffix(".tif"), image)
    path.unlink()
    found = samples.samples_of_folders(*triples, Broken(skip=False))
    assert len(found) == 4
    np.testing.assert_array_equal(samples.read_images(found[0]).generated, image)


@pytest.mark.parametrize("source", ["pairs", "clean"])
def test_denoising(evaluate, denoiser, pairs, tmp_path, source):
    if source == "pairs":
        results, printed = evaluate("denoising", denoiser=denoiser, pairs=pairs)
        pair = find_pairs(pairs)[1]
        clean, noisy = read_rgb(pair.clean), read_rgb(pair.noisy)
    else:
        for index, image in enumerate(crops(3)):
            write(tmp_path / f"photos/{index}.png", image)
        results, printed = evaluate(
            "denoising", denoiser=denoiser, clean=tmp_path / "photos", noise="gaussian", sigma=25
        )
        clean = crops(2)[1]
        key = jax.random.fold_in(jax.random.key(0), 1)
        noisy = denoising.add_noise(clean, denoising.make_noise("gaussian", "25", "30"), key)
        assert 24 < 255 * (noisy - clean / 255).std() < 25.5
    assert set(results["mean"]) == {"psnr", "ssim", "ssim_plain"}
    assert list(results["rows"]) == ["denoised", "noisy input"]
    restored = np.asarray(nt_jax.load_denoiser(denoiser)(noisy))
    expected = float(metrics.psnr(clean, restored)[0])
    assert results["images"][1]["psnr"] == pytest.approx(expected, abs=1e-4)
    assert "not rounded to 8 bits" in printed
    assert results["protocol"] in printed
    assert results["images"][1]["noisy_ssim"] == pytest.approx(
        float(metrics.ssim(clean, noisy)[0]), rel=1e-5
    )
    psnr = [image["psnr"] for image in results["images"]]
    assert results["mean"]["psnr"] == pytest.approx(np.mean(psnr))
    assert "| noisy input |" in printed
    assert (tmp_path / "scores/examples.png").is_file()


def test_denoising_by_an_ensemble(evaluate, denoiser, pairs):
    results, printed = evaluate("denoising", "--ensemble", denoiser=denoiser, pairs=pairs)
    pair = find_pairs(pairs)[1]
    restored = nt_jax.load_denoiser(denoiser)(read_rgb(pair.noisy), ensemble=True)
    expected = float(metrics.psnr(read_rgb(pair.clean), restored)[0])
    assert results["images"][1]["psnr"] == pytest.approx(expected, abs=1e-4)
    assert "eight orientations" in printed


def test_one_protocol_scores_what_is_made_without_rounding(tmp_path):
    """A tenth of a grey level off is neither nothing nor a whole one."""
    clean = np.full((32, 32, 3), 100, np.uint8)
    for role in ("gt", "noisy"):
        write(tmp_path / f"a_{role}.png", clean)
    pairs, broken = find_pairs(tmp_path), Broken(skip=False)

    def nearly(image, *_):
        return np.asarray(image, np.float32) / 255 + np.float32(0.4 / 255)

    scenes = denoising.scenes_of_pairs(pairs)
    result = denoising.evaluate({denoising.DENOISED: nearly}, scenes, broken)
    expected = -10 * np.log10((0.4 / 255) ** 2 + 1e-8)
    assert result.scores["denoised"]["psnr"][0] == pytest.approx(expected, abs=1e-3)

    made = generation.by_reference(nearly)(samples.Images(clean, clean, clean), jax.random.key(0))
    assert made.dtype == np.float32
    np.testing.assert_allclose(255 * made - clean, 0.4, atol=1e-4)
    np.testing.assert_array_equal(generation.as_file(made), clean)


def test_ssim_is_told_apart_from_the_plain_one(evaluate, denoiser, tmp_path):
    clean = np.tile(data.astronaut()[:388, :388], (1, 1, 1))
    write(tmp_path / "pairs/a_gt.png", clean)
    write(tmp_path / "pairs/a_noisy.png", add_noise(clean, 25, 0))
    results, printed = evaluate("denoising", denoiser=denoiser, pairs=tmp_path / "pairs")
    row = results["rows"]["noisy input"]["mean"]
    plain = skimage.metrics.structural_similarity(
        *(clean, read_rgb(tmp_path / "pairs/a_noisy.png")),
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert row["ssim_plain"] == pytest.approx(plain, abs=2e-4)
    assert row["ssim"] > 1.5 * row["ssim_plain"]
    assert "average pooling" in printed
    assert "SSIM, plain" in printed


def test_synthetic_noise_hangs_on_seed_and_range():
    clean = np.full((64, 64, 3), 128, np.uint8)
    levels = []
    for kind, sigma, lam in (("gaussian", "10:50", "30"), ("poisson", "25", "5:50")):
        noise = denoising.make_noise(kind, sigma, lam)
        draws = [denoising.add_noise(clean, noise, jax.random.key(i)) for i in range(8)]
        again = denoising.add_noise(clean, noise, jax.random.key(3))
        np.testing.assert_array_equal(again, draws[3])
        levels.append([255 * draw.std() for draw in draws])
    assert 9.5 < min(levels[0]) < 25 < 35 < max(levels[0]) < 51
    expected = [255 * np.sqrt(128 / 255 / lam) for lam in (50, 5)]
    assert 0.95 * expected[0] < min(levels[1]) < max(levels[1]) < 1.05 * expected[1]


def test_embedding(evaluate, model, pairs, tmp_path):
    results, printed = evaluate("embedding", model=model, pairs=pairs)
    assert set(results["mean"]) == {"level_correlation", "retrieval", "retrieval_chance"}
    assert results["mean"]["retrieval_chance"] == pytest.approx(1 / 3)
    assert -1 <= results["mean"]["level_correlation"] <= 1
    assert [image["group"] for image in results["images"]] == ["S6_100", "S6_800"] * 2
    assert all(len(image["tsne"]) == len(image["pca"]) == 2 for image in results["images"])
    assert "nearest neighbour" in printed
    assert (tmp_path / "scores/embedding.png").is_file()


# --- Wrong input ---------------------------------------------------------------------------------


def flags_of(folders):
    return [f"--{folder.name}={folder}" for folder in folders]


BAD_FLAGS = {
    "no command": [],
    "unknown command": ["training"],
    "no output": ["generation", "--model=m", "--pairs=p"],
    "no source": ["generation", "--model=m", "--output=OUT"],
    "both sources": ["generation", "--model=m", "--pairs=p", "--clean=c", "--output=OUT"],
    "half a triple": ["generation", "--clean=c", "--noisy=n", "--output=OUT"],
    "reference": ["generation", "--model=m", "--pairs=p", "--reference=any", "--output=OUT"],
    "no method": ["generation", "--method=nowhere:f", "--pairs=p", "--output=OUT"],
    "seed": ["generation", "--model=m", "--pairs=p", "--seed=4294967296", "--output=OUT"],
    "missing folder": ["generation", "--model=m", "--pairs=/nowhere", "--output=OUT"],
    "no noise": ["denoising", "--denoiser=d", "--clean=c", "--output=OUT"],
    "noise": ["denoising", "--denoiser=d", "--clean=c", "--noise=salt", "--output=OUT"],
    "sigma": [
        *["denoising", "--denoiser=d", "--clean=c", "--noise=gaussian", "--output=OUT"],
        "--sigma=50:0",
    ],
    "lam": [
        *["denoising", "--denoiser=d", "--clean=c", "--noise=poisson", "--output=OUT"],
        "--lam=0",
    ],
    "a level of real noise": ["denoising", "--pairs=p", "--sigma=5", "--output=OUT"],
    "a seed of real noise": ["denoising", "--pairs=p", "--seed=1", "--output=OUT"],
    "a level of other noise": [
        *["denoising", "--denoiser=d", "--clean=c", "--noise=gaussian", "--output=OUT"],
        "--lam=30",
    ],
    "a seed of nothing": ["noise", "--model=m", "--images=p", "--seed=0", "--output=OUT"],
    "no model": ["embedding", "--pairs=p", "--output=OUT"],
}


def fails(arguments, tmp_path, capsys):
    """The one line that a command ends with, exit code 2, without output."""
    before = sorted(tmp_path.rglob("*"))
    output = tmp_path / "made/scores"
    arguments = [a.replace("OUT", str(output)) for a in arguments]
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: command.main(arguments))
    assert exit_.value.code == 2
    assert sorted(tmp_path.rglob("*")) == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("arguments", BAD_FLAGS.values(), ids=BAD_FLAGS)
def test_wrong_flags(arguments, tmp_path, capsys):
    fails(arguments, tmp_path, capsys)


def test_flags_that_would_do_nothing_are_named(tmp_path, capsys):
    for name, told in (
        ("a level of real noise", "--sigma=5 is of gaussian noise"),
        ("a level of other noise", "--lam=30 is of poisson noise"),
        ("a seed of real noise", "--seed=1 is of --noise"),
        ("a seed of nothing", "unrecognized arguments: --seed=0"),
    ):
        assert told in fails(BAD_FLAGS[name], tmp_path, capsys)


def test_wrong_model(pairs, denoiser, tmp_path, capsys):
    for name in ("nowhere", denoiser):
        arguments = ["generation", f"--model={name}", f"--pairs={pairs}", "--output=OUT"]
        assert str(name) in fails(arguments, tmp_path, capsys)


def test_wrong_output(triples, tmp_path, capsys):
    (tmp_path / "file").touch()
    inside = triples[0] / "scores"  # whose pictures would be scored the next time
    long = tmp_path / ("a" * 300)
    for output in (tmp_path / "file", tmp_path / "file/below", triples[0], inside, long):
        arguments = ["generation", *flags_of(triples), f"--output={output}"]
        assert str(output) in fails(arguments, tmp_path, capsys)


def test_a_folder_that_takes_no_files_is_told_before_the_work():
    with pytest.raises(InputError, match="--output=/proc cannot be written"):
        report.check_output(pathlib.Path("/proc"), [])  # beside it one can write


def spoil_missing(folder):
    (folder / "sub/1.png").unlink()


def spoil_size(folder):
    write(folder / "sub/1.png", np.zeros((32, 40, 3), np.uint8))


def spoil_garbage(folder):
    (folder / "sub/1.png").write_bytes(b"no image")


def spoil_truncated(folder):
    path = folder / "sub/1.png"
    path.write_bytes(path.read_bytes()[:-900])


@pytest.mark.parametrize("place", [0, 2], ids=["clean", "generated"])
@pytest.mark.parametrize("spoil", [spoil_missing, spoil_size, spoil_garbage, spoil_truncated])
def test_broken_triple_is_named(evaluate, triples, tmp_path, capsys, short, spoil, place):
    spoil(triples[place])
    arguments = ["generation", *flags_of(triples), "--output=OUT"]
    error = fails(arguments, tmp_path, capsys)
    assert "sub/1" in error
    if spoil is not spoil_truncated or place == 0:
        return
    clean, noisy, generated = triples
    results, printed = evaluate(
        "generation", "--skip_broken", clean=clean, noisy=noisy, generated=generated
    )
    assert [image["name"] for image in results["images"]] == ["sub/0", "sub/2", "sub/3"]
    assert results["mean"]["c2st"] is None
    assert "C2ST needs 4 images" in printed
    (problem,) = results["skipped"]
    assert "sub/1.png" in problem


def test_empty_folder(triples, tmp_path, capsys):
    shutil.rmtree(triples[1] / "sub")
    error = fails(["generation", *flags_of(triples), "--output=OUT"], tmp_path, capsys)
    assert f"{triples[1]}: no image found" in error


def test_too_small(triples, tmp_path, capsys):
    for folder in triples:
        write(folder / "sub/1.png", np.zeros((15, 40, 3), np.uint8))
    error = fails(["generation", *flags_of(triples), "--output=OUT"], tmp_path, capsys)
    assert "40x15" in error


def test_broken_pair_is_skipped_on_request(evaluate, denoiser, pairs, tmp_path, capsys):
    bad = find_pairs(pairs)[2].noisy
    bad.write_bytes(bad.read_bytes()[:200])
    arguments = ["denoising", f"--denoiser={denoiser}", f"--pairs={pairs}", "--output=OUT"]
    assert bad.parent.name in fails(arguments, tmp_path, capsys)
    results, printed = evaluate("denoising", "--skip_broken", denoiser=denoiser, pairs=pairs)
    assert len(results["images"]) == 3
    assert str(bad) in results["skipped"][0]
    assert f"Skipped: {bad}" in printed


def test_alone_in_its_group(pairs):
    found = samples.samples_of_pairs(find_pairs(pairs))
    broken = Broken(skip=False)
    kept, references = samples.other_references(found[:3], broken)
    assert kept == found[:3:2]
    assert references == found[2::-2]
    (line,) = broken.skipped
    assert "no other photograph of the same camera and ISO" in line
    with pytest.raises(InputError, match="no two photographs"):
        samples.other_references(found[:1], Broken(skip=True))


def test_the_other_reference_says_of_how_many_it_is(evaluate, model, pairs, short):
    shutil.rmtree(pairs / "Data/0003_003_S6_00800_00100_3200_N")
    results, printed = evaluate("generation", model=model, pairs=pairs, reference="other")
    assert len(results["images"]) == 2
    assert results["arguments"]["images_found"] == 3
    assert len(results["skipped"]) == 1
    assert "2 images" in printed
    assert "images_found 3" in printed


PHOTOGRAPHS = (  # pairs by photograph: SIDD's cut by hand, PolyU's as published
    ("0001_001_S6_00100_00060_3200_L_tile0", "0001_001_S6_00100_00060_3200_L_tile1"),
    ("0002_001_S6_00100_00060_3200_N_001", "0002_001_S6_00100_00060_3200_N_002"),
    ("Canon5D2_5_160_3200_chair_11", "Canon5D2_5_160_3200_chair_5"),
    ("Canon5D2_5_160_3200_plug_11",),
)


def test_tiles_of_one_photograph_are_no_other_images(tmp_path):
    for names in PHOTOGRAPHS:
        for name in names:
            for role in ("gt", "noisy"):
                write(tmp_path / f"{name}_{role}.png", np.zeros((16, 16, 3), np.uint8))
    pairs = find_pairs(tmp_path)
    tiles = {name: set(names) for names in PHOTOGRAPHS for name in names}
    for index, pair in enumerate(pairs):
        other = next_other(index, pairs, [photograph(p) for p in pairs])
        assert other is not None
        assert pairs[other].group == pair.group
        assert pairs[other].name not in tiles[pair.name]
    found = samples.samples_of_pairs(pairs)
    kept, references = samples.other_references(found, Broken(skip=False))
    assert len(kept) == len(found)
    for sample, reference in zip(kept, references, strict=True):
        assert reference.image not in tiles[sample.image]


def test_two_shots_of_a_scene_are_two_photographs(tmp_path):
    folder = tmp_path / "Data/0001_001_S6_00100_00060_3200_L"
    for shot in ("010", "011"):
        for role in ("GT", "NOISY"):
            write(folder / f"{role}_SRGB_{shot}.PNG", np.zeros((16, 16, 3), np.uint8))
    pairs = find_pairs(tmp_path)
    assert next_other(0, pairs, [photograph(p) for p in pairs]) == 1


def test_a_sample_of_a_prepared_tile_knows_its_camera(tmp_path):
    for role in ("gt", "noisy"):
        write(
            tmp_path / f"0001_001_S6_00800_00100_3200_N_{role}.png", np.zeros((32, 32, 3), np.uint8)
        )
    (pair,) = find_pairs(tmp_path)
    tile = pair._replace(name="0_0", image="train: 0001_001_S6_00800_00100_3200_N")
    unknown = pair._replace(group="a", iso=None)
    found = samples.samples_of_pairs([pair, tile, unknown])
    assert [samples.read_images(sample).camera for sample in found] == ["S6_800", "S6_800", ""]


def test_retrieval_does_not_find_tiles_of_the_photograph():
    groups, photographs = ["a", "a", "b", "b", "a"], ["1", "1", "2", "3", "4"]
    distance = np.ones((5, 5))
    distance[0, 1] = distance[1, 0] = 0.1  # tiles of one photograph
    distance[0, 2] = distance[1, 2] = 0.2
    hits, chance, _ = embedding.retrieval(distance, groups, photographs)
    assert hits.tolist()[:2] == [0, 0]
    assert chance.tolist()[:2] == pytest.approx([1 / 3, 1 / 3])


# --- Samples -------------------------------------------------------------------------------------


def sizes_of_samples(tmp_path, sizes):
    folder = tmp_path / "sizes"
    for index, (height, width) in enumerate(sizes):
        for role in ("gt", "noisy"):
            write(folder / role / f"{index:02}.png", np.full((height, width, 3), index, np.uint8))
    return samples.samples_of_pairs(find_pairs(folder))


def test_large_images_are_cut_into_blocks(tmp_path):
    found = sizes_of_samples(tmp_path, [(512, 17), (520, 300), (1100, 1024)])
    assert found[0].size == (512, 17)
    by_image = [[s for s in found if s.image == name] for name in ("00", "01", "02")]
    assert [len(part) for part in by_image] == [1, 2, 16]
    assert {s.size for s in found[1:]} == {(256, 256)}
    assert by_image[1][0].columns == slice(22, 278)
    covered = np.zeros((1100, 1024), int)
    for sample in by_image[2]:
        covered[sample.rows, sample.columns] += 1
    assert covered.max() == 1
    assert covered[[0, -1]].any(axis=1).all()
    with pytest.raises(InputError, match="no two photographs"):  # blocks are no other images
        samples.other_references(by_image[2], Broken(skip=False))
    assert samples.read_images(found[0]).clean.shape == (512, 17, 3)


def test_many_sizes_are_cut_to_few(tmp_path):
    found = sizes_of_samples(tmp_path, [(20 + i, 200 - i) for i in range(40)])
    assert {s.size[0] for s in found} == {16, 32, 48}
    assert {s.size[1] for s in found} == {128, 192}


# --- Parts ---------------------------------------------------------------------------------------


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=30)
    estimate = statistics.mean(values)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert estimate.value == pytest.approx(values.mean())
    np.testing.assert_allclose(estimate.interval, expected, rtol=0.03)
    assert statistics.mean(values) == estimate
    assert statistics.mean([0.5]).interval is None


def test_crops_of_a_photograph_are_drawn_together():
    values = np.random.default_rng(0).gamma(2.0, size=6)
    crops = np.repeat(values, 4).tolist()
    names = [name for name in "fedcba" for _ in range(4)]
    together, apart = statistics.mean(crops, names), statistics.mean(crops)
    np.testing.assert_allclose(np.hstack(together), np.hstack(statistics.mean(values)))
    assert apart.value == pytest.approx(together.value)
    assert np.diff(apart.interval) < 0.6 * np.diff(together.interval)
    # Of more crops a photograph counts more, as in the mean itself.
    uneven = statistics.mean([1.0, 1.0, 1.0, 4.0], ["a", "a", "a", "b"])
    assert uneven == (1.75, (1.0, 4.0))
    assert statistics.mean(crops, ["one"] * len(crops)).interval is None


def test_oracles_have_what_they_claim():
    rng = np.random.default_rng(0)
    clean = np.tile(np.linspace(60, 200, 128).astype(np.uint8)[:, None, None], (1, 128, 3))
    level = np.where(clean < 130, 5, 15) * np.array([1.0, 1.5, 0.5])
    noisy = np.clip(np.rint(clean + level * rng.normal(size=clean.shape)), 0, 255).astype(np.uint8)
    images = samples.Images(clean, noisy, noisy)
    key = jax.random.key(0)
    noise = noisy.astype(float) - clean
    flat = white(images, key).astype(float) - clean
    np.testing.assert_allclose(flat.std((0, 1)), noise.std((0, 1)), rtol=0.03)
    np.testing.assert_allclose(flat[:60].std(), flat[-60:].std(), rtol=0.1)
    curved = level_curve(images, key)
    assert metrics.noise_level_error(clean, noisy, curved) < 0.03
    assert metrics.noise_level_error(clean, noisy, white(images, key)) > 0.3
    camera = camera_model(images, key)
    assert camera.dtype == np.uint8
    np.testing.assert_allclose((camera.astype(float) - clean).std(), noise.std(), rtol=0.05)
    assert metrics.lag_autocorrelation(camera.astype(float) - clean, 1) > 0.1


def test_retrieval_and_level_correlation():
    rng = np.random.default_rng(0)
    levels = np.array([2.0, 2.5, 10.0, 11.0, 30.0])
    direction = np.stack([np.cos(levels / 30), np.sin(levels / 30)], axis=1)
    distance = embedding.distances(3 * direction)
    assert distance[0, 4] == pytest.approx(1 - np.cos(28 / 30))
    estimate = embedding.level_correlation(distance, levels)
    assert estimate.value == pytest.approx(1)
    shuffled = embedding.level_correlation(distance, rng.permutation(levels))
    i, j = np.triu_indices(5, 1)
    permuted = np.random.default_rng(0).permutation(levels)
    expected = scipy.stats.spearmanr(distance[i, j], abs(permuted[i] - permuted[j])).statistic
    assert shuffled.value == pytest.approx(expected)
    hits, chance, asked = embedding.retrieval(distance, ["a", "a", "b", "b", ""])
    assert asked.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(hits, 1)
    np.testing.assert_allclose(chance, 1 / 3)
    hits, _, _ = embedding.retrieval(distance, ["a", "b", "a", "b", "c"])
    np.testing.assert_array_equal(hits, 0)
    assert embedding.level_correlation(distance, np.full(5, 3.0)) is None
    for groups in (["a"] * 5, [""] * 5, list("abcde")):
        assert embedding.retrieval(distance, groups) is None


def test_crops_of_a_photograph_tell_no_more_of_a_correlation_than_it_does():
    rng = np.random.default_rng(1)
    levels, points = rng.uniform(2, 30, 8), rng.normal(size=(8, 2))
    points[:, 0] += levels / 15
    four = np.repeat(np.arange(8), 4)
    distance, names = embedding.distances(points[four]), [str(number) for number in four]
    alone = embedding.level_correlation(distance, levels[four])
    together = embedding.level_correlation(distance, levels[four], names)
    assert together.value == alone.value
    assert np.ptp(together.interval) > 1.5 * np.ptp(alone.interval)


def test_pca_is_that_of_the_covariance():
    points = np.random.default_rng(0).normal(size=(40, 6)) * [5, 3, 1, 1, 0.5, 0.1]
    variances = np.linalg.eigvalsh(np.cov(points.T, bias=True))[::-1]
    np.testing.assert_allclose(embedding.pca(points).var(axis=0), variances[:2])


def test_tsne_keeps_clusters_apart():
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(3), 15)
    points = 4 * rng.normal(size=(3, 10))[label] + 0.3 * rng.normal(size=(45, 10))
    placed = embedding.tsne(points)
    assert placed.shape == (45, 2)
    distance = np.linalg.norm(placed[:, None] - placed, axis=-1) + 1e9 * np.eye(45)
    assert (label[distance.argmin(axis=1)] == label).all()
    np.testing.assert_array_equal(placed, embedding.tsne(points))
    assert np.isfinite(embedding.tsne(points[:4])).all()
    assert np.isfinite(embedding.tsne(np.zeros((5, 3)))).all(), "all embeddings alike"


def test_markdown_table():
    table = markdown_table(["name", "b"], [["x", "1.25"], ["longer", "2"]])
    assert table.splitlines() == [
        "| name   |    b |",
        "|--------|-----:|",
        "| x      | 1.25 |",
        "| longer |    2 |",
    ]
