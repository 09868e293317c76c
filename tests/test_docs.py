"""The documentation: the site builds without a warning, and links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def test_the_site_builds_without_warnings(tmp_path):
    """Such as for a link that leads nowhere, or a page that is in no menu."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={tmp_path}"],
        cwd=REPOSITORY,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "api" / "index.html").read_text()
    assert all(f'id="nt_jax.{name}"' in api for name in ("load", "Model", "metrics"))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_files_that_are_named_exist(name):
    text = (REPOSITORY / name).read_text()
    named = set(re.findall(r"\]\((?!https?:)([^)#]+)", text))
    named |= set(re.findall(r"\b(?:docs|experiments|tests|configs)/[\w/.]*\w", text))
    missing = {path for path in named if not (REPOSITORY / path).exists()}
    assert not missing


def test_readme_is_a_page():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 90
