"""For all tests: how fast a machine draws examples or runs them is no failure."""

from hypothesis import HealthCheck, settings

# On top of hypothesis's own profile, which is another where CI is set. A fresh clone has its tables of Unicode yet to build.
settings.register_profile("untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
