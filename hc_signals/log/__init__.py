"""The change log as consumers read it: positions, windows, pages; backlogs, rotation, new shards, restores."""
