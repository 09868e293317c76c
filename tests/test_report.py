"""The page that shows the match of reference and generated noise."""

import base64
import io
import os
import re

import numpy as np
import pytest
from PIL import Image
from skimage import data

from nt_jax.errors import InputError
from nt_jax.evaluation.comparison import check_report, write_report
from nt_jax.images import Photo, write_photo


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)

    def noisy(image):
        return np.clip(np.rint(image + rng.normal(0, 15, image.shape)), 0, 255).astype(np.uint8)

    cat, coffee = data.chelsea()[:96, :128], data.coffee()[:80, :64]
    pictures = {
        "reference": noisy(cat),
        "reference_clean": cat,
        "clean": coffee,
        "generated": noisy(coffee),
    }
    paths = {name: tmp_path / f"{name}.png" for name in pictures}
    for name, pixels in pictures.items():
        write_photo(paths[name], Photo(pixels))
    return paths


@pytest.mark.parametrize("known", [True, False])
def test_html_is_self_contained_and_says_what_is_estimated(images, tmp_path, known):
    path = tmp_path / "page.html"
    write_report(path, **(images if known else images | {"reference_clean": None}))
    page = path.read_text()
    assert ("estimate" in page) == (not known)
    assert not re.search(r"(?:src|href)=[\"'](?!data:)", page)
    (encoded,) = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert min(image.size) > 1000
    real, fake = map(
        float, re.search(r"standard deviation</th><td>(.*?)</td><td>(.*?)<", page).groups()
    )
    assert fake == pytest.approx(15 / 255, rel=0.1)
    assert real == pytest.approx(15 / 255, rel=0.1 if known else 0.35)


def test_png(images, tmp_path):
    write_report(tmp_path / "page.png", **images)
    with Image.open(tmp_path / "page.png") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("name", ["$a_$.png", os.fsdecode(b"J\xfcrgen.png")])
def test_a_file_may_be_called_anything(images, tmp_path, name):
    images["reference"] = images["reference"].rename(tmp_path / name)
    write_report(tmp_path / "page.html", **images)
    shown = "J\\xfcrgen.png" if "rgen" in name else name
    assert f"Noise of {shown} on clean.png" in (tmp_path / "page.html").read_text()


def test_wrong_arguments(images, tmp_path):
    reference, clean = images["reference"], images["reference_clean"]
    with pytest.raises(InputError, match="html or"):
        check_report(tmp_path / "page.pdf", reference, clean, [])
    with pytest.raises(InputError, match="overwrite"):
        check_report(clean, reference, clean, [reference, clean])
    with pytest.raises(InputError, match="sizes differ, 64x80 and 128x96"):
        check_report(tmp_path / "page.html", reference, images["clean"], [])
    check_report(tmp_path / "page.html", reference, None, [])
