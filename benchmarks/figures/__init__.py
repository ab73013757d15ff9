"""The figures: each module says what it measures and what it is held against."""
