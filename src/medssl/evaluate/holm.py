"""Several comparisons at once: Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979, 65–70)."""

from collections.abc import Sequence

import numpy as np

ALPHA = 0.05


def holm(p: Sequence[float]) -> tuple[list[float], list[float]]:
    """Corrected p values, and for each comparison the level of its interval that excludes zero just where p < 0.05.

    The smallest of m p values is multiplied by m, the next by m − 1, and so on, and none is left below a smaller one.
    So the chance of a single false finding among them all is 5 % at most, however they depend on each other. A
    comparison's level is that of its step, 1 − 0.05 / (m − i); from where the procedure stops, that of its last step.
    """
    m = len(p)
    corrected, levels = [1.0] * m, [1 - ALPHA] * m
    largest, alpha, stopped = 0.0, ALPHA, False
    for step, i in enumerate(np.argsort(p, kind="stable")):
        if not stopped:
            alpha = ALPHA / (m - step)
        largest = max(largest, min(1.0, (m - step) * p[i]))
        stopped = stopped or p[i] >= alpha
        corrected[i], levels[i] = float(largest), 1 - alpha
    return corrected, levels
