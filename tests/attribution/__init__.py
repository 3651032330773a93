"""The join, tested against hosts whose every fact is known."""
