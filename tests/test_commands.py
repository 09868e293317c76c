"""The commands as one."""

import importlib

import pytest

from nt_jax.__main__ import COMMANDS


@pytest.mark.parametrize("name", COMMANDS.values())
def test_every_command_tells_its_flags(name, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"nt_jax.{name}").main()
    assert not ended.value.code
    assert " --" in capsys.readouterr().out
