"""Conversion of the released program's checkpoints, and what is said about wrong ones."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import flax
import jax
import numpy as np
import pytest

import nt_jax
from nt_jax import convert
from nt_jax.errors import InputError, run_command
from nt_jax.families.n2g.networks import Extractor
from nt_jax.inference import torch_format
from nt_jax.model_folder import load_model

torch = pytest.importorskip("torch")

RELEASED = pathlib.Path(__file__).parent / "golden" / "official_small_pt"
FILES = ("VUNet.pt", "encoder_k.pt", "encoder_q.pt", "ridnet_g.pt")


@pytest.fixture
def released(tmp_path) -> pathlib.Path:
    """A copy of the released folder, to spoil."""
    return pathlib.Path(shutil.copytree(RELEASED, tmp_path / "released"))


def command(monkeypatch, capsys, *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    monkeypatch.setattr(sys, "argv", ["convert", *argv])
    code = 0
    try:
        run_command(convert.main)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refuse(monkeypatch, capsys, folder: pathlib.Path) -> str:
    """The one line with which converting `folder` is refused; checks that nothing is left."""
    parent = folder.parent
    before = set(parent.iterdir())
    flags = f"--torch_dir={folder}", f"--output={parent / 'out'}"
    code, out, err = command(monkeypatch, capsys, *flags)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert set(parent.iterdir()) == before
    return err


def change(path: pathlib.Path, function) -> None:
    """Has `function` change the state dict in a file."""
    state = torch.load(path, weights_only=True)
    function(state)
    torch.save(state, path)


# --- What is right -------------------------------------------------------------------------------


def n2g_state(width: int) -> dict:
    """A state dict such as Noise2Grad's program saves, of random numbers."""
    generator = torch.Generator().manual_seed(0)
    return {
        key: 0.2 * torch.randn(shape, generator=generator)
        for layer in torch_format.n2g_layers(width)
        for key, shape in layer.weights().values()
    }


def n2g_in_torch(state: dict, x):
    """What the program computes: (restored, noise)."""
    functional = torch.nn.functional

    def conv(x, name, pad=1):
        return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=pad)

    def two(x, name):
        return conv(conv(x, f"{name}.0").relu(), f"{name}.2").relu()

    image, kept = x, [two(x, "inc.conv.conv")]
    for i in (1, 2, 3):
        kept.append(two(functional.max_pool2d(kept[-1], 2), f"down{i}.mpconv.1.conv"))
    x = kept.pop()
    for i in (1, 2, 3):
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        x = two(torch.cat([kept.pop(), x], dim=1), f"up{i}.conv.conv")
    restored = conv(x, "outc.0")
    return restored, conv(image - restored, "s.0", pad=0)


def test_noise2grad_converts(tmp_path):
    state = n2g_state(4)
    (tmp_path / "pth").mkdir()
    torch.save(state, tmp_path / "pth" / "latest_net_G.pth")
    assert convert.convert(tmp_path / "pth", tmp_path / "model") == [tmp_path / "model"]
    model = nt_jax.load(tmp_path / "model")
    assert model.metadata["kind"] == "n2g"
    image = torch.rand((1, 3, 24, 16), generator=torch.Generator().manual_seed(1))
    expected = n2g_in_torch(state, image)
    found = jax.jit(Extractor(4).apply)({"params": model.params}, image.permute(0, 2, 3, 1).numpy())
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(theirs.numpy()).max() > 0.1
        np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), atol=1e-4)

    shutil.copy(RELEASED / "ridnet_g.pt", tmp_path / "pth")
    with pytest.raises(InputError, match="another program"):
        convert.convert(tmp_path / "pth", tmp_path / "both")


def test_everything_converts(tmp_path, monkeypatch, capsys):
    output = tmp_path / "new" / "model"
    flags = f"--torch_dir={RELEASED}", f"--output={output}"
    code, out, _ = command(monkeypatch, capsys, *flags)
    assert code == 0
    assert out.splitlines() == [f"wrote {output}", f"wrote {output / 'denoiser'}"]

    metadata, variables = load_model(output)
    assert metadata["kind"] == "noisetransfer"
    assert metadata["model"] == {
        "width": 8,
        "embedding_size": 16,
        "blocks": [4, 3, 2],
        "discriminator_blocks": [2, 3, 4],
        "embedding_bound": "l2",
        "gan_trunk": "head",
    }
    assert set(metadata["source"]) == set(FILES)
    assert set(variables) == {"generator", "key_encoder", "discriminator"}
    assert {leaf.dtype for leaf in flax.traverse_util.flatten_dict(variables).values()} == {
        np.dtype(np.float32)
    }
    # Kernels are divided by sigma = u W v.
    state = torch.load(RELEASED / "VUNet.pt", weights_only=True)
    weight, u, v = (state[f"conv_first.conv2d.weight_{name}"] for name in ("orig", "u", "v"))
    expected = (weight / (u @ weight.flatten(1) @ v)).permute(2, 3, 1, 0)
    kernel = variables["generator"]["first"]["kernel"]
    np.testing.assert_allclose(kernel, expected, rtol=1e-5)

    metadata, variables = load_model(output / "denoiser")
    assert metadata["kind"] == "ridnet"
    assert metadata["model"] == {"features": 16, "blocks": 4}
    head = torch.load(RELEASED / "ridnet_g.pt", weights_only=True)["head.weight"]
    np.testing.assert_array_equal(variables["denoiser"]["head"]["kernel"], head.permute(2, 3, 1, 0))


def test_the_denoiser_alone_converts(released):
    for name in FILES[:3]:
        (released / name).unlink()
    output = released.parent / "out"
    assert convert.convert(released, output) == [output / "denoiser"]
    assert load_model(output / "denoiser")[0]["kind"] == "ridnet"
    assert not (output / "model.json").exists()


def test_without_encoder_q_there_is_no_discriminator(released):
    for name in ("encoder_q.pt", "ridnet_g.pt"):
        (released / name).unlink()
    output = released.parent / "out"
    assert convert.convert(released, output) == [output]
    assert set(load_model(output)[1]) == {"generator", "key_encoder"}


def test_a_second_conversion_replaces_its_model_and_nothing_beside(released):
    output = released.parent / "out"
    convert.convert(released, output)
    (output / "notes.txt").write_text("mine")
    (released / "ridnet_g.pt").unlink()
    (released / "encoder_q.pt").unlink()
    for _ in range(3):
        convert.convert(released, output)
        assert set(load_model(output)[1]) == {"generator", "key_encoder"}
        assert load_model(output / "denoiser")[0]["kind"] == "ridnet"
        assert (output / "notes.txt").read_text() == "mine"
        assert len(list(output.glob("variables*"))) == 1


def test_the_denoiser_may_be_there_first(released):
    output, others = released.parent / "out", released.parent / "others"
    others.mkdir()
    for name in FILES[:3]:
        (released / name).rename(others / name)
    convert.convert(released, output)
    convert.convert(others, output)
    assert load_model(output)[0]["kind"] == "noisetransfer"
    assert load_model(output / "denoiser")[0]["kind"] == "ridnet"


def test_the_mapping_is_linear_and_invertible():
    # Gradients go through the same mapping as weights: it may only move values.
    layers = torch_format.generator_layers(8, 16, (4, 3, 2))
    state = torch.load(RELEASED / "VUNet.pt", weights_only=True)
    state = {key: value.numpy() for key, value in state.items()}
    tree = flax.traverse_util.flatten_dict(torch_format.map_weights(layers, state, "VUNet.pt"))
    theirs = np.concatenate(
        [value.ravel() for key, value in state.items() if key.endswith("weight_orig")]
    )
    ours = np.concatenate([leaf.ravel() for leaf in tree.values()])
    np.testing.assert_array_equal(np.sort(ours), np.sort(theirs))


# --- What is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["VUNet.pt", "encoder_k.pt"])
def test_a_missing_file_is_named(released, monkeypatch, capsys, missing):
    (released / missing).unlink()
    assert missing in refuse(monkeypatch, capsys, released)


def test_a_folder_without_checkpoints_says_what_belongs_there(tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        message = refuse(monkeypatch, capsys, tmp_path / folder)
        assert all(name in message for name in (folder, *FILES))


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(released, monkeypatch, capsys, name):
    content = (RELEASED / name).read_bytes()
    (released / name).write_bytes(content[: len(content) // 2])
    message = refuse(monkeypatch, capsys, released)
    assert name in message
    assert "damaged" in message


def test_foreign_content_is_no_state_dict(released, monkeypatch, capsys):
    path = released / "encoder_k.pt"
    path.write_text("not a checkpoint")
    assert "encoder_k.pt is damaged" in refuse(monkeypatch, capsys, released)
    path.write_bytes(b"")
    assert "encoder_k.pt is damaged" in refuse(monkeypatch, capsys, released)
    for content in ([torch.zeros(2)], {"state_dict": {"a": torch.zeros(2)}, "epoch": 3}):
        torch.save(content, path)
        assert "encoder_k.pt holds no state dict" in refuse(monkeypatch, capsys, released)
    torch.save({}, path)
    assert "encoder_k.pt: missing key" in refuse(monkeypatch, capsys, released)


def test_arrays_that_are_no_plain_numbers_are_named(released, monkeypatch, capsys):
    def first(state):
        return next(key for key, value in state.items() if value.ndim > 1)

    def sparse(state):
        state[first(state)] = state[first(state)].to_sparse()

    def imaginary(state):
        state[first(state)] = state[first(state)].to(torch.complex64)

    for change_it in (sparse, imaginary):
        original = (released / "ridnet_g.pt").read_bytes()
        change(released / "ridnet_g.pt", change_it)
        assert "is no plain array" in refuse(monkeypatch, capsys, released)
        (released / "ridnet_g.pt").write_bytes(original)


def test_a_kernel_of_zeros_has_no_spectral_norm(released, monkeypatch, capsys):
    def zero(state):
        key = next(key for key in state if key.endswith("weight_orig"))
        state[key] = torch.zeros_like(state[key])

    change(released / "VUNet.pt", zero)
    assert "VUNet.pt: a spectral norm is 0" in refuse(monkeypatch, capsys, released)


@pytest.mark.parametrize(
    ("name", "other", "key"),
    [
        ("VUNet.pt", "encoder_k.pt", "conv_first.conv2d.weight_orig"),
        ("encoder_k.pt", "VUNet.pt", "pre_noise.conv2d.weight_orig"),
        ("encoder_q.pt", "ridnet_g.pt", "pre_noise.conv2d.weight_orig"),
        ("ridnet_g.pt", "VUNet.pt", "head.weight"),
    ],
)
def test_another_network_is_recognised(released, monkeypatch, capsys, name, other, key):
    shutil.copy(RELEASED / other, released / name)
    message = refuse(monkeypatch, capsys, released)
    assert f"{name}: missing key '{key}'" in message


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("VUNet.pt", "conv_up2.tconv2d.weight_v"),
        ("VUNet.pt", "blocks1_.3.sft2.convs_beta.0.conv2d.weight_orig"),
        ("encoder_k.pt", "blocks3.1.noise_inorm2.bias"),
        ("encoder_q.pt", "mlp_noise.linear2.linear.weight_u"),
        ("ridnet_g.pt", "b3.ca.c1.body.0.bias"),
    ],
)
def test_a_renamed_extra_or_misshapen_array_is_named(released, monkeypatch, capsys, name, key):
    path = released / name
    change(path, lambda state: state.__setitem__("module." + key, state.pop(key)))
    assert f"{name}: missing key '{key}'" in refuse(monkeypatch, capsys, released)

    shutil.copy(RELEASED / name, path)
    change(path, lambda state: state.__setitem__(key + "_old", state[key]))
    assert f"{name}: unknown key '{key}_old'" in refuse(monkeypatch, capsys, released)

    shutil.copy(RELEASED / name, path)
    change(path, lambda state: state.__setitem__(key, torch.zeros(3, 5)))
    assert f"{name}: '{key}' has shape (3, 5), not (" in refuse(monkeypatch, capsys, released)

    shutil.copy(RELEASED / name, path)
    change(path, lambda state: state[key].fill_(float("nan")))
    assert f"{name}: '{key}' holds values that are not finite" in refuse(
        monkeypatch, capsys, released
    )


def test_files_of_two_models_do_not_mix(released, monkeypatch, capsys):
    layers = torch_format.discriminator_layers(8, 20, (2, 3, 4))
    wider = {
        key: torch.ones(shape)
        for layer in layers
        for key, shape in (*layer.weights().values(), *layer.vectors().values())
    }
    torch.save(wider, released / "encoder_k.pt")
    message = refuse(monkeypatch, capsys, released)
    assert "VUNet.pt has embedding_size 16, encoder_k.pt 20" in message


def test_an_output_that_is_something_else_is_left_alone(released, monkeypatch, capsys):
    output = released.parent / "photos"
    output.mkdir()
    (output / "photo.jpg").write_text("precious")
    flags = f"--torch_dir={released}", f"--output={output}"
    code, _, err = command(monkeypatch, capsys, *flags)
    assert code == 2
    assert str(output) in err
    assert (output / "photo.jpg").read_text() == "precious"


def test_a_denoiser_that_cannot_be_written_leaves_the_model_as_it_was(released):
    output = released.parent / "out"
    convert.convert(released, output)
    shutil.rmtree(output / "denoiser")
    (output / "denoiser").mkdir()
    (output / "denoiser" / "photo.jpg").write_text("precious")
    before = (output / "model.json").stat().st_ino
    with pytest.raises(InputError, match="denoiser exists and is no model folder"):
        convert.convert(released, output)
    assert (output / "model.json").stat().st_ino == before


def test_sigterm_unwinds_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(convert, "convert", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        code, _, _ = command(monkeypatch, capsys, f"--torch_dir={tmp_path}", "--output=out")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 143


def test_without_torch_the_message_tells_how_to_get_it(released, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="pip install torch"):
        convert.convert(released, released.parent / "out")


def test_the_command_as_a_process(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "nt_jax.convert", f"--torch_dir={tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == "error: the following arguments are required: --output; see --help\n"
