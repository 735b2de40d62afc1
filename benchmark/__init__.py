"""Asks the questions: tasks, phenomena, reports."""
