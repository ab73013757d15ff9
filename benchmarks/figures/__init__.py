"""The figures. Each module says what it measures and what it compares it with."""
