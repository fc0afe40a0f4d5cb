"""Attacks take a hundred examples each in the suite; ``--hypothesis-profile=attack`` takes ten thousand."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "attack", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
