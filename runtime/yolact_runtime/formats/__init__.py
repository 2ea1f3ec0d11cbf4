"""What files hold, by their bytes: formats, headers, and whether anything is missing. Nothing is decoded here."""

__all__: list[str] = []
