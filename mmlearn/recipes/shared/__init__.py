"""Parts of recipes that several systems share: fields, objectives and measures of a family."""
