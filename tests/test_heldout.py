"""Held-out patches: what another image is, and scores of those that have one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs.noisetransfer import get_config
from nt_jax.evaluation import heldout

SIZE = 32
GROUPS = ("S6_00100", "S6_00100", "S6_00800")  # the last is alone


def config_of(tmp_path, names):
    rng = np.random.default_rng(0)
    for name in names:
        for role in ("gt", "noisy"):
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{name}_{role}.png")
    config = get_config("smoke")
    config.eval.photos, config.eval.pairs = "", str(tmp_path)
    return config


def names_of(groups):
    return [f"000{i}_00{i}_{group}_00100_3200_N" for i, group in enumerate(groups)]


def evaluate(held_out):
    """Scores with a generator that copies the reference's noise."""

    def generate(batch, key):
        return jnp.clip(batch["clean"] + 0.1 * (batch["reference"] - 0.5), 0, 1)

    return heldout.evaluate(generate, held_out, jax.random.key(0))[0]


def test_a_pair_alone_in_its_group_has_no_part_in_the_other_scores(tmp_path):
    config = config_of(tmp_path, names_of(GROUPS))
    config.eval.patches = 3
    held_out = heldout.make_heldout(config)
    assert held_out.has_other.tolist() == [True, True, False]
    np.testing.assert_array_equal(held_out.reference[0], held_out.noisy[1])
    results = evaluate(held_out)
    assert results["eval/real/patches"] == 3
    assert results["eval/real/patches_other"] == 2
    lone = held_out._replace(
        **{name: getattr(held_out, name)[:2] for name in ("clean", "noisy", "has_other", "kind")},
        reference=held_out.reference[:2],
        reference_clean=held_out.reference_clean[:2],
    )
    assert results["eval/akld_other"] == pytest.approx(evaluate(lone)["eval/akld_other"])


def test_without_any_other_image_there_are_no_other_scores(tmp_path):
    for names in (["a", "b"], ["0001_001_S6_00100_00100_3200_N_tile" + c for c in "12"]):
        folder = tmp_path / names[0]
        folder.mkdir()
        results = evaluate(heldout.make_heldout(config_of(folder, names)))
        assert results["eval/real/patches_other"] == 0
        assert "eval/akld" in results
        assert not [name for name in results if name.endswith("ks_other")]


@pytest.mark.parametrize(("count", "photos"), [(6, 2), (5, 2), (7, 3), (4, 9)])
def test_another_patch_of_a_photograph_is_no_other_image(count, photos):
    others = heldout._next_of_another_photo(count, photos)
    assert (others % photos != np.arange(count) % photos).all()
    assert heldout._next_of_another_photo(4, 1).tolist() == [0, 1, 2, 3]


def test_grey_patches_have_one_noise_in_all_channels():
    config = get_config("smoke")
    config.data.noise_kinds, config.data.noise_kind_weights = ("gaussian",), (1.0,)
    held_out = heldout.make_heldout(config)
    grey = np.array(held_out.kind) == "grey"
    assert grey.sum() == config.eval.patches
    for images in (held_out.clean, held_out.noisy, held_out.reference, held_out.reference_clean):
        np.testing.assert_array_equal(images[grey][..., 0], images[grey][..., 2])
    levels = (held_out.noisy - held_out.clean)[grey].std(axis=(1, 2, 3))
    assert levels[-1] > 2 * levels[0] > 0.02
    assert evaluate(held_out)["eval/grey/patches"] == config.eval.patches
    config.data.grey_fraction = 0.0
    assert "grey" not in heldout.make_heldout(config).kind
