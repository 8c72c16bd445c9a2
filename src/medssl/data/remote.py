"""Prepared scans on a server: their tables are copied when a store opens, each scan when it is first read.

Any address that fsspec knows (http, s3 …). fsspec's own file cache writes a file in place, where another loader process
would map it half-written; here a file is whole or absent.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl import files
from medssl.errors import UserError

TABLES = ("index.toml", "index.parquet", "plan.toml", "prepared.parquet")
BESIDE = ("registration.json",)  # need not be there
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)")


@dataclass(frozen=True)
class Remote:
    """A DATA folder at ``url`` and the folder here that its files are copied into."""

    url: str
    folder: Path

    def tables(self) -> Path:
        """Copy the tables; returns the folder, which then looks like DATA."""
        for name in TABLES:
            if not self._copy(name):
                what = f"no {name} at this address"
                raise UserError(what, self.url, "give the address of a folder that `medssl prepare` filled")
        for name in BESIDE:
            if not self._copy(name):
                (self.folder / name).unlink(missing_ok=True)
        return self.folder

    def array(self, name: str, stamp: str) -> None:
        """Have an array of the store here. ``stamp`` names its content: one that was copied before is not asked for."""
        mark = self.folder / "store" / f".{name}.stamp"
        if mark.exists() and mark.read_text() == stamp:
            return
        # Arrays that blosc2 could not make lie as .npy; their description comes first.
        if self._copy(f"store/{name}.b2nd") or (self._copy(f"store/{name}.json") and self._copy(f"store/{name}.npy")):
            files.write_text(mark, stamp)

    def _copy(self, name: str) -> bool:
        """Copy a file; False where the server has none."""
        try:
            with files.atomic(self.folder / name) as temporary:
                self._filesystem().get_file(f"{self.url}/{name}", str(temporary))
        except FileNotFoundError:
            return False
        except (OSError, ImportError, ValueError, *_client_errors()) as error:
            fix = "check the address and that the server runs, then run the same command again"
            raise UserError(f"cannot be read: {error}", f"{self.url}/{name}", fix) from None
        return True

    def _filesystem(self) -> Any:
        from fsspec.core import url_to_fs

        return url_to_fs(self.url)[0]


def remote(data: Path | str) -> Remote | None:
    """The remote folder that ``data`` is the address of; None for a folder of this machine."""
    found = ADDRESS.fullmatch(str(data))  # a path has lost a slash: http:/server/DATA
    if found is None:
        return None
    url = f"{found[1]}://{found[2].rstrip('/')}"
    digest = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
    return Remote(url, Path.home() / ".cache" / "medssl" / digest)


def _client_errors() -> tuple[type[Exception], ...]:
    try:
        from aiohttp import ClientError
    except ImportError:
        return ()
    return (ClientError,)
