"""Whether a value read from TOML is what an option asks for."""

from medssl.value_types import fits, wrong_type

__all__ = ["fits", "wrong_type"]
