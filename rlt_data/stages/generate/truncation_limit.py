"""When to stop because too many explanations are truncated."""

from __future__ import annotations

import math
from typing import Protocol

from rlt_data.errors import StageStoppedError

# A run is not stopped early on fewer completions than this: their truncated share is too uncertain.
TRUNCATION_CHECK_AFTER = 32
_CONFIDENCE = 1.96


class LimitConfig(Protocol):
    """The options of a stage that stops where too much is truncated."""

    @property
    def max_tokens(self) -> int:
        """Maximum length of a completion in tokens."""

    @property
    def max_truncated_share(self) -> float:
        """Share of truncated completions above which the stage stops."""

    @property
    def allow_truncated(self) -> bool:
        """Whether it never stops."""


class TruncationLimit:
    """Counts truncated completions, and stops the stage where their share is too high; see `generate`.

    `texts` is what the completions are called in its message.
    """

    def __init__(self, config: LimitConfig, *, texts: str = "explanations") -> None:
        self.completions = 0
        self.truncated = 0
        self.by_context = 0
        self._config = config
        self._texts = texts

    def count(self, *, truncated: bool, by_context: bool = False) -> None:
        """Count one completion; `by_context`: the context ended it before `max_tokens`."""
        self.completions += 1
        self.truncated += truncated
        self.by_context += by_context

    def check_during_run(self, run_id: str) -> None:
        """Stop where the share is above the limit beyond chance. Raises `StageStoppedError`."""
        if self.completions >= TRUNCATION_CHECK_AFTER and self.truncated:
            self._stop_above(run_id, self._bound_share())

    def check_at_end(self, run_id: str) -> None:
        """Stop where the share is above the limit; for few completions, above it beyond chance."""
        if self.completions:
            few = self.completions < TRUNCATION_CHECK_AFTER
            self._stop_above(run_id, self._bound_share() if few else self.truncated / self.completions)

    def _bound_share(self) -> float:
        """Compute the lower bound of Wilson's 95% interval of the truncated share."""
        n, z = self.completions, _CONFIDENCE
        share = self.truncated / n
        center = share + z * z / (2 * n)
        spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return (center - spread) / (1 + z * z / n)

    def _stop_above(self, run_id: str, share: float) -> None:
        config = self._config
        if config.allow_truncated or share <= config.max_truncated_share:
            return
        raise StageStoppedError(
            f"{self.truncated} of {self.completions} {self._texts} ({self.truncated / self.completions:.0%}) "
            f"were truncated at max_tokens {config.max_tokens}, more than {config.max_truncated_share:.0%}",
            where=f"run {run_id}; committed rows are kept",
            remedy=("use a teacher with a longer context" if self.by_context else "raise max_tokens")
            + ", or continue with allow_truncated or a higher max_truncated_share",
        )
