"""The page with the models of its arguments: `python app_server.py PORT MODEL DENOISER`."""

import sys

from nt_jax.errors import quiet_decoders, run_command, unwind_on_signals
from nt_jax.webpage.server import serve


@quiet_decoders()
def main():
    unwind_on_signals()
    serve(int(sys.argv[1]), sys.argv[2], [sys.argv[3]])


if __name__ == "__main__":
    run_command(main)
