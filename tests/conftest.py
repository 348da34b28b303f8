"""For all tests: how long Hypothesis looks for counter-examples."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

# No test asserts a duration, so none of Hypothesis' own limits on time apply.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("dev", _COMMON, max_examples=50)
# The same examples in every run: a submission fails for what it changed.
settings.register_profile("ci", _COMMON, max_examples=100, derandomize=True, print_blob=True)
settings.register_profile("nightly", _COMMON, max_examples=5_000, phases=list(Phase), print_blob=True)

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))
