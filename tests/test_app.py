"""The web page: its parts, and the whole in a headless Chromium, with tiny models."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from tiny_models import save_tiny, save_tiny_denoiser

import nt_jax
from nt_jax import app
from nt_jax import denoise as denoise_command
from nt_jax import transfer as transfer_command
from nt_jax.images import Photo, read_photo, write_photo
from nt_jax.inference.files import noise_of_photos
from nt_jax.inference.loading import bundled_denoisers

pytest.importorskip("gradio", reason="the extra `app` is not installed")

from nt_jax.webpage import sessions as sessions_module
from nt_jax.webpage.adapt import Adapt
from nt_jax.webpage.denoise import Denoise, take_denoiser
from nt_jax.webpage.sessions import Sessions
from nt_jax.webpage.transfer import Transfer
from nt_jax.webpage.uploads import Uploads, take_photo, take_photos

CHROMIUM = shutil.which("chromium")
MAKER = 0x010F


class _Progress:
    """In the place of the toolkit's."""

    def __call__(self, done, desc):
        pass

    def tqdm(self, items, **_):
        return items


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A noisy photo, a clean one of 16 bits with EXIF, others, and tiny models."""
    root = tmp_path_factory.mktemp("app")
    rng = np.random.default_rng(0)
    noisy = data.coffee()[:64, :80] + rng.normal(0, 15, (64, 80, 3))
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(root / "noisy.png")
    exif = Image.Exif()
    exif[MAKER] = "camera"
    clean = data.chelsea()[:64, :72].astype(np.uint16) * 257
    write_photo(root / "clean photo.png", Photo(clean, exif=exif.tobytes()))
    Image.fromarray(data.astronaut()[:256, :256]).save(root / "large.png")
    (root / "broken.png").write_bytes((root / "large.png").read_bytes()[:4000])
    save_tiny(root / "model", reader=True)
    save_tiny_denoiser(root / "denoiser")
    return root


def _flags(folder, output):
    """Of `transfer` and of `denoise`, for what the page makes of the same photos."""
    transfer = {"reference": "noisy.png", "clean": "clean photo.png", "model": "model"}
    denoise = {"input": "noisy.png", "denoiser": "denoiser"}
    transfer, denoise = (
        [f"--{name}={folder / value}" for name, value in flags.items()]
        for flags in (transfer, denoise)
    )
    transfer += [f"--output={output / 'transferred.png'}", "--seed=5", "--strength=1.5"]
    return transfer, [*denoise, f"--output={output / 'denoised.png'}"]


@pytest.fixture(scope="module")
def by_command(folder):
    """What the commands make of the same photos."""
    transfer, denoise = _flags(folder, folder)
    transfer_command.main(transfer)
    denoise_command.main(denoise)
    return folder / "transferred.png", folder / "denoised.png"


@pytest.fixture(scope="module")
def model(folder):
    return nt_jax.load(folder / "model")


@pytest.fixture
def users(tmp_path):
    everyone = Sessions(tmp_path)
    yield everyone
    everyone.end_all()
    assert not any(path.is_dir() and len(path.name) == 16 for path in tmp_path.iterdir())


def _sent(path):
    """A copy, as uploads go with the session that has them."""
    (path.parent / "sent").mkdir(exist_ok=True)
    return Path(shutil.copy(path, path.parent / "sent"))


def _take(session, **uploads):
    for purpose, path in uploads.items():
        list(take_photo(session, purpose, [_sent(path)]))


def _result(session, name):
    return session.result(name).read_bytes()


def test_transfer_gives_the_file_that_the_command_gives(users, folder, model, by_command):
    session = users.of("a")
    transfer = Transfer(model)
    with pytest.raises(nt_jax.InputError, match="no noisy photo yet"):
        next(transfer(session, _Progress(), 1, 0, 0, 0))
    _take(session, noisy=folder / "noisy.png", clean=folder / "clean photo.png")
    [shown] = transfer(session, _Progress(), 1.5, 0, 0, 5)
    made = session.result("clean photo-noisy.png")
    assert made.read_bytes() == by_command[0].read_bytes()
    photo = read_photo(made)
    assert photo.pixels.dtype == np.uint16
    assert Image.open(made).getexif()[MAKER] == "camera"
    assert "noise of level" in shown
    assert "16 bits" in shown
    for strength, seed in ((-1, 0), (1, -1), (float("nan"), 0)):
        with pytest.raises(nt_jax.InputError):
            next(transfer(session, _Progress(), strength, 0, 0, seed))


def test_blend_and_level_change_the_noise(folder, model):
    transfer = Transfer(model)
    noises = [
        noise_of_photos(model, [read_photo(folder / name)])
        for name in ("noisy.png", "clean photo.png")
    ]
    for level, blend, same in ((0, 0, 0), (0, 1, 1), (0, 0.5, None), (20, 0, None)):
        mixed = transfer.mix(noises, level, blend)
        for number, noise in enumerate(noises):
            is_same = np.allclose(mixed["embedding"], noise.embedding, atol=1e-6)
            assert is_same == (number == same)
        if same is not None:
            for name in ("gain", "ring_gain"):
                np.testing.assert_array_equal(mixed[name], getattr(noises[same], name))
    alone = transfer.mix(noises[:1], 0, 1)
    np.testing.assert_array_equal(alone["embedding"], noises[0].embedding)
    for level, blend in ((0, 2), (0, "x"), (float("inf"), 0), (None, 3)):
        with pytest.raises(nt_jax.InputError):
            transfer.mix(noises, level, blend)


def test_denoise_gives_the_file_that_the_command_gives(users, folder, model, by_command, tmp_path):
    session = users.of("a")
    denoise = Denoise(model, [str(folder / "denoiser")])
    _take(session, photo=folder / "noisy.png")
    packed = Path(shutil.make_archive(str(tmp_path / "mine"), "zip", folder, "denoiser"))
    list(take_denoiser(session, "own", [packed]))
    assert denoise.choices(session) == [str(folder / "denoiser"), "mine.zip"]
    for name in denoise.choices(session):
        list(denoise(session, _Progress(), name, 1))
        assert _result(session, "noisy-denoised.png") == by_command[1].read_bytes()
    for name in ("other", str(folder), None):
        with pytest.raises(nt_jax.InputError, match="choose a denoiser"):
            next(denoise(session, _Progress(), name, 1))
    for strength, message in ((2, "this denoiser is blind"), ("x", "strength: expected")):
        with pytest.raises(nt_jax.InputError, match=message):
            next(denoise(session, _Progress(), "mine.zip", strength))


def test_a_packed_denoiser_stays_in_its_folder(users, folder, tmp_path):
    session = users.of("a")
    before = sorted(tmp_path.rglob("*"))
    leading_out = folder / "out.zip"
    with zipfile.ZipFile(leading_out, "w") as archive:
        archive.writestr("../../../evil.txt", "x")
    for path, why in ((leading_out, "holds no model.json"), (folder / "noisy.png", "no readable")):
        with pytest.raises(nt_jax.InputError, match=why):
            list(take_denoiser(session, "own", [_sent(path)]))
    outside = [p for p in tmp_path.rglob("*") if not p.is_relative_to(session.folder)]
    assert outside == [p for p in before if p != session.folder]
    assert session.denoisers == {}


def test_files_of_two_users_are_apart_and_go_with_them(users, folder):
    first, second = users.of("first"), users.of("second")
    content = (folder / "noisy.png").read_bytes()
    sent = _sent(folder / "noisy.png")
    for user in (first, second):
        user.keep("noisy", [sent])
    users.end("first")
    assert not first.folder.exists()
    assert sent.exists()
    assert second.file("noisy", "noisy photo").read_bytes() == content
    assert users.with_token(first.token) is None
    assert users.with_token(second.token) is second
    users.end("second")
    assert not sent.exists()


def test_wrong_uploads_are_told_in_a_line_without_paths(users, folder, tmp_path, monkeypatch):
    session = users.of("a")
    with pytest.raises(nt_jax.InputError) as caught:
        _take(session, noisy=folder / "broken.png")
    assert str(caught.value).startswith("broken.png cannot be decoded")
    assert session.files("noisy") == []
    kept = session.keep("noisy", [_sent(folder / "clean photo.png")])[0]
    assert session.public(f"{kept} is\nbad, as is /etc/nt_jax/x.png") == (
        "clean photo.png is bad, as is x.png"
    )
    monkeypatch.setattr(sessions_module, "MOST_BYTES", 1000)
    with pytest.raises(nt_jax.InputError, match="in all; drop fewer"):
        list(take_photos(session, "photos", [_sent(folder / "noisy.png")]))
    uploads = Uploads(tmp_path / "uploads")
    (tmp_path / "uploads" / "a.png").write_bytes(b"x")
    sent = {"path": str(tmp_path / "uploads" / "a.png")}
    assert [path.name for path in uploads.find([sent])] == ["a.png"]
    for wrong in ("/etc/passwd", f"{tmp_path}/uploads/../{session.folder.name}", "http://x/y", 3):
        with pytest.raises(nt_jax.InputError, match="did not arrive"):
            uploads.find({"path": wrong})


def test_adapt_says_what_the_command_says(users, folder):
    session = users.of("a")
    adapt = Adapt(str(folder / "model"), str(folder / "denoiser"))
    with pytest.raises(nt_jax.InputError, match="no noisy photos yet"):
        next(adapt(session, _Progress(), 1))
    list(take_photos(session, "photos", [_sent(folder / "broken.png")]))
    with pytest.raises(nt_jax.InputError, match="more than 0"):
        next(adapt(session, _Progress(), 0))
    with pytest.raises(nt_jax.InputError) as caught:
        list(adapt(session, _Progress(), 1))
    assert session.public(str(caught.value)).startswith("broken.png cannot be decoded")


def test_what_the_user_cancels_is_told_from_what_the_system_kills(users, folder):
    session = users.of("a")
    adapt = Adapt(str(folder / "model"), str(folder / "denoiser"))
    list(take_photos(session, "photos", [_sent(folder / "large.png")]))
    shown = adapt(session, _Progress(), 1)
    next(shown)
    session.cancel()
    assert "cancelled" in list(shown)[-1]
    shown = adapt(session, _Progress(), 1)
    next(shown)
    session.adaptation.kill()
    with pytest.raises(nt_jax.InputError, match="was killed, as happens where memory runs out"):
        list(shown)


def test_adapt_takes_true_pairs(users, folder, tmp_path):
    session = users.of("a")
    adapt = Adapt(str(folder / "model"), str(folder / "denoiser"))
    list(take_photos(session, "photos", [_sent(folder / "large.png")]))
    alone = Path(shutil.copy(folder / "noisy.png", tmp_path / "x_gt.png"))
    list(take_photos(session, "pairs", [alone]))
    with pytest.raises(nt_jax.InputError) as caught:
        list(adapt(session, _Progress(), 1))
    assert "x_gt.png" in session.public(str(caught.value))


def test_the_page_begins_with_the_default_denoiser():
    first, *others = bundled_denoisers()
    assert first == "small-denoiser"
    assert "open-denoiser" in others


def test_a_taken_port_is_told(folder):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(nt_jax.InputError, match="cannot be used"):
            app.main([f"--port={port}"])


def _environment(**others):
    """Of the page and of the commands it is compared with: other threads would be other bits.

    Threads of eight fake devices would leave a browser on the same processor next to nothing.
    """
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    return os.environ | {"XLA_FLAGS": flags} | others


@pytest.fixture
def server(folder, tmp_path):
    """The page's address, its process and its temporary folder."""
    script = Path(__file__).parent / "app_server.py"
    root = tmp_path / "temporary"
    root.mkdir()
    process = subprocess.Popen(
        [sys.executable, script, "0", folder / "model", folder / "denoiser"],
        env=_environment(TMPDIR=str(root)),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process.stdout.readline().split()[0], process, root
    finally:
        with contextlib.suppress(ProcessLookupError):  # all of it is gone
            os.killpg(process.pid, signal.SIGKILL)  # what it started, too
        process.wait()
        process.stdout.close()


@pytest.fixture
def browser():
    if not CHROMIUM:
        pytest.skip("chromium is not installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        # The sandbox needs a user other than root.
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def _open_page(browser, address, asked):
    page = browser.new_context().new_page()
    page.set_default_timeout(60_000)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    return page


def _drop(page, place, *paths):
    page.set_input_files(f"#{place} input[type=file]", [str(path) for path in paths])


def _saved(page, result, path):
    with page.expect_download() as download:
        page.click(f"#{result} .download")
    download.value.save_as(path)
    return path.read_bytes()


def _click_for_another(page, button, result):
    """Waits for a result that differs: the page shows an earlier one until then."""
    link = page.locator(f"#{result} .download")
    link.evaluate("element => element.classList.add('earlier')")
    page.click(f"#{button}")
    page.locator(f"#{result} .download:not(.earlier)").wait_for()


def test_the_page_in_a_browser(server, browser, folder, tmp_path):
    address, process, root = server
    for name, flags in zip(("transfer", "denoise"), _flags(folder, tmp_path), strict=True):
        command = [sys.executable, "-m", f"nt_jax.{name}", *flags]
        subprocess.run(command, env=_environment(), check=True)
    asked = []
    pages = [_open_page(browser, address, asked) for _ in range(2)]
    _drop(pages[0], "noisy", folder / "broken.png")
    line = pages[0].locator("#noisy-said .error").inner_text()
    assert line.startswith("error: broken.png cannot be decoded")
    pages[0].click("#transfer")
    assert "no noisy photo yet" in pages[0].locator("#transferred .error").inner_text()

    # Two users with the same files at once.
    for page in pages:
        _drop(page, "noisy", folder / "noisy.png")
        _drop(page, "clean", folder / "clean photo.png")
    for seed, page in zip((5, 6), pages, strict=True):
        page.locator("#noisy-said img").wait_for()
        page.locator("#clean-said img").wait_for()
        page.fill("#strength input[type=number]", "1.5")
        page.fill("#seed input[type=number]", str(seed))
        page.keyboard.press("Tab")
    for page in pages:
        page.click("#transfer")
    results = [_saved(page, "transferred", tmp_path / "saved.png") for page in pages]
    assert results[0] == (tmp_path / "transferred.png").read_bytes()
    assert results[0] != results[1]
    assert pages[0].locator("#transferred table").count() == 2
    [link] = pages[0].locator("#transferred .download").all()
    link = address + link.get_attribute("href")

    page = pages[0]
    _drop(page, "second", folder / "clean photo.png")
    page.locator("#second-said img").wait_for()
    _click_for_another(page, "transfer", "transferred")
    assert _saved(page, "transferred", tmp_path / "saved.png") != results[0]
    page.click("#second-remove")
    page.locator("#second-said img").wait_for(state="detached")
    _click_for_another(page, "transfer", "transferred")
    assert _saved(page, "transferred", tmp_path / "saved.png") == results[0]

    page.get_by_role("tab", name="Denoise").click()
    _drop(page, "photo", folder / "noisy.png")
    page.locator("#photo-said img").wait_for()
    page.click("#denoise")
    result = _saved(page, "denoised", tmp_path / "saved.png")
    assert result == (tmp_path / "denoised.png").read_bytes()

    page.get_by_role("tab", name="Adapt").click()
    _drop(page, "photos", folder / "large.png")
    page.get_by_text("1 in all: large.png").wait_for()
    page.click("#adapt")
    page.locator("#adapted progress, #adapted .error").first.wait_for()
    assert page.locator("#adapted .error").all_inner_texts() == []
    page.click("#cancel")
    page.get_by_text("cancelled").wait_for()

    # Nothing of elsewhere is asked for, and nothing tells where the server has its files.
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {address[7:]}
    assert str(root) not in page.content()
    for wrong, headers in (
        ("/gradio_api/file=/etc/passwd", {}),
        ("/result/x/noisy.png", {}),
        ("/", {"Host": "elsewhere.example"}),
        ("/", {"Origin": "http://elsewhere.example"}),
    ):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(urllib.request.Request(address + wrong, headers=headers))
    for open_page in pages:
        open_page.context.close()
    until = time.monotonic() + 30
    while any(path.is_file() for path in root.rglob("*")) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [path for path in root.rglob("*") if path.is_file()]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(link)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert list(root.iterdir()) == []
