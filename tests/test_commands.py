"""The commands as one, and the flags of training."""

import importlib
import os
import subprocess
import sys

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


def ended(code, **streams):
    """Runs a command that does this; its exit code, and what it wrote to standard error."""
    program = f"import os, signal\nfrom nt_jax.errors import *\nrun_command(lambda: {code})"
    process = subprocess.run(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, **streams
    )
    return process.returncode, process.stderr


def test_an_interrupt_is_one_line():
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # jobs behind & do not
    assert ended(f"({heard}, os.kill(os.getpid(), signal.SIGINT))") == (130, "interrupted\n")


def test_a_terminal_that_is_closed_unwinds_the_command():
    code = "(signal.signal(signal.SIGHUP, signal.{}), unwind_on_signals(), {})"
    hang_up = "os.kill(os.getpid(), signal.SIGHUP)"
    assert ended(code.format("SIG_DFL", hang_up)) == (129, "")
    assert ended(code.format("SIG_IGN", hang_up)) == (0, "")  # as under nohup


def test_nobody_reads_what_a_command_prints():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        assert ended("print('a line', flush=True)", stdout=pipe) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="of Linux")
def test_a_full_disk_behind_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        code, said = ended("print('a line', flush=True)", stdout=full)
    assert code == 2
    assert said == "error: standard output cannot be written: No space left on device\n"
