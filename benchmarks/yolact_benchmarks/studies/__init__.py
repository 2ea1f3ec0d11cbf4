"""What this project is compared with, and how its own parts do: programs of a checkout, not in the wheel.

``python -m yolact_benchmarks.studies.startup --help`` tells what that one does; each one writes a record.
"""

__all__: list[str] = []
