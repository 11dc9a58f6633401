"""Systems that learn what pictures show by writing captions."""
