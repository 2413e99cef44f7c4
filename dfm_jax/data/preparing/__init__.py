"""A source becomes a data set: what importers give, the checks of it, and how it is converted and stored."""
