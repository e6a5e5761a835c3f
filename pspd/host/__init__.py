"""The machine that a program runs on: its user's folders, limits, locale, standard streams and addresses."""
