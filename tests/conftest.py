"""What holds for all tests: the profiles of property tests."""

from support.properties import register_profiles

register_profiles()
