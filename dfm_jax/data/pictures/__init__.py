"""Pictures of every kind, decoded; for importers, and for who samples from a photograph."""
