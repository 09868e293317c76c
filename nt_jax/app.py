"""A web page on this machine that transfers a photo's noise, denoises, and adapts a denoiser.

  python -m nt_jax.app
  python -m nt_jax.app --port=8000

Needs the extra `app`, and `train` for adapting. Nobody else can reach the page, and photos stay in
a temporary folder that is gone when the command ends. See docs/app.md.
"""

from nt_jax.errors import ArgumentParser, InputError, quiet_decoders, run_command, unwind_on_signals


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m nt_jax.app", description=__doc__.split("\n")[0])
    parser.add_argument("--port", default=7860, type=int, help="of 127.0.0.1")
    return parser


@quiet_decoders()
def main(argv: list[str] | None = None) -> None:
    """Runs the command.

    Raises:
      InputError: a wrong flag, the port is taken, or the extra is missing.
    """
    args = _parser().parse_args(argv)
    unwind_on_signals()
    try:
        from nt_jax.webpage.server import serve
    except ImportError as error:
        raise InputError(f"{error.name} is missing: pip install 'nt_jax[app]'") from error

    from nt_jax.compilation import use_compilation_cache
    from nt_jax.inference.loading import bundled_denoisers

    use_compilation_cache()
    serve(args.port, "small", bundled_denoisers())


if __name__ == "__main__":
    run_command(main)
