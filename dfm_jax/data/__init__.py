"""Posed pictures: the commands `prepare`, `inspect`, `verify`, `loading_benchmark`, and the rooms of their trades."""
