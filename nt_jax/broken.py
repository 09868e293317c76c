"""Treats images that cannot be used: one policy, of every command that takes many."""

from nt_jax.errors import InputError


class Broken:
    """Images that cannot be used, each named in a line: end on them, or go on without.

    A command that can look at all images first uses `add`, `check` and `say`; one that finds out
    as it goes uses `note`.

    Attributes:
      skip: whether to go on.
      skipped: the lines.
    """

    def __init__(
        self,
        skip: bool,
        *,
        most: float = 1.0,
        remedy: str = "--skip_broken goes on without",
        prefix: str = "skipped: ",
    ) -> None:
        """Takes whether to go on, with which share of the images broken, and what to say."""
        self.skip, self.skipped = skip, list[str]()
        self._most, self._remedy, self._prefix = most, remedy, prefix

    def add(self, error: InputError | str) -> None:
        """Adds what is wrong with an image, to be decided on later."""
        self.skipped.append(str(error))

    def check(self, total: int) -> None:
        """Ends if images were added and that many are not to be gone on without.

        Args:
          total: of the images, the broken ones among them.

        Raises:
          InputError: names the first, how many there are and the remedy. All of them are too many
            in any case.
        """
        count = len(self.skipped)
        if not count or (self.skip and count < total and count <= self._most * total):
            return
        share = f", more than {self._most:.0%}" if self.skip and self._most < 1 else ""
        remedy = f"; {self._remedy}" if count < total else ""
        raise InputError(
            f"{self.skipped[0]}; {count} of {total} images are unusable{share}{remedy}"
        )

    def say(self) -> None:
        """Prints what is left out."""
        for line in self.skipped:
            print(f"{self._prefix}{line}", flush=True)

    def note(self, error: InputError | str) -> None:
        """Adds what is wrong with an image and prints it.

        Raises:
          InputError: it is not to be skipped.
        """
        if not self.skip:
            raise InputError(f"{error}; {self._remedy}")
        self._print_once(self._prefix, str(error))

    def leave_out(self, line: str) -> None:
        """Names what is left out whatever is asked for, as nothing is wrong with it."""
        self._print_once("left out: ", line)

    def _print_once(self, prefix: str, line: str) -> None:
        if line not in self.skipped:  # an image may have many blocks
            self.skipped.append(line)
            print(f"{prefix}{line}", flush=True)
