"""Metanetworks by name. To add one: a module that says what it reads, and a line here."""
