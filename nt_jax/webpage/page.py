"""The page itself: three tabs, what is in them, and what each button does."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr

from nt_jax.errors import InputError
from nt_jax.webpage import pictures
from nt_jax.webpage.adapt import Adapt
from nt_jax.webpage.denoise import Denoise, take_denoiser
from nt_jax.webpage.sessions import Session, Sessions
from nt_jax.webpage.transfer import Transfer
from nt_jax.webpage.uploads import Uploads, take_photo, take_photos

_BROKEN = "something went wrong on the server, and its log says what; try again or another file"
# Two users at once, at each button.
_AT_ONCE = 2
_WAITING = 20
# What arrived and no session took, because its user left at once, is cleared away.
_CLEARED_AFTER_S = 600


def make_page(
    sessions: Sessions, uploads: Uploads, transfer: Transfer, denoise: Denoise, adapt: Adapt
) -> gr.Blocks:
    """Lays out the page.

    Args:
      sessions: who uses it.
      uploads: where files arrive.
      transfer, denoise, adapt: what the tabs do.
    """
    cleared = (60, _CLEARED_AFTER_S)
    with gr.Blocks(title="nt_jax", analytics_enabled=False, delete_cache=cleared) as page:
        gr.Markdown("# nt_jax: the noise of your photo\nNothing leaves this machine.")
        with gr.Tab("Transfer"):
            _transfer_tab(sessions, uploads, transfer)
        with gr.Tab("Denoise"):
            choice = _denoise_tab(sessions, uploads, denoise)
        with gr.Tab("Adapt"):
            done = _adapt_tab(sessions, uploads, adapt)
        _quietly(done.then, _choices(sessions, denoise), None, choice)
        page.unload(_leave(sessions))
    return page.queue(max_size=_WAITING, default_concurrency_limit=_AT_ONCE)


def _transfer_tab(sessions: Sessions, uploads: Uploads, transfer: Transfer) -> None:
    take = partial(_drop, sessions, uploads, take_photo)
    with gr.Row():
        take("noisy", "Noisy photo: whose noise")
        take("clean", "Clean photo: what to put it on")
        take("second", "Second noisy photo, if two are to be blended", optional=True)
    with gr.Row():
        sliders = [
            gr.Slider(0, 3, 1, step=0.05, label="Strength", elem_id="strength"),
            gr.Slider(-30, 30, 0, step=1, label="Level direction", elem_id="level"),
            gr.Slider(0, 1, 0.5, step=0.05, label="Blend: share of the second", elem_id="blend"),
            gr.Slider(0, 9999, 0, step=1, label="Seed", elem_id="seed"),
        ]
    button = gr.Button("Transfer the noise", variant="primary", elem_id="transfer")
    result = gr.HTML(elem_id="transferred")
    _quietly(button.click, _answer(sessions, transfer), sliders, result)


def _denoise_tab(sessions: Sessions, uploads: Uploads, denoise: Denoise) -> gr.Dropdown:
    with gr.Row():
        _drop(sessions, uploads, take_photo, "photo", "Noisy photo")
        with gr.Column():
            choice = gr.Dropdown(
                list(denoise.names), value=denoise.names[0], label="Denoiser", elem_id="denoiser"
            )
            strength = gr.Slider(
                0.25, 4, 1, step=0.05, label="Strength", elem_id="denoise-strength"
            )
            own = _drop(
                *(sessions, uploads, take_denoiser, "own", "Your own: its folder as a ZIP file"),
                types=[".zip"],
            )
    _quietly(own.then, _choices(sessions, denoise), None, choice)
    button = gr.Button("Denoise", variant="primary", elem_id="denoise")
    result = gr.HTML(elem_id="denoised")
    _quietly(button.click, _answer(sessions, denoise), [choice, strength], result)
    return choice


def _adapt_tab(sessions: Sessions, uploads: Uploads, adapt: Adapt) -> Any:
    take = partial(_drop, sessions, uploads, take_photos, count="multiple")
    with gr.Row():
        take("photos", "A handful of noisy photos of one camera")
        take("sharp", "Clean photographs of any camera, if there are some", optional=True)
        take("pairs", "True pairs, if any: files NAME_gt and NAME_noisy", optional=True)
    minutes = gr.Slider(0.1, 120, 20, step=0.1, label="Minutes", elem_id="minutes")
    with gr.Row():
        start = gr.Button("Adapt a denoiser", variant="primary", elem_id="adapt")
        stop = gr.Button("Cancel", variant="stop", elem_id="cancel")
    result = gr.HTML(elem_id="adapted")

    def stopped(request: gr.Request) -> None:
        sessions.of(_name(request)).cancel()

    _quietly(stop.click, stopped, None, None, queue=False)
    return _quietly(start.click, _answer(sessions, adapt), minutes, result)


def _drop(
    sessions: Sessions,
    uploads: Uploads,
    take: Callable[..., Iterator[str]],
    purpose: str,
    label: str,
    *,
    count: Any = "single",
    types: list[str] | None = None,
    optional: bool = False,
) -> Any:
    """Makes a place to drop files on, and below it what is said of them; returns its event.

    It is empty again at once: the session has the files then, and the page need not know where.
    What is optional can be removed again.
    """

    def took(session: Session, progress: gr.Progress, sent: Any) -> Iterator[str]:
        del progress
        return take(session, purpose, uploads.find(sent))

    def removed(request: gr.Request) -> str:
        sessions.of(_name(request)).drop(purpose)
        return ""

    with gr.Column():
        place = gr.File(
            label=label, file_count=count, file_types=types, height=140, elem_id=purpose
        )
        said = gr.HTML(elem_id=f"{purpose}-said")
        if optional:
            remove = gr.Button("Remove", size="sm", elem_id=f"{purpose}-remove")
            _quietly(remove.click, removed, None, said)
    taken = _quietly(place.upload, _answer(sessions, took), place, said)
    _quietly(taken.then, lambda: None, None, place)
    return taken


def _quietly(event: Callable[..., Any], handler: Callable, inputs: Any, outputs: Any, **more: Any):
    """Binds a handler that checks for itself what browsers send, and is no part of any API."""
    return event(handler, inputs, outputs, preprocess=False, api_visibility="private", **more)


def _name(request: gr.Request) -> str:
    if not request.session_hash:
        raise InputError("reload the page")
    return request.session_hash


def _answer(sessions: Sessions, work: Callable[..., Iterator[str]]) -> Callable:
    """Makes a handler that shows what `work` yields, or else why not, in a line."""

    # The toolkit finds what to pass by the type and by the default.
    def handler(
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
        *values: Any,
    ) -> Iterator[str]:
        session = sessions.of(_name(request))
        try:
            yield from work(session, progress, *values)
        except InputError as error:
            yield pictures.error(session.public(str(error)))
        except Exception:
            logging.getLogger(__name__).exception("the page could not do what it was asked")
            yield pictures.error(_BROKEN)

    return handler


def _choices(sessions: Sessions, denoise: Denoise) -> Callable:
    def choices(request: gr.Request) -> Any:
        return gr.Dropdown(choices=denoise.choices(sessions.of(_name(request))))

    return choices


def _leave(sessions: Sessions) -> Callable:
    def leave(request: gr.Request) -> None:
        sessions.end(_name(request))

    return leave
