"""The layout and its rules. Nothing in here knows XML or does I/O."""
