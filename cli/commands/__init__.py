"""One thin file a command that is not a stage."""
