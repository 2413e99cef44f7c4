"""Prepared data sets, read: records, view sampling, examples, batches. Training imports no other room of `data/`."""
