"""The paper's tables at the smallest budget, end to end, and what they share."""

import json
import shutil
from argparse import Namespace
from types import SimpleNamespace
from unittest import mock

import h5py
import jax
import numpy as np
import pytest
import scipy.io
from PIL import Image
from skimage import data
from tiny_models import save_tiny

import nt_jax
from configs import denoiser as recipes
from experiments import (
    budget,
    dnd_submission,
    fig5_curves,
    fig7_ablation,
    intervals,
    parts,
    row_names,
    table1_generation,
    table2_real_denoising,
    table3_synthetic_denoising,
)
from nt_jax import prng
from nt_jax.checkpointing import save_model
from nt_jax.data.catalogue.sources import find_pairs, read_rgb
from nt_jax.errors import DivergedError, InputError
from nt_jax.evaluation import denoising, generation
from nt_jax.evaluation.baselines import BASELINES
from nt_jax.evaluation.oracles import CEILING, ORACLES
from nt_jax.evaluation.samples import samples_of_pairs
from nt_jax.fields import check_config
from nt_jax.models.biased import init_biased
from nt_jax.models.ridnet import RIDNet

SIDE = 64


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Three pairs as SIDD names them, of one camera and ISO."""
    folder = tmp_path_factory.mktemp("data") / "pairs"
    photo, rng = data.astronaut(), np.random.default_rng(0)
    for i in range(3):
        clean = photo[90 * i :, 100:][:SIDE, :SIDE]
        noisy = np.clip(np.rint(clean + 15 * rng.normal(size=clean.shape)), 0, 255)
        place = folder / f"Data/000{i}_00{i}_S6_00800_00100_3200_N"
        write(place / "GT_SRGB_010.PNG", clean)
        write(place / "NOISY_SRGB_010.PNG", noisy.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "photos"
    for i in range(3):
        # Of little contrast, so that no noise is clipped.
        write(folder / f"{i}.png", 96 + data.coffee()[100 * i :, 150:][:SIDE, :SIDE] // 4)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


def options_of(output, *flags):
    args = budget.make_parser("table", "").parse_args([f"--output={output}", *flags])
    return budget.parse_options(args)


def cells(line):
    """Of a line of a Markdown table."""
    return [cell.strip() for cell in line.split("|")[1:-1]]


def results_of(output):
    return json.loads((output / "results.json").read_text())


def untrained():
    """Fails where something is trained."""
    return mock.patch.object(budget, "train_and_evaluate", side_effect=AssertionError("trained"))


# --- Tables --------------------------------------------------------------------------------------


def test_table1(model, pairs, tmp_path, capsys):
    output = tmp_path / "table"
    flags = [f"--model={model}", f"--pairs={pairs}", f"--output={output}", "--budget=smoke"]
    table1_generation.main(flags)
    text = (output / "results.md").read_text()
    assert text in capsys.readouterr().out
    assert "Budget `smoke`, seeds 0" in text
    ours, published = text.split("## Published")
    (row,) = (cells(line) for line in ours.splitlines() if line.startswith("| NoiseTransfer "))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nt_jax.load(model).params))
    assert row[1:5] == ["the reference", f"{parameters:,}", "–", "–"]
    rows = {row[0]: row[1:5] for row in map(cells, ours.splitlines()) if len(row) > 5}
    assert rows["white Gaussian"] == ["the reference", "0", "0", "0.00"]
    assert rows["CycleISP-style levels, SIDD's"] == ["nothing", "0", "0", "0.00"]
    assert rows[CEILING][0] == "the truth"
    (row,) = (line for line in published.splitlines() if line.startswith("| NoiseTransfer "))
    assert cells(row) == ["NoiseTransfer", ".1655 / .0617", ".2324 / .1537"]
    assert ".1655" not in ours
    (scored,) = results_of(output)["sets"].values()
    for reference in ("self", "other"):
        rows = scored[reference]["rows"]
        assert next(iter(rows)) == "NoiseTransfer"
        assert set(BASELINES) | set(ORACLES) < set(rows)
        assert rows["white Gaussian"]["mean"]["akld"] < rows["NoiseTransfer"]["mean"]["akld"]
    with mock.patch.object(table1_generation.generation, "evaluate", side_effect=AssertionError):
        table1_generation.main(flags)  # nothing is scored again
    assert (output / "results.md").read_text() == text


def test_table1_of_images_that_have_no_other_of_their_noise(tmp_path):
    """As SIDD's validation blocks are: scored by themselves, dashes for the rest."""
    for name in "ab":
        for role in ("gt", "noisy"):
            write(tmp_path / f"pairs/{name}_{role}.png", np.zeros((32, 32, 3), np.uint8))
    samples = samples_of_pairs(find_pairs(tmp_path / "pairs"))
    metrics = dict.fromkeys((*generation.columns(), "akld_floor"), 0.5)
    row = {"mean": metrics, "interval": dict.fromkeys(metrics)}
    answer = {"rows": {"toy": row}, "images": ["a", "b"]}
    options = options_of(tmp_path / "table", "--budget=smoke")
    stubs = mock.Mock(as_json=mock.Mock(return_value=answer))
    with mock.patch.object(table1_generation, "generation", stubs):
        results = table1_generation.score(samples, {}, options, "set", {})
    assert stubs.evaluate.call_count == 1
    assert len(results["other"]["left_out"]) == 2
    text = table1_generation.table(results, {"toy": table1_generation.About("nothing")})
    (line,) = (cells(line) for line in text.splitlines() if line.startswith("| toy"))
    assert line[5:] == ["0.500", "–", "0.500", "–", "0.500", "–", *line[11:]]
    assert "–" not in line[11:]


def test_denoisers_of_another_model_of_a_name_are_not_taken_for_its_own(model, tmp_path):
    rows = row_names.generated_rows(str(model), tmp_path)
    assert rows == {f"generated:{model}": "NoiseTransfer (told the reference)"}
    assert row_names.generated_rows(str(model), tmp_path) == rows
    other = mock.patch.object(row_names, "digest_of", return_value="of another")
    with other, pytest.raises(InputError, match="holds denoisers of another model"):
        row_names.generated_rows(str(model), tmp_path)


def test_what_stands_behind_a_row_of_table1():
    about = table1_generation.About("nothing", 6160, 5000, 5400.0)
    assert about.cells() == ["nothing", "6,160", "5,000", "1.50"]
    model = SimpleNamespace(
        told=("reference", "reference_clean"),
        params={"flow": {"a": np.zeros((2, 3))}, "counts": np.zeros(26), "prior": np.zeros(4)},
        metadata={"step": 20, "seconds": 36.0},
    )
    about = table1_generation.about_model(model)
    assert about == ("the reference and its clean image", 10, 20, 36.0)


def test_models_of_one_family_are_told_apart():
    kinds = {"small": "noisetransfer", "runs/a": "n2g", "runs/b": "n2g", "toy": "mine.toy"}
    models = {name: SimpleNamespace(metadata={"kind": kind}) for name, kind in kinds.items()}
    titles = row_names.titles_of(models)
    assert list(titles.values()) == ["NoiseTransfer", "N2G, a", "N2G, b", "toy"]
    # The family alone would not tell N2G_g from N2G_p.
    assert list(row_names.titles_of({"b": models["runs/b"]}).values()) == ["N2G, b"]
    twins = {"one/a": models["runs/a"], "two/a": models["runs/b"]}
    assert list(row_names.titles_of(twins).values()) == ["N2G, one/a", "N2G, two/a"]
    assert row_names.folder_name("generated:runs/a") == "generated.runs.a"
    with pytest.raises(InputError, match="once"):
        row_names.load_generators("small,small")


def test_synthetic_samples_of_table1(photos, tmp_path):
    files = sorted(photos.iterdir())
    found = table1_generation.synthetic_samples("gaussian", [*files, files[0]], tmp_path, 0)
    assert [sample.group for sample in found] == ["0", "0", "1", "1"]
    for sample, sigma in zip(found, (12.5, 12.5, 37.5, 37.5), strict=True):
        clean, first, second = (
            read_rgb(file).astype(float) for file in (sample.clean, sample.noisy, sample.generated)
        )
        noises = [(noisy - clean).ravel() for noisy in (first, second)]
        assert [noise.std() for noise in noises] == pytest.approx([sigma] * 2, rel=0.05)
        assert abs(np.corrcoef(*noises)[0, 1]) < 0.05


def test_synthetic_samples_are_not_mistaken_for_others(photos, tmp_path):
    files = sorted(photos.iterdir())[:2]
    made = table1_generation.synthetic_samples("gaussian", files, tmp_path, 0)
    assert table1_generation.synthetic_samples("gaussian", files, tmp_path, 0) == made
    for other in (("gaussian", files, 1), ("gaussian", files[:1], 0), ("poisson", files, 0)):
        with pytest.raises(InputError, match="was made of other images"):
            table1_generation.synthetic_samples(*other[:2], tmp_path, other[2])
    (tmp_path / "made_of.json").unlink()  # as before there was one
    with pytest.raises(InputError, match="was made of other images"):
        table1_generation.synthetic_samples("gaussian", files, tmp_path, 0)


@pytest.fixture(scope="module")
def table2(pairs, tmp_path_factory):
    """Flags, output and results of a finished table."""
    output = tmp_path_factory.mktemp("tables") / "table2"
    flags = [f"--pairs={pairs}", f"--val={pairs}", "--budget=smoke", "--rows=real,white"]
    table2_real_denoising.main([*flags, f"--output={output}"])
    return flags, output


def test_table2(table2):
    _, output = table2
    (rows,) = results_of(output)["sets"].values()
    assert list(rows) == ["real", "white"]
    difference = rows["white"]["psnr"]["mean"] - rows["real"]["psnr"]["mean"]
    assert rows["white"]["gap"]["mean"] == pytest.approx(difference, abs=1e-5)
    assert rows["real"]["gap"] is None
    text = (output / "results.md").read_text()
    ours, published = text.split("## Published")
    assert "39.14 / .9155" in published
    assert "39.14" not in ours
    assert "width 16, blocks 1, 6 steps of 8 patches of 24 pixels" in text


def test_a_finished_table_trains_and_scores_nothing(table2):
    flags, output = table2
    before = (output / "results.json").read_text()
    with untrained(), mock.patch.object(denoising, "evaluate", side_effect=AssertionError):
        table2_real_denoising.main([*flags, f"--output={output}"])
    assert (output / "results.json").read_text() == before


def test_another_config_in_the_same_folder_is_refused(table2):
    flags, output = table2
    with untrained(), pytest.raises(InputError, match=r"begun with config\.train\.steps=6, not 12"):
        table2_real_denoising.main([*flags, f"--output={output}", "--steps=12"])


def test_fig5_uses_the_tables_runs(table2, tmp_path):
    flags, output = table2
    with untrained():
        fig5_curves.main([*flags, f"--output={tmp_path / 'fig5'}", f"--runs={output / 'runs'}"])
    curve = results_of(tmp_path / "fig5")["curves"]["real"]
    assert list(curve) == ["3", "6"]
    assert (tmp_path / "fig5/curves.png").is_file()
    assert "images of a set" in (output / "results.md").read_text()
    assert "images of a set" not in (tmp_path / "fig5/results.md").read_text()


def test_made_pairs_are_the_methods(table2, pairs):
    _, output = table2
    made = find_pairs(output / "runs/noise-white-smoke-seed0")
    real = find_pairs(pairs)
    for ours, true in zip(made, real, strict=True):
        np.testing.assert_array_equal(read_rgb(ours.clean), read_rgb(true.clean))
        noise = read_rgb(ours.noisy).astype(float) - read_rgb(ours.clean)
        assert 10 < noise.std() < 25
        assert not np.array_equal(read_rgb(ours.noisy), read_rgb(true.noisy))
    with pytest.raises(InputError, match="was made of other images"):
        parts.make_pairs(output / "runs/noise-white-smoke-seed0", None, [], None, 1, 0)


_TOLD_MORE = SimpleNamespace(
    told=("reference", "camera"), metadata={"kind": "toy"}, params={"a": np.zeros(1)}
)


def test_noise_of_a_model_made_beforehand(pairs, tmp_path):
    """Of one pair's photograph with another's as a reference: rounded, as the true noise is."""
    model = save_tiny(tmp_path / "model")
    parser = budget.make_parser("table2_real_denoising", "")
    table2_real_denoising.add_arguments(parser)
    flags = ["--budget=smoke", f"--pairs={pairs}", f"--val={pairs}", f"--output={tmp_path}"]
    flags += ["--rows=generated", "--beforehand"]
    args = parser.parse_args([*flags, f"--model={model}"])
    with mock.patch.object(budget, "train"):
        study = table2_real_denoising.train_all(args, budget.parse_options(args))
    made, references = find_pairs(study.config.data.pairs), find_pairs(pairs)
    assert study.config.data.pairs.startswith(str(tmp_path))
    transfer = nt_jax.load(model).transfer
    seed = int(prng.bits(prng.fold_in(prng.key(0), 0)))
    clean, noisy = read_rgb(made[0].clean), read_rgb(made[0].noisy)
    found = [transfer(clean, reference=read_rgb(pair.noisy), seed=seed) for pair in references[1:]]
    assert min(np.abs(255 * image - noisy).max() for image in found) <= 0.5 + 1e-3
    args = parser.parse_args([*flags, f"--model={tmp_path / 'told'}"])
    options = budget.parse_options(args)
    with (
        mock.patch.object(row_names, "load", return_value=_TOLD_MORE),
        mock.patch.object(table2_real_denoising, "load", return_value=_TOLD_MORE),
        pytest.raises(InputError, match="told the reference and camera and ISO"),
    ):
        table2_real_denoising.train_all(args, options)


def test_table3_scores_every_column_with_the_same_noise(photos, tmp_path):
    """Without training: two denoisers of random parameters."""
    workdirs = {}
    for number, name in enumerate(("generated", "synthetic")):
        folder = tmp_path / name
        params = init_biased(jax.random.key(number), RIDNet(16, 1))
        metadata = {"kind": "ridnet", "model": {"features": 16, "blocks": 1}}
        save_model(folder, metadata, {"denoiser": params})
        workdirs[name] = [folder]
    options = options_of(tmp_path / "out", "--budget=smoke", "--images=2")
    scores = table3_synthetic_denoising.score_all(workdirs, 6, photos, options)
    assert list(scores) == list(table3_synthetic_denoising.COLUMNS)
    for column, rows in scores.items():
        ours, true = (rows[name][0] for name in workdirs)
        assert ours.shape == (4, 2)
        np.testing.assert_array_equal(ours[2:], true[2:])
        assert (ours[0] != true[0]).all()
        trials = len(list((tmp_path / "generated/scores").glob(f"{column.split()[0]}*")))
        assert trials == 3, "one of the fixed level, two of random ones"
    assert scores["Gaussian 25"]["synthetic"][0][2] == pytest.approx(20.17, abs=0.2)
    found = {column: table3_synthetic_denoising.estimates(rows) for column, rows in scores.items()}
    tables = table3_synthetic_denoising.tables({"generated": "C2N", "synthetic": "true"}, found)
    published = tables.popitem()[1]
    assert list(tables) == ["PSNR, dB", "SSIM", "gap to true noise, dB"]
    assert "31.27 (-0.21)" in published
    assert "| N2G, Gaussian " in published
    names = [cells(line)[0] for line in tables["PSNR, dB"].splitlines()[2:]]
    assert names == ["C2N", "true", "noisy input"]
    assert len(tables["gap to true noise, dB"].splitlines()) == 3, "of the generated noise alone"
    gap = found["Poisson 30"]["generated"]["gap"].value
    ours, true = (scores["Poisson 30"][name][0][0] for name in workdirs)
    assert gap == pytest.approx((ours - true).mean())


def test_rows_of_table3_have_the_noise_of_their_models(model, photos, tmp_path):
    """Without training: what the denoisers would be trained on."""
    args = Namespace(model=str(model), n2g_g=str(model), n2g_p=None, rows="generated,synthetic")
    options = options_of(tmp_path, "--budget=smoke")
    rows = table3_synthetic_denoising.rows_of(args, options.runs)
    assert list(rows) == [f"generated:{model}", "synthetic", "n2g_g"]
    with mock.patch.object(budget, "train") as train:
        table3_synthetic_denoising.train_all(rows, photos, options)
    configs = [call.args[0] for call in train.call_args_list]
    for config in configs:
        check_config(config, 1)
    assert [c.denoiser.noise for c in configs] == ["generated", "synthetic", "generated"]
    assert configs[0].denoiser.model == configs[2].denoiser.model == str(model)
    assert configs[0].data.noise_kinds == configs[1].data.noise_kinds
    assert configs[2].data.noise_kinds == ("gaussian",)


def test_fig7_notes_divergence(tmp_path):
    def pretend(config, workdir):
        workdir.mkdir(parents=True)
        (workdir / "config.json").write_text(config.to_json())
        lines = [
            {"step": step} | dict.fromkeys(fig7_ablation.METRICS, 1 / (1 + step)) for step in (0, 3)
        ]
        text = "\n".join(map(json.dumps, lines))
        (workdir / "metrics.jsonl").write_text(text)
        if not config.losses.noise_d:
            raise DivergedError("step 5 is not finite")
        return {}

    flags = ["--budget=smoke", f"--output={tmp_path / 'fig7'}"]
    with mock.patch.object(budget, "train", side_effect=pretend) as train:
        fig7_ablation.main(flags)
    weights = [
        (c.losses.noise_d, c.losses.noise_g, c.losses.noise_fm)
        for c, _ in (call.args for call in train.call_args_list)
    ]
    assert weights == [(1, 1, 100), (1, 0, 0), (0, 1, 100)]
    text = (tmp_path / "fig7/results.md").read_text()
    assert "step 5 is not finite" in text
    assert "1 of 1 | diverged after 14 of 60 epochs" in text
    assert results_of(tmp_path / "fig7")["runs"]["full"][0]["diverged"] is None


# --- DND -----------------------------------------------------------------------------------------


def test_dnd_submission(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.random((48, 40, 3)).astype(np.float32)
    box = np.array([[1, 1, 24, 32], [17, 9, 40, 40]], np.float64)
    root = tmp_path / "dnd"
    (root / "images_srgb").mkdir(parents=True)
    with h5py.File(root / "info.mat", "w", userblock_size=512) as file:
        info = file.create_group("info")
        references = np.empty((1, 2), h5py.ref_dtype)
        for i in range(2):
            file[f"#refs#/{i}"] = box.T
            references[0, i] = file[f"#refs#/{i}"].ref
        info.create_dataset("boundingboxes", data=references, dtype=h5py.ref_dtype)
    for i in (1, 2):
        with h5py.File(root / f"images_srgb/000{i}.mat", "w") as file:
            file["InoisySRGB"] = image.T
    flags = [f"--dnd={root}", f"--output={tmp_path / 'bundle'}", "--denoiser=any"]
    with mock.patch.object(dnd_submission, "load_denoiser", return_value=lambda noisy: 1 - noisy):
        dnd_submission.main(flags)
        (root / "images_srgb/0002.mat").unlink()
        with pytest.raises(InputError, match=r"0002\.mat is missing"):
            dnd_submission.main(flags)
    assert sorted(p.name for p in (tmp_path / "bundle").iterdir()) == ["0001.mat", "0002.mat"]
    found = scipy.io.loadmat(tmp_path / "bundle/0002.mat")
    assert {name for name in found if name[0] != "_"} == {"Idenoised", "israw", "eval_version"}
    assert found["Idenoised"].shape == (1, 2)
    assert found["Idenoised"].dtype == object, "a cell"
    assert found["eval_version"] == "1.0"
    assert not found["israw"][0, 0]
    for cell, part in zip(found["Idenoised"][0], (image[:24, :32], image[16:40, 8:]), strict=True):
        assert cell.dtype == np.float32
        np.testing.assert_allclose(cell, 1 - part, atol=1e-7)


# --- What they share -----------------------------------------------------------------------------


def test_gap_and_its_interval():
    rng = np.random.default_rng(0)
    true = 30 + 3 * rng.normal(size=(3, 100))
    ours = true - 0.2 + 0.05 * rng.normal(size=(3, 100))
    estimate = intervals.gap(ours, true)
    assert estimate.value == pytest.approx(-0.2, abs=0.01)
    low, high = estimate.interval
    assert low < estimate.value < high
    assert high - low < 0.03, "the images' spread is common to both"
    ours[0] += 0.3  # seeds that disagree
    low, high = intervals.gap(ours, true).interval
    assert high - low > 0.15
    assert intervals.gap([[1.0]], [[2.0]]).interval is None


def test_a_gap_draws_the_crops_of_a_photograph_together():
    rng = np.random.default_rng(0)
    gaps = rng.normal(size=(3, 8))
    apart = intervals.gap(gaps, np.zeros_like(gaps))
    crops, names = np.repeat(gaps, 5, axis=1), [name for name in "hgfedcba" for _ in range(5)]
    together = intervals.gap(crops, np.zeros_like(crops), names)
    np.testing.assert_allclose(np.hstack(together), np.hstack(apart))
    assert np.diff(intervals.gap(crops, np.zeros_like(crops)).interval) < np.diff(apart.interval)
    assert intervals.gap(crops, np.zeros_like(crops), ["one"] * 40).interval is None
    of_photographs = intervals.mean(crops, names)
    np.testing.assert_allclose(np.hstack(of_photographs), np.hstack(intervals.mean(gaps)))


def test_kept_answers_only_the_same_question(tmp_path):
    answers = iter("abc")
    ask = lambda question: parts.kept(tmp_path / "x.json", question, lambda: next(answers))  # noqa: E731
    assert [ask({"n": (1, 2)}), ask({"n": [1, 2]}), ask({"n": 3}), ask({"n": 3})] == list("aabb")


def test_titles_tell_folders_apart(tmp_path, pairs, monkeypatch):
    a, b = (tmp_path / name / "polyu/val" for name in "AB")
    for folder in (a, b):
        folder.mkdir(parents=True)
    assert row_names.titles_of_folders([a, "skimage"]) == ["polyu/val", "skimage"]
    assert row_names.titles_of_folders([a, b]) == ["A/polyu/val", "B/polyu/val"]
    assert row_names.titles_of_folders([]) == []
    twin = tmp_path / "A_polyu/val"  # a file's name would be the same
    twin.mkdir(parents=True)
    titles = row_names.titles_of_folders([a, twin, b])
    assert len({title.replace("/", "_") for title in titles}) == 3
    monkeypatch.chdir(tmp_path)
    for twice in ([a, a], [a, "A/polyu/val"]):
        with pytest.raises(InputError, match="name each folder once"):
            row_names.titles_of_folders(twice)
    flags = [f"--pairs={pairs}", f"--output={tmp_path / 'out'}"]
    with untrained(), pytest.raises(InputError, match="once"):
        table2_real_denoising.main([*flags, f"--val={a},{a}", "--rows=real", "--budget=smoke"])


def test_kept_scores_are_of_the_same_files(pairs, tmp_path):
    """Of two sets of the same name and images of the same names, and of one that changed."""
    folders = [tmp_path / name / "polyu/val" for name in "AB"]
    for folder in folders:
        shutil.copytree(pairs, folder)
    zeros = dict.fromkeys(("psnr", "ssim"), [0.0] * 3)
    found = SimpleNamespace(
        images=["a"], photographs=["a"], scores={str(tmp_path): zeros, denoising.NOISY: zeros}
    )

    def score(folder):
        """Says whether anything was scored."""
        scenes = denoising.scenes_of_pairs(find_pairs(folder))
        with (
            mock.patch.object(parts, "load_denoiser"),
            mock.patch.object(denoising, "evaluate", return_value=found) as evaluate,
        ):
            parts.scores([tmp_path], 6, "polyu_val", scenes)
        return evaluate.called

    assert [score(folders[0]), score(folders[0]), score(folders[1])] == [True, False, True]
    write(find_pairs(folders[1])[0].noisy, np.zeros((SIDE, SIDE, 3), np.uint8))
    assert score(folders[1])


def test_wrong_options(tmp_path, pairs):
    for flag in ("--seeds=0,0", "--seeds=a", "--seeds=-1", "--steps=0", "--budget=huge"):
        with pytest.raises(InputError):
            options_of(tmp_path, flag)
    common = [f"--pairs={pairs}", f"--val={pairs}", f"--output={tmp_path / 'out'}"]
    for flags in (["--rows=nothing"], ["--rows=generated"], ["--rows=,"]):
        with pytest.raises(InputError, match=r"row|--model"):
            table2_real_denoising.main([*common, *flags])
    with pytest.raises(InputError, match="--model"):
        table1_generation.main([f"--pairs={pairs}", f"--output={tmp_path / 'out'}"])


def test_flags_that_would_do_nothing(pairs, tmp_path):
    common = [f"--pairs={pairs}", f"--val={pairs}", f"--output={tmp_path / 'out'}"]
    ignored = {
        table1_generation: ("steps", "trials"),
        table2_real_denoising: ("trials",),
        fig5_curves: ("images", "trials"),
        fig7_ablation: ("images", "trials"),
    }
    for table, names in ignored.items():
        flags = common[::2] if table is table1_generation else common
        for name in names:
            with untrained(), pytest.raises(InputError, match=f"unrecognized.*--{name}"):
                table.main([*flags, f"--{name}=1"])


def test_fewer_steps_keep_the_schedule():
    config = recipes.get_config("real-small")
    budget.shorten(config, 2000)
    assert config.train.steps == 2000
    assert config.train.halve_at == (1500, 1700, 1900)
