"""`make bench`: run every benchmark of this folder; each prints one JSON line a metric."""

import runpy
from pathlib import Path

for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    runpy.run_path(str(path), run_name="__main__")
