"""Settings that all tests share. No deadline for hypothesis: the machines that run this are shared and noisy."""

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "thorough", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=1_000, print_blob=True
)
settings.register_profile(
    "quick", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=10, derandomize=True
)
settings.load_profile("default")  # pytest --hypothesis-profile=thorough overrides it
