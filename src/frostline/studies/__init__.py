"""The jobs that leave a run folder: studies, sweeps, several seeds."""
