"""Utterances and their batches: manifests of files, and telephone speech composed on the fly."""
