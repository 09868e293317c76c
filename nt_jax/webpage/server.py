"""The server: on this machine only, in a temporary folder that is gone when it ends."""

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, PlainTextResponse
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware

from nt_jax.errors import InputError
from nt_jax.inference.loading import load_noisetransfer
from nt_jax.webpage import UPLOADS, pictures
from nt_jax.webpage.adapt import Adapt
from nt_jax.webpage.denoise import Denoise
from nt_jax.webpage.page import make_page
from nt_jax.webpage.sessions import Sessions
from nt_jax.webpage.transfer import Transfer
from nt_jax.webpage.uploads import Uploads

HOST = "127.0.0.1"
LARGEST_FILE = 512 * 1024**2
# Browsers fetch nothing from elsewhere, whatever the toolkit's page asks them to.
_POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"


def serve(port: int, model: str, denoisers: Sequence[str]) -> None:
    """Serves the page until the process is told to end.

    Args:
      port: to listen at; 0 for any that is free.
      model: of the transfer: name or folder.
      denoisers: names or folders; the first is what `adapt` begins with.

    Raises:
      InputError: the port is taken, or the model cannot be loaded.
    """
    try:
        listening = socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise InputError(f"--port={port} cannot be used: {error}; choose another") from error
    transfer = Transfer(load_noisetransfer(model))
    denoise = Denoise(transfer.model, denoisers)
    before, root = Path.cwd(), Path(tempfile.mkdtemp(prefix="nt_jax."))
    sessions = Sessions(root)
    try:
        os.chdir(root)
        page = make_page(
            sessions, Uploads(root / UPLOADS), transfer, denoise, Adapt(model, denoisers[0])
        )
        config = uvicorn.Config(
            make_app(page, sessions), log_level="warning", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        # At the end it would lament every page that is still open.
        logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
        print(f"http://{HOST}:{listening.getsockname()[1]}  (Ctrl+C ends it)", flush=True)
        server.run(sockets=[listening])
    finally:
        sessions.end_all()
        os.chdir(before)
        shutil.rmtree(root, ignore_errors=True)


def make_app(page: gr.Blocks, sessions: Sessions) -> FastAPI:
    """Puts the page and the results' files under one roof."""
    app = FastAPI(openapi_url=None)
    # Not for pages of other sites whose name leads here.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    app.add_middleware(_Policy)

    @app.get("/result/{token}/{name}")
    def result(token: str, name: str) -> FileResponse:
        session = sessions.with_token(token)
        path = session.result(name) if session else None
        if path is None or not path.is_file():
            raise HTTPException(404)
        return FileResponse(path, filename=name)

    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=LARGEST_FILE,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        # No fonts of other sites.
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=pictures.CSS,
    )


class _Policy:
    """Adds the policy to every answer, and refuses what pages of other sites ask for."""

    def __init__(self, app: Any) -> None:
        """Wraps an ASGI application."""
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        origin = headers.get("origin")
        if origin and urlsplit(origin).netloc != headers.get("host"):
            await PlainTextResponse("asked by another site", 403)(scope, receive, send)
            return

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", _POLICY),
                ]
            await send(message)

        await self._app(scope, receive, send_with_policy)
