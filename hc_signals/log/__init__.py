"""The change log as consumers read it: positions, windows, pages; backlogs, rotation, new shards, restored databases."""
