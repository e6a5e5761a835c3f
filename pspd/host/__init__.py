"""The machine below: its user's folders, limits, locale, standard streams and addresses."""
