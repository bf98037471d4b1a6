"""Shared by all trainings: processes, checkpoints, progress, metrics, results, options of TRL and PEFT."""
