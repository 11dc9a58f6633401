"""Systems of the years before transformers: a convolutional network looks, and a recurrent one writes."""
