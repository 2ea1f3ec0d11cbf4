"""What people would use instead, measured side by side."""

__all__: list[str] = []
