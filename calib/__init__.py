"""The pipeline: samples, labels, features, search, profile."""
