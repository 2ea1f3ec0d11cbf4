"""The campaigns, a module each; every docstring states when a result is silently wrong."""

__all__: list[str] = []
