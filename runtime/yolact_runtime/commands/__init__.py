"""The command ``yolact-run``."""

__all__: list[str] = []
