"""Systems that read texts alone, and those that write them."""
