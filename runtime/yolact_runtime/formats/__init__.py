"""File formats recognised by content: headers, and whether anything is missing. Nothing is decoded here."""

__all__: list[str] = []
