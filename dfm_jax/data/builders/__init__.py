"""Importers: one module a format, and what several of them need. `data.formats` lists the formats."""
