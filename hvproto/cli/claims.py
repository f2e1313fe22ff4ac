def claims() -> None:
    """x"""
