"""Studies that compare this project with others and measure its parts: programs of a checkout, not in the wheel.

``python -m yolact_benchmarks.studies.startup --help`` describes one of them; each study writes a record.
"""

__all__: list[str] = []
