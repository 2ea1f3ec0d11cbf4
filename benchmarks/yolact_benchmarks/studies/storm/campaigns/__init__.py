"""The campaigns, a module each; every docstring says when an answer is silently wrong."""

__all__: list[str] = []
