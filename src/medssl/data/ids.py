"""Ids that say nothing of a person: hashed with a salt that stays in the folder."""

import hashlib
import os
import secrets
from pathlib import Path

from medssl.files import atomic

LETTERS = 16  # 64 bits: no two of a million ids meet


def load_salt(data: Path) -> bytes:
    """The salt of the folder; made at the first call, readable by its owner only."""
    path = data / "salt"
    if path.exists():
        return bytes.fromhex(path.read_text().strip())
    salt = secrets.token_bytes(16)
    with atomic(path) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(handle, salt.hex().encode())
        os.close(handle)
    return salt


def hashed(text: str, salt: bytes) -> str:
    """16 letters for an id; empty stays empty."""
    return hashlib.blake2b(text.encode(), key=salt, digest_size=LETTERS // 2).hexdigest() if text else ""
