"""Format shares for people, without the libraries that the metrics need."""

__all__ = ["percent"]


def percent(share: float | None) -> str:
    """Format a share with two decimals. Only 0 and 1 themselves read 0.00% and 100.00%; None reads –."""
    if share is None:
        return "–"
    text = f"{share:.2%}"
    if text == "100.00%" and share < 1:
        return "> 99.99%"
    return "< 0.01%" if text == "0.00%" and share > 0 else text
