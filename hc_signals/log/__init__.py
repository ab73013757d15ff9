"""The change log as consumers read it: positions, windows, pages; backlogs, rotation, resharding, restored databases."""
