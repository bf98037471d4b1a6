"""What all stages share: runs, outputs, counters, planning, selection."""
