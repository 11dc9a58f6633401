"""Texts in many languages, alone and with pictures: what is said in one helps to read another."""
