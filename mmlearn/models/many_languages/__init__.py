"""Texts in many languages, alone and with pictures: what is learned in one language helps in the others."""
