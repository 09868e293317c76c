"""Who uses the page: each of them has a folder for their files, gone when they leave."""

import os
import re
import secrets
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from nt_jax.errors import InputError

# Of all files that lie in a session's folder as uploads.
MOST_BYTES = 2 * 1024**3
MOST_FILES = 100
_ABSOLUTE = re.compile(r"(?<![\w.])/(?:[^\s/:]+/)+")


class Session:
    """One user's files, by what they are for.

    Attributes:
      folder: holds all of them.
      token: what download links name the session by; nobody else can guess it.
      denoisers: the user's own, by name: their folders.
      adaptation: the process that adapts a denoiser, the newest; None before the first.
      cancelled: the newest of these that was ended on the user's behalf.
      arrived: the uploads that it was given, where they arrived.
    """

    def __init__(self, folder: Path) -> None:
        """Makes the folder."""
        self.folder = folder
        self.token = secrets.token_urlsafe(16)
        self.denoisers: dict[str, Path] = {}
        self.adaptation: subprocess.Popen | None = None
        self.cancelled: subprocess.Popen | None = None
        self.arrived: set[Path] = set()
        self._files: dict[str, list[Path]] = {}
        self._results: dict[str, Path] = {}
        folder.mkdir()

    def fresh_folder(self, purpose: str) -> Path:
        """Makes an empty folder; what an earlier one of that purpose held is gone."""
        path = self.folder / purpose
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def keep(self, purpose: str, uploads: Sequence[Path]) -> list[Path]:
        """Takes uploads into the session, in the place of earlier ones of that purpose.

        They are linked, not moved: another session may have sent the same file, which then lies in
        the same place.

        Raises:
          InputError: there are too many, or they are too large together.
        """
        self.drop(purpose)
        self.arrived.update(uploads)
        others = [path for paths in self._files.values() for path in paths]
        if len(others) + len(uploads) > MOST_FILES:
            raise InputError(f"more than {MOST_FILES} files; drop fewer")
        if sum(path.stat().st_size for path in (*others, *uploads)) > MOST_BYTES:
            raise InputError(f"more than {MOST_BYTES / 1024**3:g} GB in all; drop fewer or smaller")
        folder = self.fresh_folder(purpose)
        kept = []
        for number, upload in enumerate(uploads):
            # A folder each: two files may have one name.
            (folder / str(number)).mkdir()
            kept.append(folder / str(number) / upload.name)
            os.link(upload, kept[-1])
        self._files[purpose] = kept
        return kept

    def drop(self, purpose: str) -> None:
        """Removes the uploads of that purpose."""
        self._files.pop(purpose, None)
        shutil.rmtree(self.folder / purpose, ignore_errors=True)

    def files(self, purpose: str) -> list[Path]:
        """Lists the uploads of that purpose, maybe none."""
        return self._files.get(purpose, [])

    def file(self, purpose: str, name: str) -> Path:
        """Finds the one upload of that purpose.

        Raises:
          InputError: there is none; the message calls it `name`.
        """
        if not self.files(purpose):
            raise InputError(f"no {name} yet: drop one")
        return self.files(purpose)[0]

    def offer(self, path: Path, name: str) -> str:
        """Lets the user download a file under that name; returns the link."""
        self._results[name] = path
        return f"/result/{self.token}/{quote(name)}"

    def result(self, name: str) -> Path | None:
        """Finds the file that is offered under that name."""
        return self._results.get(name)

    def public(self, text: str) -> str:
        """Rewrites a message for the user: one line that calls files what the user calls them."""
        for path in sorted((p for paths in self._files.values() for p in paths), reverse=True):
            text = text.replace(str(path), path.name)
            text = text.replace(str(path.relative_to(self.folder)), path.name)
        return _ABSOLUTE.sub("", " ".join(text.split()))

    def cancel(self) -> None:
        """Ends the adaptation, if one is running."""
        if self.adaptation and self.adaptation.poll() is None:
            self.cancelled = self.adaptation
            self.adaptation.kill()
            self.adaptation.wait()

    def end(self) -> None:
        """Stops what runs and removes the files."""
        self.cancel()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """All sessions, by the name that the browser's page gives itself."""

    def __init__(self, folder: Path) -> None:
        """Starts without any; `folder` will hold theirs."""
        self._folder = folder
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> Session:
        """Finds the session of that name, made if there is none."""
        with self._lock:
            if name not in self._sessions:
                # The name is the browser's: none for a folder.
                self._sessions[name] = Session(self._folder / secrets.token_hex(8))
            return self._sessions[name]

    def with_token(self, token: str) -> Session | None:
        """Finds the session whose download links hold that token."""
        with self._lock:
            found = [session for session in self._sessions.values() if session.token == token]
        return found[0] if found else None

    def end(self, name: str) -> None:
        """Ends a session, if there is one of that name."""
        with self._lock:
            session = self._sessions.pop(name, None)
            others = [other.arrived for other in self._sessions.values()]
        if session:
            session.end()
            for path in session.arrived.difference(*others):
                path.unlink(missing_ok=True)

    def end_all(self) -> None:
        """Ends all sessions."""
        for name in list(self._sessions):
            self.end(name)
