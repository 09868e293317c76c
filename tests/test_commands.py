"""The commands as one, and the flags of training."""

import importlib

import pytest

from nt_jax import main
from nt_jax.__main__ import COMMANDS
from nt_jax.errors import InputError


@pytest.mark.parametrize("name", COMMANDS.values())
def test_every_command_tells_its_flags(name, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"nt_jax.{name}").main()
    assert not ended.value.code
    assert " --" in capsys.readouterr().out


def test_a_field_that_is_none_is_named_with_what_was_meant(monkeypatch):
    flags = ["--config=quickstart", "--workdir=run", "--config.train.stepz=3"]
    monkeypatch.setattr("sys.argv", ["main", *flags])
    with pytest.raises(InputError, match="no such field: 'stepz' Did you mean \"steps\"") as caught:
        main.parse()
    assert "\\n" not in str(caught.value)
