"""``python -m medssl``, the same as the command."""

import sys

from medssl.cli import main

if __name__ == "__main__":
    sys.exit(main())
