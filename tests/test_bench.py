"""The benchmark against PyTorch on its smallest networks, our step replaced by a matrix product."""

import json
import math

import jax
import jax.numpy as jnp
import pytest

torch = pytest.importorskip("torch")

from experiments.bench import bench_gpu  # noqa: E402
from experiments.bench.jax_step import JaxStep  # noqa: E402

PROGRAMS = ["nt_jax bf16", "nt_jax fp32", "PyTorch fp32", "PyTorch bf16 channels_last"]


def product_step(config, images, dtype):
    """Stands in for `jax_step`, which takes half a minute to compile."""
    x = jnp.ones((64, 64), dtype)
    lowered = jax.jit(lambda x: x @ x).lower(x)
    compiled = lowered.compile()
    return JaxStep(lambda: compiled(x), lowered, compiled, compile_s=1.0)


def no_compiler(*_, **__):
    raise RuntimeError("No working C++ compiler found\nlong advice")


def test_table_and_json_on_a_cpu(tmp_path, monkeypatch, capsys):
    torch.set_num_threads(1)  # images this small only make threads wait for each other
    monkeypatch.setattr(bench_gpu, "jax_step", product_step)
    monkeypatch.setattr(torch, "compile", no_compiler)
    path = tmp_path / "gpu.json"
    flags = ["--preset=smoke", "--batch=2", "--repeats=1", f"--json={path}"]
    monkeypatch.setattr("sys.argv", ["bench_gpu.py", *flags])
    bench_gpu.main()

    result = json.loads(path.read_text())
    assert [row["program"] for row in result["rows"]] == PROGRAMS
    for row in result["rows"]:
        numbers = {name: value for name, value in row.items() if name not in ("program", "memory")}
        assert all(math.isfinite(value) and value > 0 for value in numbers.values()), row
    assert result["rows"][0]["GFLOP"] == pytest.approx(2 * 64**3 / 1e9)
    assert set(result["product_flop_s"]) == {"bf16", "fp32"}
    assert result["left_out"] == [
        "tf32 left out: only a GPU has it",
        "PyTorch compiled left out: RuntimeError: No working C++ compiler found long advice",
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == result["left_out"]
    assert len(lines) == 2 + 1 + len(PROGRAMS)
